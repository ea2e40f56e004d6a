"""Random changes of training pictures, by torchvision.transforms.v2, with their truths following."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from pipeline.data.truths import Truths
from pipeline.predict.preprocess import resized_shape


class Augmented(NamedTuple):
    """A picture as the network gets it, with what is left of its truths."""

    pixels_HW3: np.ndarray
    """uint8 RGB."""
    truths: Truths


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Crop, flip and scale jitter with the given chances and ranges (`training.config.Augment`), then the network's resize."""

    short_side: int
    long_side: int
    flip: float
    scale: tuple[float, float]
    crop: float
    crop_least: float

    def __call__(self, image: Image.Image, truths: Truths, seed: int) -> Augmented:
        """The picture and its truths at the network's size; the same `seed`, the same bytes."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if torch.rand(()) < self.crop:
                image, truths = self._crop(image, truths)
            if torch.rand(()) < self.flip:
                image, truths = functional.horizontal_flip(image), truths.flipped(image.width)
            factor = float(torch.empty(()).uniform_(*self.scale))
        height, width = resized_shape(image.height, image.width, round(self.short_side * factor), round(self.long_side * factor))
        truths = truths.moved((width / image.width, height / image.height), (0, 0))
        return Augmented(np.asarray(functional.resize(image, [height, width])), truths)

    def _crop(self, image: Image.Image, truths: Truths) -> tuple[Image.Image, Truths]:
        share_h, share_w, at_y, at_x = (self.crop_least + (1 - self.crop_least) * torch.rand(2)).tolist() + torch.rand(2).tolist()
        height, width = max(1, round(image.height * share_h)), max(1, round(image.width * share_w))
        top, left = round((image.height - height) * at_y), round((image.width - width) * at_x)
        return functional.crop(image, top, left, height, width), truths.cropped(left, top, width, height)
