"""Maps as PNG bytes: classes as grey values, segments as colours (red + 256 green + 65536 blue, as COCO's panoptic format)."""

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pipeline.errors import DataError

LARGEST = 2**24 - 1
"""Segment number that three bytes hold."""


def encode_classes(classes_HW: NDArray[np.uint8]) -> bytes:
    """PNG of a map of classes, 255 = none."""
    return _png(Image.fromarray(np.ascontiguousarray(classes_HW, np.uint8)))


def encode_segments(ids_HW: NDArray[np.integer]) -> bytes:
    """PNG of a map of segment numbers 0..2**24 - 1, 0 = none."""
    if ids_HW.size and not 0 <= ids_HW.min() <= ids_HW.max() <= LARGEST:
        raise ValueError(f"segment numbers must be 0 to {LARGEST}, got {ids_HW.min()} to {ids_HW.max()}")
    return _png(Image.fromarray(np.stack([ids_HW >> shift & 255 for shift in (0, 8, 16)], axis=2).astype(np.uint8)))


def decode_classes(source: bytes | Path) -> NDArray[np.uint8]:
    """Classes [H, W] of a grey or palette PNG. DataError names what is not one."""
    image = _open(source)
    if image.mode not in ("L", "P"):
        raise DataError(_name(source), f"has pixels of mode {image.mode}", "a map of classes is a PNG of one byte per pixel")
    return np.asarray(image)


def decode_segments(source: bytes | Path) -> NDArray[np.int32]:
    """Segment numbers [H, W] of a colour PNG. DataError names what is not one."""
    image = _open(source)
    if image.mode not in ("RGB", "RGBA"):
        raise DataError(_name(source), f"has pixels of mode {image.mode}", "a map of segments is a PNG of three bytes per pixel")
    colour_HW3 = np.asarray(image).astype(np.int32)
    ids_HW: NDArray[np.int32] = colour_HW3[..., 0] + 256 * colour_HW3[..., 1] + 65536 * colour_HW3[..., 2]
    return ids_HW


def _open(source: bytes | Path) -> Image.Image:
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=["PNG"]) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise DataError(_name(source), "no such map") from error
    except UnidentifiedImageError as error:
        raise DataError(_name(source), "is not a PNG", "maps are PNG files") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error ... on damaged files
        raise DataError(_name(source), f"cannot be read as a map ({error})", "replace the file") from error


def _name(source: bytes | Path) -> object:
    return source if isinstance(source, Path) else "map"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
