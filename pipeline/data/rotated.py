"""Rotated boxes (cx, cy, w, h, degrees counter-clockwise as one sees it) of labels: reading and geometry. numpy only.

On disk an annotation's `rbox`, beside its upright `bbox`. A source whose `bbox` has five numbers, as rotated COCO has it, is read
as that, and the upright box is put around it.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Split
from pipeline.errors import DataError

NAMED = 10
"""Labels that an error lists by id; it counts the others."""


def rotated_boxes(split: Split, rows: slice | NDArray[np.int64]) -> NDArray[np.float64]:
    """Rotated boxes [rows, 5] of the annotations in `rows`; NaN where a label has none."""
    table = split.annotations
    if table.rotated_A5 is None:
        return np.full((len(table.label_A[rows]), 5), np.nan)
    found: NDArray[np.float64] = table.rotated_A5[rows]
    return found


def require_rotated(split: Split, place: object) -> None:
    """DataError with the number and the ids of the labels without a sound rotated box; crowds and unknown classes need none."""
    table = split.annotations
    needs_A = (table.image_A >= 0) & (table.label_A >= 0) & ~table.crowd_A
    boxes_A5 = rotated_boxes(split, slice(0, len(table)))
    lacks_A = needs_A & ~(np.isfinite(boxes_A5).all(axis=1) & (np.nan_to_num(boxes_A5[:, 2:4]) > 0).all(axis=1))
    if not lacks_A.any():
        return
    what = f"{int(lacks_A.sum())} of {int(needs_A.sum())} labels of the split {split.name} have no rotated box"
    remedy = "give each annotation rbox: [cx, cy, w, h, degrees counter-clockwise], or train a detector of upright boxes"
    if lacks_A.sum() == needs_A.sum():
        raise DataError(place, f"{what}: nothing to learn rotated boxes from", remedy)
    ids = ", ".join(map(str, table.ids_A[lacks_A][:NAMED].tolist())) + (", ..." if lacks_A.sum() > NAMED else "")
    raise DataError(place, f"{what}: annotations {ids}", remedy)


def stretched(boxes_G5: NDArray[np.float32], scale: tuple[float, float]) -> NDArray[np.float32]:
    """The boxes in a picture stretched by positive factors (x, y); `scale_rotated` of the detector says how, in its words."""
    x, y, w, h, degrees = boxes_G5.T.astype(np.float64)
    sx, sy = scale
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    if sx == sy:  # the angle stays as it was given
        return np.stack([x * sx, y * sy, w * sx, h * sy, degrees], axis=1).astype(np.float32)
    width, height = w * np.hypot(sx * cosine, sy * sine), h * np.hypot(sx * sine, sy * cosine)
    angle = np.degrees(np.arctan2(sx * sine, sy * cosine))
    return np.stack([x * sx, y * sy, width, height, angle], axis=1).astype(np.float32)


def mirrored(boxes_G5: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    """The boxes in a picture of `width` pixels mirrored left to right."""
    return boxes_G5 * np.array([-1, 1, 1, 1, -1], np.float32) + np.array([width, 0, 0, 0, 0], np.float32)
