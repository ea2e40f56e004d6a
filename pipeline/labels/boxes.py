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
        rows = np.flatnonzero(~np.isfinite(data.boxes_A4).all(axis=1) & ~_around_mask(data))
        return data.on_annotations(self, rows, "box {box}", box=[_written(box_4) for box_4 in data.boxes_A4[rows]])


class MissingBox(Check):
    """A label with a mask and without a box: detectors of boxes would drop it, though the mask says where it is."""

    code, fix = "box-missing", Fix.FILL

    def find(self, data: Columns) -> Findings:
        rows = np.flatnonzero(~np.isfinite(data.boxes_A4).all(axis=1) & _around_mask(data))
        extents = [_written(box_4) for box_4 in data.mask_extents_A4[rows]]
        return data.on_annotations(self, rows, "no box; its mask reaches over {box}", box=extents)


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


class SliverBox(Check):
    """A box of hardly any width or height: often a click that slipped; a detector sees next to nothing in it."""

    code = "box-sliver"

    def find(self, data: Columns) -> Findings:
        size_A2 = _sizes(data)
        rows = np.flatnonzero(~data.ignored_A & (size_A2.min(axis=1) < self.limits.sliver_px))
        return data.on_annotations(self, rows, "{w:.3g} x {h:.3g} px", w=size_A2[rows, 0], h=size_A2[rows, 1])


class ExtremeAspect(Check):
    """A box far longer than wide: few anchors or priors reach such shapes, and it is often a slip."""

    code = "box-extreme-aspect"

    def find(self, data: Columns) -> Findings:
        size_A2 = _sizes(data)
        ratio_A = size_A2.max(axis=1) / size_A2.min(axis=1)
        rows = np.flatnonzero(~data.ignored_A & (ratio_A > self.limits.aspect))
        sides = {"w": size_A2[rows, 0], "h": size_A2[rows, 1]}
        return data.on_annotations(self, rows, "{w:.4g} x {h:.4g} px, 1 to {ratio:.0f}", ratio=ratio_A[rows], **sides)


class WholePictureBox(Check):
    """One box over the whole picture and no other label: often a default of the tool, or a class of the picture as such."""

    code = "box-whole-picture"

    def find(self, data: Columns) -> Findings:
        share_A = _sizes(data).prod(axis=1) / data.frames_A2.prod(axis=1)
        labels_I = np.bincount(data.image_A[data.image_A >= 0], minlength=len(data.file_names))
        alone_A = (data.image_A >= 0) & (labels_I[data.image_A] == 1) if len(labels_I) else np.zeros(len(share_A), np.bool_)
        rows = np.flatnonzero(alone_A & (share_A >= self.limits.whole_share))
        return data.on_annotations(self, rows, "covers {share:.1%} of its picture, which has no other", share=share_A[rows])


class BoxArea(Check):
    """A stored area larger than the box, or none above zero: COCO's evaluation sorts objects by size with it."""

    code, fix = "box-area-differs", Fix.AREA

    def find(self, data: Columns) -> Findings:
        # A smaller area may be that of a mask which this version of the labels left out, as in COCO's keypoints.
        box_A, turned_A = _sizes(data).prod(axis=1), np.isfinite(data.rotated_A5).all(axis=1)
        too_large_A = data.area_A > box_A * (1 + self.limits.area_share) + 1
        rows = np.flatnonzero(~turned_A & ~data.masks.has_mask() & (box_A > 0) & (too_large_A | (data.area_A <= 0)))
        return data.on_annotations(
            self, rows, "area {stated:g} is stored, the box has {real:.1f}", stated=data.area_A[rows], real=box_A[rows]
        )


class UnlikeClass(Check):
    """A box whose size or shape is far from all others of its class: a wrong class, or a slip of the hand."""

    code = "box-unlike-class"
    fewest = 50
    """Boxes of a class from which its statistics mean something."""

    def find(self, data: Columns) -> Findings:
        size_A2 = _sizes(data)
        judged = np.flatnonzero(np.isfinite(size_A2).all(axis=1) & (data.label_A >= 0) & ~data.ignored_A & (data.image_A >= 0))
        w_R, h_R = size_A2[judged].T
        wide_R, high_R = data.frames_A2[judged].T
        features = {"size": (np.log(w_R / wide_R) + np.log(h_R / high_R)) / 2, "width to height": np.log(w_R / h_R)}
        far_R, kind_R = np.zeros(len(judged)), np.zeros(len(judged), np.int64)
        for number, value_R in enumerate(features.values()):
            one_R = _deviations(value_R, data.label_A[judged], self.fewest)
            kind_R[one_R > far_R] = number
            far_R = np.fmax(far_R, one_R)
        hit = far_R > self.limits.unlike_mads
        rows = judged[hit]
        names = [data.dataset.classes[label] for label in data.label_A[rows].tolist()]
        kinds = [tuple(features)[number] for number in kind_R[hit].tolist()]
        return data.on_annotations(
            self, rows, "{kind} is {far:.1f} deviations from the median of {name}", kind=kinds, far=far_R[hit], name=names
        )


def _deviations(value_R: NDArray[np.float64], label_R: NDArray[np.int64], fewest: int) -> NDArray[np.float64]:
    """How far each value is from its class's median, in median absolute deviations (scaled to a normal distribution's); 0 for a
    class with fewer than `fewest` values. At least a twentieth, in logarithms, counts as spread."""
    far_R = np.zeros(len(value_R))
    order = np.argsort(label_R, kind="stable")
    for own in np.split(order, np.flatnonzero(np.diff(label_R[order])) + 1):
        own = own[np.isfinite(value_R[own])]
        if len(own) >= fewest:
            off = np.abs(value_R[own] - np.median(value_R[own]))
            far_R[own] = off / max(1.4826 * float(np.median(off)), 0.05)
    return far_R


def _sizes(data: Columns) -> NDArray[np.float64]:
    """(width, height) of the boxes; NaN where a box has no area: other checks find those."""
    size_A2: NDArray[np.float64] = data.boxes_A4[:, 2:] - data.boxes_A4[:, :2]
    size_A2[~(np.isfinite(size_A2).all(axis=1) & (size_A2 > 0).all(axis=1))] = np.nan
    return size_A2


def _around_mask(data: Columns) -> NDArray[np.bool_]:
    """Labels that a box can be drawn around."""
    extent_A4 = data.mask_extents_A4
    sides_A2: NDArray[np.float64] = extent_A4[:, 2:] - extent_A4[:, :2]
    drawable: NDArray[np.bool_] = np.all(sides_A2 > 0, axis=1)
    return drawable


def _reach(data: Columns) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of each box: the shorter side of its overlap with its picture (<= 0: none), and how far it reaches beyond, in pixels.

    Both NaN where this cannot be judged: no picture, unknown size, or a box that has no area anyway.
    """
    frames_A2 = data.frames_A2
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
