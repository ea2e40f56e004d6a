"""Mend what the checks found: a new dataset, and an audit line for every change. The one given is left as it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations, PolygonPool
from pipeline.data.dataset import Dataset, Split
from pipeline.labels import mask_fixes
from pipeline.labels.check import Fix, Severity
from pipeline.labels.class_fixes import can_unite, repeated, united
from pipeline.labels.columns import Columns, Findings
from pipeline.labels.images import SizeDiffers
from pipeline.labels.mask_fixes import Mask
from pipeline.labels.pictures import Inspection

Mode = Literal["none", "safe", "all"]
ORDER = (
    *(Fix.UPRIGHT, Fix.QUARANTINE, Fix.SIZE, Fix.DROP, Fix.MERGE),
    *(Fix.PRUNE, Fix.REPAIR, Fix.CROP, Fix.UNCROSS, Fix.ENCODE),
    *(Fix.FILL, Fix.BOX, Fix.CLIP, Fix.AREA, Fix.UNLABEL),
)
"""Pictures first, turned ones before those of a wrong size, so that annotations of a picture that goes are not listed one by one;
masks before what is measured on them."""
QUARTER_TURNS = 5
"""EXIF's orientations from here on exchange width and height."""
MASKS = (Fix.PRUNE, Fix.REPAIR, Fix.CROP, Fix.UNCROSS, Fix.ENCODE)


class Change(NamedTuple):
    """One change: a row of audit.json."""

    code: str
    fix: str
    split: str | None
    """None: the dataset as a whole."""
    image: str | None
    annotation: int | None
    reason: str
    old: dict[str, Any]
    new: dict[str, Any] | None
    """None: removed."""


class Mended(NamedTuple):
    """A dataset after fixes."""

    dataset: Dataset
    inspections: dict[str, list[Inspection]]
    """Of the pictures that stayed."""
    changes: list[Change]


def applies(findings: Findings, mode: Mode) -> bool:
    """Whether `mode` mends these findings."""
    fix = findings.fix
    if fix is None or mode == "none":
        return False
    return mode == "all" or fix.harmless or findings.check.severity == Severity.ERROR


def mend(data: Columns, inspections: dict[str, list[Inspection]], found: Sequence[Findings], mode: Mode) -> Mended:
    """Apply the fixes that `mode` allows. What is removed is removed once, for the first reason found."""
    draft = _Draft(data)
    chosen = [findings for findings in found if applies(findings, mode)]
    for fix in ORDER:
        for findings in chosen:
            if findings.fix == fix:
                draft.apply(findings, fix)
    splits, stayed = {}, {}
    for number, (name, split) in enumerate(data.dataset.splits.items()):
        own_I = slice(*data.image_start[number : number + 2].tolist())
        own_A = slice(*data.annotation_start[number : number + 2].tolist())
        splits[name] = draft.split(split, own_I, own_A)
        kept = np.flatnonzero(draft.keep_I[own_I]).tolist()
        stayed[name] = [
            upright(inspections[name][row]) if own_I.start + row in draft.upright else inspections[name][row] for row in kept
        ]
    mended = replace(data.dataset, splits=splits)
    for findings in chosen:
        if findings.fix == Fix.UNITE:
            mended, made = with_united_classes(data, mended, findings)
            draft.changes += made
    return Mended(mended, stayed, draft.changes)


def with_united_classes(data: Columns, dataset: Dataset, findings: Findings) -> tuple[Dataset, list[Change]]:
    """`dataset` with one class for each name, and the changes. Classes whose keypoints differ stay apart."""
    target: dict[int, int] = {}
    changes = []
    for finding, (first, other) in zip(data.listed(findings), repeated(data.dataset.info.categories), strict=True):
        if can_unite(first, other):
            target[other.id] = first.id
            old = {"category": other.as_json(), "annotations": int((data.category_A == other.id).sum())}
            changes.append(
                Change(finding.code, str(Fix.UNITE), None, None, None, finding.reason, old, {"category": first.as_json()})
            )
    return united(dataset, target), changes


class _Draft:
    """What the fixes have decided so far, over the rows of all splits."""

    def __init__(self, data: Columns) -> None:
        self.data = data
        self.keep_I = np.ones(len(data.file_names), np.bool_)
        self.keep_A = np.ones(len(data.ids_A), np.bool_)
        self.sizes_I2 = np.stack([data.widths_I, data.heights_I], axis=1)
        self.boxes_A4, self.area_A = data.boxes_A4.copy(), data.area_A.copy()
        self.keypoints_AK3 = None if data.keypoints_AK3 is None else data.keypoints_AK3.copy()
        self.masks: dict[int, Mask] = {}
        self.upright: set[int] = set()
        """Pictures that are turned."""
        self.changes: list[Change] = []
        self._frames_I2 = data.frames_I2()
        self._labels_I = np.bincount(data.image_A[data.image_A >= 0], minlength=len(data.file_names))

    def apply(self, findings: Findings, fix: Fix) -> None:
        """Carry out and note each finding's fix, unless its picture or annotation is gone already."""
        for finding, picture, row in zip(
            self.data.listed(findings), findings.image_F.tolist(), findings.annotation_F.tolist(), strict=True
        ):
            if not (self.keep_A[row] if row >= 0 else self.keep_I[picture]):
                continue
            if row < 0 and picture in self.upright and finding.code == SizeDiffers.code:  # no longer
                continue
            old, new = self._mend_annotation(row, findings) if row >= 0 else self._mend_picture(picture, fix)
            if old == new:  # nothing that this fix can do
                continue
            name = self.data.names[self.data.split_I[picture] if row < 0 else self.data.split_A[row]]
            self.changes.append(Change(finding.code, str(fix), name, finding.image, finding.annotation, finding.reason, old, new))
        if fix == Fix.QUARANTINE:
            self.keep_A &= (self.data.image_A < 0) | self.keep_I[self.data.image_A]

    def split(self, split: Split, own_I: slice, own_A: slice) -> Split:
        """`split` as decided; `own_*` are its rows here."""
        (widths_I, heights_I), annotations = self.sizes_I2[own_I].T.astype(np.int32), split.annotations
        images = replace(split.images, widths_I=widths_I, heights_I=heights_I)
        masks = {row - own_A.start: mask for row, mask in self.masks.items() if own_A.start <= row < own_A.stop}
        annotations = with_masks(annotations, masks)
        boxes_A4, area_A = self.boxes_A4[own_A], self.area_A[own_A]
        clipped = np.flatnonzero((boxes_A4 != annotations.boxes_A4).any(axis=1) & np.isfinite(boxes_A4).all(axis=1))
        masks_A = np.diff(annotations.polygons.annotation_starts)
        masks_A[list(annotations.rle)] += 1
        unmasked = clipped[masks_A[clipped] == 0]  # the area of a mask is the mask's, whatever its box
        area_A[unmasked] = (boxes_A4[unmasked, 2:] - boxes_A4[unmasked, :2]).prod(axis=1)
        dense = annotations.dense
        if dense is not None:  # its points and masks lie in the box's frame
            dense = dense.reframed(annotations.boxes_A4, boxes_A4, split.name)
        points_AK3 = annotations.keypoints_AK3
        if points_AK3 is not None and self.keypoints_AK3 is not None:
            points_AK3 = self.keypoints_AK3[own_A, : points_AK3.shape[1]]
        mended = replace(annotations, boxes_A4=boxes_A4, area_A=area_A, dense=dense, keypoints_AK3=points_AK3)
        changed = mended.take(np.flatnonzero(self.keep_A[own_A]))
        whole = replace(split, images=images, annotations=changed)
        return whole.take_images(np.flatnonzero(self.keep_I[own_I]))

    def _mend_picture(self, row: int, fix: Fix) -> tuple[dict[str, Any], dict[str, Any] | None]:
        width, height = self.sizes_I2[row].tolist()
        if fix == Fix.UPRIGHT:
            return self._turn(row)
        if fix == Fix.SIZE:
            self.sizes_I2[row] = self.data.real_widths_I[row], self.data.real_heights_I[row]
            return {"width": width, "height": height}, dict(zip(("width", "height"), self.sizes_I2[row].tolist(), strict=True))
        self.keep_I[row] = False
        return {"width": width, "height": height, "annotations": int(self._labels_I[row])}, None

    def _turn(self, row: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Only a quarter turn shows in the size; of the others nobody can tell whether it was labelled as stored or as shown."""
        look, real = self.data.looks[row], (int(self.data.real_widths_I[row]), int(self.data.real_heights_I[row]))
        assert look is not None
        old = {"orientation": look.orientation, "width": real[0], "height": real[1]}
        if look.orientation < QUARTER_TURNS or real[0] == real[1] or tuple(self.sizes_I2[row].tolist()) != real[::-1]:
            return old, old
        self.upright.add(row)
        return old, {"orientation": 1, "width": real[1], "height": real[0]}

    def _mend_annotation(self, row: int, findings: Findings) -> tuple[dict[str, Any], dict[str, Any] | None]:
        fix = findings.fix
        if fix in MASKS:
            return self._mend_mask(row, findings)
        old = _plain(self.boxes_A4[row])
        if fix == Fix.CLIP:
            frame = self._frames_I2[self.data.image_A[row]]
            self.boxes_A4[row] = np.clip(self.boxes_A4[row], 0, np.tile(frame, 2))
            return {"box": old}, {"box": _plain(self.boxes_A4[row])}
        if fix == Fix.BOX or (fix == Fix.FILL and None in old):
            self.boxes_A4[row] = self.data.mask_extents_A4[row]
            return {"box": old}, {"box": _plain(self.boxes_A4[row])}
        if fix in (Fix.AREA, Fix.FILL):
            was, self.area_A[row] = self.area_A[row], self._area(row)
            return {"area": _number(was)}, {"area": _number(self.area_A[row])}
        if fix == Fix.UNLABEL:
            return self._unlabel(row, findings)
        self.keep_A[row] = False
        return {"box": old, "category_id": int(self.data.category_A[row])}, None

    def _mend_mask(self, row: int, findings: Findings) -> tuple[dict[str, Any], dict[str, Any]]:
        fix = findings.fix
        mask = self.masks.get(row) or self.data.mask(row)
        frame = self._frames_I2[self.data.image_A[row]] if self.data.image_A[row] >= 0 else np.zeros(2, np.int64)
        width, height = frame.tolist()
        if fix == Fix.PRUNE:
            self.masks[row] = mask_fixes.pruned(mask)
        elif fix == Fix.REPAIR:
            self.masks[row] = mask_fixes.repaired(mask, width, height, self.boxes_A4[row])
        elif fix == Fix.CROP:
            self.masks[row] = mask_fixes.cropped(mask, width, height)
        elif fix == Fix.UNCROSS:
            self.masks[row] = mask_fixes.uncrossed(mask, findings.check.limits.loop_share)
        else:
            self.masks[row] = mask_fixes.encoded(mask, width, height)
        old, new = mask.plain(), self.masks[row].plain()
        if fix in (Fix.CROP, Fix.UNCROSS) and abs(self.area_A[row] - self.data.masks.area_A[row]) <= 1 and new != old:
            was, self.area_A[row] = self.area_A[row], self._area(row)  # it was the mask's: it stays so
            return old | {"area": _number(was)}, new | {"area": _number(self.area_A[row])}
        return old, new

    def _area(self, row: int) -> float:
        """Of the mask as it is now, to the pixel where polygons may overlap, else of the box."""
        mask = self.masks.get(row) or self.data.mask(row)
        width, height = self._frames_I2[self.data.image_A[row]].tolist()
        if mask.polygons and (len(mask.polygons) == 1 or min(width, height) <= 0) and self.data.masks.loop_A[row] == 0:
            return sum(map(mask_fixes.area_of, mask.polygons))
        if mask.polygons:
            return mask_fixes.pixel_area(mask, width, height)
        if mask.rle is not None:
            return float(self.data.masks.area_A[row])
        x1, y1, x2, y2 = self.boxes_A4[row].tolist()
        return float((x2 - x1) * (y2 - y1))

    def _unlabel(self, row: int, findings: Findings) -> tuple[dict[str, Any], dict[str, Any]]:
        """Zero the keypoints that the finding marks; remove them where it marks all."""
        assert findings.keypoints_AK is not None and self.keypoints_AK3 is not None
        old, marked_K = self.keypoints_AK3[row].copy(), findings.keypoints_AK[row]
        self.keypoints_AK3[row, marked_K] = np.nan if marked_K.all() else 0
        return _points(old), _points(self.keypoints_AK3[row])


def upright(seen: Inspection) -> Inspection:
    """What looking at the picture shows once it was turned by a quarter."""
    look = None if seen.look is None else seen.look._replace(orientation=1)
    return seen._replace(width=seen.height, height=seen.width, look=look)


def with_masks(annotations: Annotations, masks: dict[int, Mask]) -> Annotations:
    """The annotations with other masks in the rows of `masks`: theirs are put behind the pool, and the rows taken from there."""
    if not masks:
        return annotations
    own, pool = list(masks), annotations.polygons
    behind = PolygonPool.of([masks[row].polygons for row in own])
    joined = PolygonPool(
        np.concatenate([pool.points_P2, behind.points_P2]),
        np.concatenate([pool.polygon_starts, behind.polygon_starts[1:] + len(pool.points_P2)]),
        np.concatenate([pool.annotation_starts, behind.annotation_starts[1:] + len(pool.polygon_starts) - 1]),
    )
    index = np.arange(len(annotations))
    index[own] = len(annotations) + np.arange(len(own))
    rle = {row: coded for row, coded in annotations.rle.items() if row not in masks}
    rle |= {row: mask.rle for row, mask in masks.items() if mask.rle is not None}
    extra = dict(annotations.extra)
    for row in own:
        if more := {key: value for key, value in extra.pop(row, {}).items() if key != "segmentation"}:
            extra[row] = more
    return replace(annotations, polygons=joined.take(index), rle=rle, extra=extra)


def _points(points_K3: NDArray[np.float32]) -> dict[str, Any]:
    return {"keypoints": [_number(value) for value in points_K3.reshape(-1).tolist()]}


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _plain(box_4: NDArray[np.float64]) -> list[float | None]:
    """A box for JSON: what is not finite becomes null."""
    return [value if np.isfinite(value) else None for value in box_4.tolist()]
