"""Random changes of training pictures, by torchvision.transforms.v2, with boxes and outlines following."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from pipeline.data.annotations import PolygonPool
from pipeline.predict.preprocess import resized_shape


class Augmented(NamedTuple):
    """A picture as the network gets it, with what is left of its truths."""

    pixels_HW3: np.ndarray
    """uint8 RGB."""
    boxes_G4: np.ndarray
    """float32 (x1, y1, x2, y2)."""
    labels_G: np.ndarray
    polygons: PolygonPool | None
    """Outlines of the G truths where they were given. A crop moves them without clipping: masks are rasterised within boxes."""


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
        self, image: Image.Image, boxes_G4: np.ndarray, labels_G: np.ndarray, seed: int, polygons: PolygonPool | None = None
    ) -> Augmented:
        """The picture and its truths at the network's size; the same `seed`, the same bytes.

        Boxes that a crop leaves under one pixel, or with less than a quarter of their area, are dropped with their labels.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            boxes = tv_tensors.BoundingBoxes(
                boxes_G4.astype(np.float32).reshape(-1, 4), format="XYXY", canvas_size=(image.height, image.width)
            )
            labels = torch.from_numpy(labels_G)
            if torch.rand(()) < self.crop:
                image, boxes, labels, polygons = self._crop(image, boxes, labels, polygons)
            if torch.rand(()) < self.flip:
                image, boxes = functional.horizontal_flip(image), functional.horizontal_flip(boxes)
                polygons = _moved(polygons, scale=(-1, 1), shift=(image.width, 0))
            factor = float(torch.empty(()).uniform_(*self.scale))
        shape = resized_shape(image.height, image.width, round(self.short_side * factor), round(self.long_side * factor))
        polygons = _moved(polygons, scale=(shape[1] / image.width, shape[0] / image.height), shift=(0, 0))
        image, boxes = functional.resize(image, list(shape)), functional.resize(boxes, list(shape))
        return Augmented(np.asarray(image), boxes.numpy(), labels.numpy(), polygons)

    def _crop(
        self, image: Image.Image, boxes: tv_tensors.BoundingBoxes, labels: torch.Tensor, polygons: PolygonPool | None
    ) -> tuple[Image.Image, tv_tensors.BoundingBoxes, torch.Tensor, PolygonPool | None]:
        share_h, share_w, at_y, at_x = (self.crop_least + (1 - self.crop_least) * torch.rand(2)).tolist() + torch.rand(2).tolist()
        height, width = max(1, round(image.height * share_h)), max(1, round(image.width * share_w))
        top, left = round((image.height - height) * at_y), round((image.width - width) * at_x)
        whole_G = area(boxes)
        image, boxes = functional.crop(image, top, left, height, width), functional.crop(boxes, top, left, height, width)
        boxes = functional.clamp_bounding_boxes(boxes)
        side_G2 = boxes[:, 2:] - boxes[:, :2]
        keep_G = (side_G2 >= 1).all(1) & (area(boxes) >= 0.25 * whole_G)
        kept = None if polygons is None else _moved(polygons.take(keep_G.numpy()), scale=(1, 1), shift=(-left, -top))
        return image, tv_tensors.wrap(boxes[keep_G], like=boxes), labels[keep_G], kept


def area(boxes_G4: torch.Tensor) -> torch.Tensor:
    """Areas [g] of `boxes_G4` (x1, y1, x2, y2), in square pixels."""
    return (boxes_G4[:, 2] - boxes_G4[:, 0]) * (boxes_G4[:, 3] - boxes_G4[:, 1])


def _moved(polygons: PolygonPool | None, scale: tuple[float, float], shift: tuple[float, float]) -> PolygonPool | None:
    """The same outlines with x and y scaled, then shifted."""
    return None if polygons is None else replace(polygons, points_P2=polygons.points_P2 * scale + shift)
