"""Checks of boxes: each looks at the four numbers, and at the picture they lie in."""

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.check import Check, Fix
from pipeline.labels.columns import Columns, Findings

ROUNDING = 1e-6
"""Pixels that x + (W - x) may differ from W: a box clipped to its picture and read back is inside."""


class NotFiniteBox(Check):
    """A box that is absent or holds a number that is not finite: no loss can be computed from it."""

    code, fix = "box-not-finite", Fix.DROP

    def find(self, data: Columns) -> Findings:
        rows = np.flatnonzero(~np.isfinite(data.boxes_A4).all(axis=1))
        return data.on_annotations(self, rows, "box {box}", box=[_written(box_4) for box_4 in data.boxes_A4[rows]])


class ZeroAreaBox(Check):
    """A box whose width or height is zero or negative: no detector can learn from it, and IoU with it is undefined."""

    code, fix = "box-zero-area", Fix.DROP

    def find(self, data: Columns) -> Findings:
        size_A2 = data.boxes_A4[:, 2:] - data.boxes_A4[:, :2]
        rows = np.flatnonzero(np.isfinite(size_A2).all(axis=1) & (size_A2 <= 0).any(axis=1))
        place_F2 = data.boxes_A4[rows, :2]
        return data.on_annotations(
            self,
            rows,
            "{w:g} x {h:g} px at ({x:g}, {y:g})",
            w=size_A2[rows, 0],
            h=size_A2[rows, 1],
            x=place_F2[:, 0],
            y=place_F2[:, 1],
        )


class WhollyOutsideBox(Check):
    """A box that does not touch its picture: there is nothing in it to learn."""

    code, fix = "box-outside", Fix.DROP

    def find(self, data: Columns) -> Findings:
        overlap_A, _ = _reach(data)
        return _outside(self, data, np.flatnonzero(overlap_A <= 0))


class PartlyOutsideBox(Check):
    """A box that reaches beyond its picture: the part outside pulls the learnt edge away from the object's."""

    code, fix = "box-partly-outside", Fix.CLIP

    def find(self, data: Columns) -> Findings:
        overlap_A, beyond_A = _reach(data)
        return _outside(self, data, np.flatnonzero((overlap_A > 0) & (beyond_A > max(self.limits.outside_px, ROUNDING))))


def _reach(data: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each box: the shorter side of its overlap with its picture (<= 0: none), and how far it reaches beyond, in pixels.

    Both NaN where this cannot be judged: no picture, unknown size, or a box that has no area anyway.
    """
    frames_A2 = np.full((len(data.image_A), 2), np.nan)
    held = data.image_A >= 0
    frames_A2[held] = data.frames_I2()[data.image_A[held]]
    near_A2, far_A2 = data.boxes_A4[:, :2], data.boxes_A4[:, 2:]
    judged = (frames_A2 > 0).all(axis=1) & np.isfinite(data.boxes_A4).all(axis=1) & (far_A2 > near_A2).all(axis=1)
    overlap_A = (np.minimum(far_A2, frames_A2) - np.maximum(near_A2, 0)).min(axis=1)
    beyond_A = np.maximum(-near_A2, far_A2 - frames_A2).max(axis=1)
    return np.where(judged, overlap_A, np.nan), np.where(judged, beyond_A, np.nan)


def _outside(check: Check, data: Columns, rows: NDArray[np.int64]) -> Findings:
    frames_F2 = data.frames_I2()[data.image_A[rows]]
    boxes = [_written(box_4) for box_4 in data.boxes_A4[rows]]
    return data.on_annotations(
        check, rows, "box {box} in a picture of {w} x {h}", box=boxes, w=frames_F2[:, 0], h=frames_F2[:, 1]
    )


def _written(box_4: NDArray[np.float64]) -> str:
    return ",".join(f"{value:g}" for value in box_4.tolist())
