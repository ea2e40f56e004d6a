"""Checks of masks: polygons and run lengths, and what box, area and picture say beside them."""

import numpy as np
from numpy.typing import NDArray

from pipeline.labels import mask_fixes
from pipeline.labels.check import Check, Fix
from pipeline.labels.columns import Columns, Findings
from pipeline.labels.masks_table import SMALLEST_LOOP

SIDE_SHARE = 0.1
"""Share of a box's side that it may differ from its mask's by, where that is more than `mask_box_px`."""


class FewPoints(Check):
    """A polygon with fewer than three points: it has no inside, and pycocotools reads four numbers as a box."""

    code, fix = "mask-few-points", Fix.PRUNE

    def find(self, data: Columns) -> Findings:
        rows = np.flatnonzero(data.masks.short_A)
        short, parts = data.masks.short_A[rows], data.masks.parts_A[rows]
        return data.on_annotations(self, rows, "{n} of {parts} polygons have fewer than three points", n=short, parts=parts)


class OddLength(Check):
    """A polygon with an odd number of coordinates: one x or y is missing, and every point behind it is wrong."""

    code, fix = "mask-odd-length", Fix.PRUNE

    def find(self, data: Columns) -> Findings:
        rows = np.flatnonzero(data.masks.odd_A)
        masks = [data.mask(row).odd or [] for row in rows.tolist()]
        lengths = [", ".join(str(len(flat)) for flat in odd if len(flat) % 2) for odd in masks]
        return data.on_annotations(self, rows, "polygons of {n} numbers", n=lengths)


class NotFiniteMask(Check):
    """A polygon with a number that is not finite: no rasteriser can draw it."""

    code, fix = "mask-not-finite", Fix.PRUNE

    def find(self, data: Columns) -> Findings:
        rows = np.flatnonzero(data.masks.wild_A)
        return data.on_annotations(self, rows, "{n} polygons hold NaN or infinity", n=data.masks.wild_A[rows])


class EmptyMask(Check):
    """A mask without area: the box says that there is an object, the mask that there is none."""

    code, fix = "mask-empty", Fix.PRUNE

    def find(self, data: Columns) -> Findings:
        rows = np.flatnonzero(data.masks.has_mask() & ~(data.masks.area_A > 0) & (data.masks.loop_A == 0))
        return data.on_annotations(self, rows, "its mask has no area")


class FullMask(Check):
    """A mask over the whole picture: often a default of the tool, or the background labelled as an object."""

    code = "mask-full"

    def find(self, data: Columns) -> Findings:
        share_A = data.masks.area_A / data.frames_A2.prod(axis=1)
        rows = np.flatnonzero(data.masks.has_mask() & (share_A >= self.limits.whole_share))
        return data.on_annotations(self, rows, "its mask covers {share:.1%} of the picture", share=share_A[rows])


class SelfCrossing(Check):
    """A polygon whose edges cross each other: points in the wrong order, and the loop may be cut out of the mask."""

    code, fix = "mask-self-crossing", Fix.UNCROSS

    def find(self, data: Columns) -> Findings:
        loop_A = data.masks.loop_A
        rows = np.flatnonzero(loop_A > max(self.limits.loop_share, SMALLEST_LOOP))
        return data.on_annotations(self, rows, "a crossing cuts off {share:.1%} of a polygon's area", share=loop_A[rows])


class MaskOutside(Check):
    """A polygon that reaches beyond its picture: drawn on another size of it, or shifted."""

    code, fix = "mask-outside", Fix.CROP

    def find(self, data: Columns) -> Findings:
        beyond_A = np.maximum(-data.masks.boxes_A4[:, :2], data.masks.boxes_A4[:, 2:] - data.frames_A2).max(axis=1)
        rows = np.flatnonzero(~data.masks.coded_A & (beyond_A > max(self.limits.outside_px, 1e-6)))
        return data.on_annotations(self, rows, "its mask reaches {px:.1f} px beyond the picture", px=beyond_A[rows])


class MaskOffBox(Check):
    """A mask that does not fill its box, or leaves it: one of the two was moved without the other."""

    code, fix = "mask-box-differs", Fix.BOX

    def find(self, data: Columns) -> Findings:
        extent_A4, boxes_A4 = data.mask_extents_A4, data.boxes_A4
        allowed_A2 = np.maximum(self.limits.mask_box_px, SIDE_SHARE * (boxes_A4[:, 2:] - boxes_A4[:, :2]))
        off_A4 = np.abs(extent_A4 - boxes_A4)
        judged = ~np.isfinite(data.rotated_A5).all(axis=1) & (data.masks.area_A > 0) & np.isfinite(boxes_A4).all(axis=1)
        rows = np.flatnonzero(judged & (off_A4 > np.tile(allowed_A2, 2)).any(axis=1))
        extents = [",".join(f"{value:.1f}" for value in extent_A4[row].tolist()) for row in rows.tolist()]
        return data.on_annotations(
            self, rows, "up to {px:.1f} px between the box and the mask's {extent}", px=off_A4[rows].max(axis=1), extent=extents
        )


class MaskArea(Check):
    """A stored area that is not the mask's: COCO's evaluation sorts objects into small, medium and large by it."""

    code, fix = "mask-area-differs", Fix.AREA

    def find(self, data: Columns) -> Findings:
        masks, stated_A = data.masks, data.area_A
        real_A = masks.area_A.copy()
        judged = masks.has_mask() & (real_A > 0) & np.isfinite(stated_A)
        slack_A = masks.length_A / 2 + 2  # pixels that the outline cuts count wholly or not at all

        def differs(real_A: NDArray[np.float64]) -> NDArray[np.bool_]:
            off_A: NDArray[np.bool_] = np.abs(stated_A - real_A) > self.limits.area_share * np.maximum(real_A, stated_A) + slack_A
            return off_A

        found = judged & differs(real_A)
        # Where polygons overlap, in parts or in a loop, their sum is not the mask's area: those few are counted in pixels.
        unsure = np.flatnonzero(found & ~masks.coded_A & ((masks.parts_A > 1) | (masks.loop_A > 0)))
        frames_A2 = data.frames_A2
        for row in unsure[np.isfinite(frames_A2[unsure]).all(axis=1)].tolist():
            width, height = map(int, frames_A2[row])
            real_A[row] = mask_fixes.pixel_area(data.mask(row), width, height)
        rows = np.flatnonzero(found & differs(real_A))
        return data.on_annotations(
            self, rows, "area {stated:g} is stored, the mask's is {real:.1f}", stated=stated_A[rows], real=real_A[rows]
        )


class MaskHole(Check):
    """A polygon within another of the same label: meant as a hole, but COCO's polygons are joined and it is filled."""

    code = "mask-hole"

    def find(self, data: Columns) -> Findings:
        return data.on_annotations(self, np.flatnonzero(data.masks.hole_A), "one of its polygons lies within another")


class ManyFragments(Check):
    """A mask in very many pieces: often the crumbs of an automatic tool."""

    code = "mask-fragments"

    def find(self, data: Columns) -> Findings:
        pieces_A = np.maximum(data.masks.parts_A, data.masks.pieces_A)
        rows = np.flatnonzero((pieces_A > self.limits.fragments) & ~data.crowd_A)
        named = ["pieces" if coded else "polygons" for coded in data.masks.coded_A[rows]]
        return data.on_annotations(self, rows, "{n} {what}", n=pieces_A[rows], what=named)


class ManyHoles(Check):
    """A mask with very many holes: pixels chosen by a threshold or an automatic tool, not an outline that anybody drew."""

    code = "mask-pinholes"

    def find(self, data: Columns) -> Findings:
        rows = np.flatnonzero((data.masks.holes_A > self.limits.fragments) & ~data.crowd_A)
        return data.on_annotations(self, rows, "{n} holes", n=data.masks.holes_A[rows])


class BrokenRuns(Check):
    """Run lengths that are damaged, or do not add up to the size that they state: no reader can draw them."""

    code, fix = "mask-rle-sum", Fix.REPAIR

    def find(self, data: Columns) -> Findings:
        rows = np.array(sorted(data.masks.fault_A), np.int64)
        return data.on_annotations(self, rows, "{fault}", fault=[data.masks.fault_A[row] for row in rows.tolist()])


class RunsOfOtherSize(Check):
    """Run lengths of another size than the picture's: the mask lies elsewhere, or is turned."""

    code, fix = "mask-rle-size", Fix.REPAIR

    def find(self, data: Columns) -> Findings:
        frames_A2, sizes_A2 = data.frames_A2, data.masks.sizes_A2
        differs = np.isfinite(frames_A2).all(axis=1) & (sizes_A2[:, ::-1] != frames_A2).any(axis=1)
        differs[list(data.masks.fault_A)] = False
        rows = np.flatnonzero(data.masks.coded_A & differs)
        return data.on_annotations(
            self,
            rows,
            "its mask is of {mh} x {mw} pixels (height x width), the picture of {h:.0f} x {w:.0f}",
            mh=sizes_A2[rows, 0],
            mw=sizes_A2[rows, 1],
            h=frames_A2[rows, 1],
            w=frames_A2[rows, 0],
        )


class CrowdPolygon(Check):
    """A crowd given as polygons: COCO's crowds are run lengths, and some readers take nothing else."""

    code, fix = "mask-crowd-polygon", Fix.ENCODE

    def find(self, data: Columns) -> Findings:
        framed = np.isfinite(data.frames_A2).all(axis=1)
        rows = np.flatnonzero(data.crowd_A & framed & ~data.masks.coded_A & data.masks.has_mask() & (data.masks.area_A > 0))
        return data.on_annotations(self, rows, "iscrowd with {n} polygons", n=data.masks.parts_A[rows])


class OverlappingMasks(Check):
    """Two masks over each other in a panoptic dataset, where a pixel belongs to one object only."""

    code = "mask-overlap"

    def find(self, data: Columns) -> Findings:
        firsts, seconds, shares = [], [], []
        for first, second in _touching(data):
            share = _shared(data, first, second)
            if share > self.limits.overlap_share:
                firsts.append(first)
                seconds.append(second)
                shares.append(share)
        rows = np.array(seconds, np.int64)
        others = data.ids_A[firsts] if firsts else np.zeros(0, np.int64)
        return data.on_annotations(self, rows, "shares {share:.0%} of the smaller with annotation {of}", share=shares, of=others)


class MixedMasks(Check):
    """A label without a mask among others that have one: a detector of masks cannot learn from it, a polygon may be lost."""

    code = "mask-missing"

    def find(self, data: Columns) -> Findings:
        known = (data.image_A >= 0) & (data.label_A >= 0) & ~data.ignored_A
        has = data.masks.means_mask()
        if not (known & has).sum() > (known & ~has).sum():
            return data.on_annotations(self, np.zeros(0, np.int64), "")
        rows = np.flatnonzero(known & ~has)
        return data.on_annotations(
            self, rows, "no mask; {share:.1%} of the labels have one", share=[has[known].mean()] * len(rows)
        )


def _touching(data: Columns) -> list[tuple[int, int]]:
    """Pairs of masks in panoptic splits whose extents share area, first before second; crowds are left out."""
    panoptic = [split.maps is not None and split.maps.panoptic is not None for split in data.dataset.splits.values()]
    extent_A4 = data.mask_extents_A4
    rows = np.flatnonzero(
        np.array(panoptic, np.bool_)[data.split_A] & (data.image_A >= 0) & ~data.crowd_A & np.isfinite(extent_A4).all(axis=1)
        if len(panoptic)
        else np.zeros(0, np.bool_)
    )
    rows = rows[np.lexsort((extent_A4[rows, 0], data.image_A[rows]))]
    image_R, extent_R4 = data.image_A[rows], extent_A4[rows]
    pairs: list[tuple[int, int]] = []
    active, step = np.arange(len(rows)), 1
    while len(active := active[active + step < len(rows)]):
        ahead = active + step
        near = (image_R[active] == image_R[ahead]) & (extent_R4[ahead, 0] < extent_R4[active, 2])
        active, ahead = active[near], ahead[near]
        overlap = (
            np.minimum(extent_R4[active, 2:], extent_R4[ahead, 2:]) > np.maximum(extent_R4[active, :2], extent_R4[ahead, :2])
        ).all(axis=1)
        found = np.sort(np.stack([rows[active[overlap]], rows[ahead[overlap]]], axis=1), axis=1)
        pairs += [(int(first), int(second)) for first, second in found]
        step += 1
    return sorted(pairs, key=lambda pair: pair[::-1])


def _shared(data: Columns, first: int, second: int) -> float:
    """Pixels that two masks share, as a share of the smaller one's; 0 where one cannot be drawn."""
    from pycocotools import mask as coco

    width, height = data.frames_I2()[data.image_A[first]].tolist()
    drawn = [mask_fixes.drawn(data.mask(row), width, height) for row in (first, second)]
    if drawn[0] is None or drawn[1] is None:
        return 0.0
    areas = [float(coco.area(one)) for one in drawn]
    both = float(coco.area(coco.merge(drawn, intersect=True)))
    return both / min(areas) if min(areas) else 0.0
