"""Random changes of training pictures, by torchvision.transforms.v2, with the boxes following."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from pipeline.predict.preprocess import resized_shape


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Crop, flip and scale jitter with the given chances and ranges (`training.config.Augment`), then the network's resize."""

    short_side: int
    long_side: int
    flip: float
    scale: tuple[float, float]
    crop: float
    crop_least: float

    def __call__(
        self, image: Image.Image, boxes_G4: np.ndarray, labels_G: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """uint8 RGB [h, w, 3] of the network's size, its float32 boxes [g, 4] and labels [g]; the same `seed`, the same bytes.

        Boxes that a crop leaves under one pixel, or with less than a quarter of their area, are dropped with their labels.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            boxes = tv_tensors.BoundingBoxes(
                boxes_G4.astype(np.float32).reshape(-1, 4), format="XYXY", canvas_size=(image.height, image.width)
            )
            labels = torch.from_numpy(labels_G)
            if torch.rand(()) < self.crop:
                image, boxes, labels = self._crop(image, boxes, labels)
            image, boxes = v2.RandomHorizontalFlip(self.flip)(image, boxes)
            factor = float(torch.empty(()).uniform_(*self.scale))
        shape = resized_shape(image.height, image.width, round(self.short_side * factor), round(self.long_side * factor))
        image, boxes = functional.resize(image, list(shape)), functional.resize(boxes, list(shape))
        return np.asarray(image), boxes.numpy(), labels.numpy()

    def _crop(
        self, image: Image.Image, boxes: tv_tensors.BoundingBoxes, labels: torch.Tensor
    ) -> tuple[Image.Image, tv_tensors.BoundingBoxes, torch.Tensor]:
        share_h, share_w, at_y, at_x = (self.crop_least + (1 - self.crop_least) * torch.rand(2)).tolist() + torch.rand(2).tolist()
        height, width = max(1, round(image.height * share_h)), max(1, round(image.width * share_w))
        top, left = round((image.height - height) * at_y), round((image.width - width) * at_x)
        whole_G = area(boxes)
        image, boxes = functional.crop(image, top, left, height, width), functional.crop(boxes, top, left, height, width)
        boxes = functional.clamp_bounding_boxes(boxes)
        side_G2 = boxes[:, 2:] - boxes[:, :2]
        keep_G = (side_G2 >= 1).all(1) & (area(boxes) >= 0.25 * whole_G)
        return image, tv_tensors.wrap(boxes[keep_G], like=boxes), labels[keep_G]


def area(boxes_G4: torch.Tensor) -> torch.Tensor:
    """Areas [g] of `boxes_G4` (x1, y1, x2, y2), in square pixels."""
    return (boxes_G4[:, 2] - boxes_G4[:, 0]) * (boxes_G4[:, 3] - boxes_G4[:, 1])
