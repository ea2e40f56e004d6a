"""From a picture file to the network's input: read, resize, order the channels, pad. numpy and Pillow only.

The one place for test-time preparation: the loader, evaluation, export and `predict` all come here, so a detector sees the
same pixels wherever it runs. EXIF orientation is ignored everywhere: COCO-style labels refer to the stored pixels.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.errors import DataError

Pixels = NDArray[np.uint8]
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
"""What counts as a picture. A closed list: Pillow's other readers call outside programs (EPS) or are nobody's photographs."""


class Input(Protocol):
    """What preparation needs to know of a model's input; the detector's InputConfig and deploy.json's have these fields."""

    @property
    def short_side(self) -> int:
        """Wanted length of the shorter side, in pixels."""

    @property
    def long_side(self) -> int:
        """Greatest length of the longer side, in pixels; wins over `short_side`."""

    @property
    def channels(self) -> Literal["rgb", "bgr"]:
        """Order of the colour planes."""


def read_image(path: Path) -> Pixels:
    """Stored pixels of the picture at `path` as uint8 [H, W, 3] RGB; 16-bit grey keeps its upper byte, alpha is dropped.

    DataError names the file when it is missing, not a picture, damaged, cut off, or larger than Pillow's pixel cap.
    """
    try:
        with Image.open(path, formats=readable_formats()) as picture:
            if picture.width < 1 or picture.height < 1:
                raise ValueError(f"it is {picture.width} x {picture.height} pixels")
            if picture.mode.startswith("I"):
                return _upper_byte(picture)
            return np.array(picture.convert("RGB"))
    except FileNotFoundError as error:
        raise DataError(path, "no such picture") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error ... on damaged files
        raise DataError(path, f"cannot be read as a picture ({_reason(error)})", "replace the file or take it out") from error


@cache
def readable_formats() -> list[str]:
    """Those of FORMATS that this Pillow was built with; `open` raises KeyError for a name whose reader is not loaded."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _upper_byte(picture: Image.Image) -> Pixels:
    # convert("RGB") would clip every value above 255 to white.
    grey_HW = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
    return np.repeat(grey_HW[:, :, None], 3, axis=2)


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "unknown or damaged format"
    return " ".join(str(error).split()) or type(error).__name__


def resized_shape(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """(height, width) that a picture is resized to: shorter side `short_side`, unless the longer would exceed `long_side`.

    Halves round up and no side falls below 1. Equal to Detectron2's ResizeShortestEdge, whose float64 steps decide the halves.
    """
    scale = short_side / min(height, width)
    new_height, new_width = (float(short_side), scale * width) if height < width else (scale * height, float(short_side))
    longest = max(new_height, new_width)
    if longest > long_side:
        new_height, new_width = new_height * (long_side / longest), new_width * (long_side / longest)
    return max(1, int(new_height + 0.5)), max(1, int(new_width + 0.5))


def resize(image_HW3: Pixels, height: int, width: int) -> Pixels:
    """`image_HW3` at (height, width) by Pillow's bilinear filter (antialiased when it shrinks)."""
    if image_HW3.shape[:2] == (height, width):
        return image_HW3
    return np.asarray(Image.fromarray(image_HW3).resize((width, height), Image.Resampling.BILINEAR))


def prepare(image_HW3: Pixels, input: Input) -> tuple[Pixels, tuple[int, int]]:
    """The network's input of one RGB picture: uint8 [3, h, w] resized, in the model's channel order, and its (h, w)."""
    height, width = resized_shape(image_HW3.shape[0], image_HW3.shape[1], input.short_side, input.long_side)
    order = slice(None) if input.channels == "rgb" else slice(None, None, -1)
    return resize(image_HW3, height, width)[:, :, order].transpose(2, 0, 1), (height, width)


def stack(prepared: Sequence[tuple[Pixels, tuple[int, int]]], divisor: int) -> tuple[Pixels, NDArray[np.int64]]:
    """One batch of pictures [3, h, w]: pixels uint8 [N, 3, H, W] and sizes (h, w) int64 [N, 2].

    H and W are the largest sides rounded up to multiples of `divisor`; the rest, at the right and bottom, is zero.
    """
    sizes_N2 = np.array([size for _, size in prepared], np.int64).reshape(-1, 2)
    height, width = (-(-sizes_N2.max(axis=0) // divisor) * divisor).tolist()
    pixels_N3HW = np.zeros((len(prepared), 3, height, width), np.uint8)
    for row, (pixels_3HW, (h, w)) in enumerate(prepared):
        pixels_N3HW[row, :, :h, :w] = pixels_3HW
    return pixels_N3HW, sizes_N2
