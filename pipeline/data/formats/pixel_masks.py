"""Masks of pixels between COCO's run lengths, small pictures of an object's own region, and PNG bytes."""

import io
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.masks import run_lengths
from pipeline.errors import DataError

LARGEST = 1 << 28
"""Pixels of the largest mask that is drawn; a picture of that size could not be trained on either."""

Mask = NDArray[np.bool_]


def mask_of(rle: dict[str, Any], place: object) -> Mask:
    """bool [H, W] of COCO's run lengths. DataError naming `place` when they are none, or too large to draw."""
    height, width, counts = run_lengths(rle, place)
    if height * width > LARGEST:
        raise DataError(place, f"its mask of {height} x {width} pixels is too large to draw", f"at most {LARGEST} pixels")
    drawn: Mask = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T
    return drawn


def rle_at(mask: Mask, left: int, top: int, height: int, width: int) -> dict[str, Any]:
    """COCO's run lengths in a picture of height x width of a mask whose first pixel lies at (left, top); clipped to it."""
    rows, columns = np.nonzero(mask)
    rows, columns = rows + np.int64(top), columns + np.int64(left)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = np.sort(columns[inside] * np.int64(height) + rows[inside])
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    runs = [(int(run[0]), int(run[-1]) + 1) for run in np.split(places, breaks) if len(run)]
    edges = [0, *(edge for run in runs for edge in run), height * width]
    counts = [after - before for before, after in pairwise(edges)]
    return {"size": [height, width], "counts": counts[:-1] if len(counts) > 1 and counts[-1] == 0 else counts}


def mask_fields(mask: Mask, left: int, top: int, height: int, width: int) -> dict[str, Any]:
    """COCO's run lengths, area and the box around a mask whose first pixel lies at (left, top)."""
    record: dict[str, Any] = {"segmentation": rle_at(mask, left, top, height, width), "area": int(mask.sum())}
    if mask.any():
        x, y, own = cropped(mask)
        record["bbox"] = [left + x, top + y, own.shape[1], own.shape[0]]
    return record


def cropped(mask: Mask) -> tuple[int, int, Mask]:
    """(left, top) of the smallest region that holds the mask, and the mask in it; nothing of an empty mask."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return 0, 0, mask[:0, :0]
    return int(columns[0]), int(rows[0]), mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def decode_numbers(data: bytes, place: object) -> NDArray[np.int64]:
    """Numbers [H, W] of a PNG: grey or palette values as they are, of colours red + 256 green + 65536 blue, 0 where they are
    transparent. DataError when it is none, or too large."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"it is of {image.width} x {image.height} pixels")
            image.load()
            if image.mode in ("1", "L", "P", "I", "I;16"):
                return np.asarray(image).astype(np.int64)
            colours = np.asarray(image.convert("RGBA")).astype(np.int64)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error ... on damaged files
        raise DataError(place, f"cannot be read as a PNG mask ({str(error)[:200]})", "draw it anew") from error
    numbers: NDArray[np.int64] = colours[..., 0] + 256 * colours[..., 1] + 65536 * colours[..., 2]
    return np.where(colours[..., 3] > 0, numbers, 0)


def encode_png(mask: Mask) -> bytes:
    """A PNG of one bit per pixel."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()
