"""Objects' masks painted into one map of numbers, for formats in which a pixel belongs to one object."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.formats.pixel_masks import LARGEST, Mask, mask_of
from pipeline.data.formats.things import Thing
from pipeline.errors import DataError

NO_MASK = "without a mask: the format holds masks alone"
NO_PIXEL = "lie outside the picture or wholly under others"
COVERED = "lose pixels to those painted later"
OUTLINES = "are polygons: become pixels"


def painted(things: Sequence[Thing], width: int, height: int, place: Path) -> tuple[NDArray[np.int64], Counter[str]]:
    """Numbers [H, W] of the things, counted from 1, 0 = none, and how many things lost what. Crowds are painted first, then each
    over those before. DataError naming `place` where run lengths are of another size, or the picture is too large."""
    if width * height > LARGEST:
        raise DataError(place, f"its map of {width} x {height} pixels is too large to draw", f"at most {LARGEST} pixels")
    numbers_HW, lost, full = np.zeros((height, width), np.int64), Counter[str](), {}
    for number, thing in sorted(enumerate(things, 1), key=lambda pair: not pair[1].ignored):
        mask_HW = pixels_of(thing, width, height, place)
        if mask_HW is None:
            lost[NO_MASK] += 1
            continue
        lost[OUTLINES] += thing.rle is None
        numbers_HW[mask_HW] = number
        full[number] = int(mask_HW.sum())
    there = dict(zip(*(one.tolist() for one in np.unique(numbers_HW, return_counts=True)), strict=True))
    for number, pixels in full.items():
        left = there.get(number, 0)
        lost[NO_PIXEL] += not left
        lost[COVERED] += 0 < left < pixels
    return numbers_HW, lost


def pixels_of(thing: Thing, width: int, height: int, place: Path) -> Mask | None:
    """bool [H, W] of a thing in its picture; None without a mask. Polygons as COCO's own tools draw them."""
    if thing.rle is not None:
        mask_HW = mask_of(thing.rle, f"{place}: {thing.name}")
        if mask_HW.shape != (height, width):
            raise DataError(
                f"{place}: {thing.name}",
                f"its run lengths are of {mask_HW.shape[1]} x {mask_HW.shape[0]} pixels, the picture of {width} x {height}",
                "repair it with validate",
            )
        return mask_HW
    if not thing.polygons:
        return None
    from pycocotools import mask as coco

    flat = [polygon.reshape(-1).tolist() for polygon in thing.polygons]
    drawn: Mask = coco.decode(coco.merge(coco.frPyObjects(flat, height, width))).astype(bool)
    return drawn
