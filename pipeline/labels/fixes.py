"""Mend what the checks found: a new dataset, and an audit line for every change. The one given is left as it is."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Dataset, Split
from pipeline.labels.check import Fix, Severity
from pipeline.labels.columns import Columns, Findings
from pipeline.labels.pictures import Inspection

Mode = Literal["none", "safe", "all"]


class Change(NamedTuple):
    """One change: a row of audit.json."""

    code: str
    fix: str
    split: str
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
    # Pictures first, so that annotations of a picture that goes are not listed one by one.
    for fix in (Fix.QUARANTINE, Fix.SIZE, Fix.DROP, Fix.MERGE, Fix.CLIP):
        for findings in chosen:
            if findings.fix == fix:
                draft.apply(findings, fix)
    splits, stayed = {}, {}
    for number, (name, split) in enumerate(data.dataset.splits.items()):
        own_I = slice(*data.image_start[number : number + 2].tolist())
        own_A = slice(*data.annotation_start[number : number + 2].tolist())
        splits[name] = draft.split(split, own_I, own_A)
        stayed[name] = [inspections[name][row] for row in np.flatnonzero(draft.keep_I[own_I]).tolist()]
    return Mended(replace(data.dataset, splits=splits), stayed, draft.changes)


class _Draft:
    """What the fixes have decided so far, over the rows of all splits."""

    def __init__(self, data: Columns) -> None:
        self.data = data
        self.keep_I = np.ones(len(data.file_names), np.bool_)
        self.keep_A = np.ones(len(data.ids_A), np.bool_)
        self.sizes_I2 = np.stack([data.widths_I, data.heights_I], axis=1)
        self.boxes_A4 = data.boxes_A4.copy()
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
            old, new = self._mend_annotation(row, fix) if row >= 0 else self._mend_picture(picture, fix)
            name = self.data.names[self.data.split_I[picture] if row < 0 else self.data.split_A[row]]
            self.changes.append(Change(finding.code, str(fix), name, finding.image, finding.annotation, finding.reason, old, new))
        if fix == Fix.QUARANTINE:
            self.keep_A &= (self.data.image_A < 0) | self.keep_I[self.data.image_A]

    def split(self, split: Split, own_I: slice, own_A: slice) -> Split:
        """`split` as decided; `own_*` are its rows here."""
        (widths_I, heights_I), annotations = self.sizes_I2[own_I].T.astype(np.int32), split.annotations
        images = replace(split.images, widths_I=widths_I, heights_I=heights_I)
        boxes_A4, area_A = self.boxes_A4[own_A], annotations.area_A.copy()
        clipped = np.flatnonzero((boxes_A4 != annotations.boxes_A4).any(axis=1) & np.isfinite(boxes_A4).all(axis=1))
        masks_A = np.diff(annotations.polygons.annotation_starts)
        masks_A[list(annotations.rle)] += 1
        unmasked = clipped[masks_A[clipped] == 0]  # the area of a mask is the mask's, whatever its box
        area_A[unmasked] = (boxes_A4[unmasked, 2:] - boxes_A4[unmasked, :2]).prod(axis=1)
        dense = annotations.dense
        if dense is not None:  # its points and masks lie in the box's frame
            dense = dense.reframed(annotations.boxes_A4, boxes_A4, split.name)
        mended = replace(annotations, boxes_A4=boxes_A4, area_A=area_A, dense=dense)
        changed = mended.take(np.flatnonzero(self.keep_A[own_A]))
        whole = replace(split, images=images, annotations=changed)
        return whole.take_images(np.flatnonzero(self.keep_I[own_I]))

    def _mend_picture(self, row: int, fix: Fix) -> tuple[dict[str, Any], dict[str, Any] | None]:
        width, height = self.sizes_I2[row].tolist()
        if fix == Fix.SIZE:
            self.sizes_I2[row] = self.data.real_widths_I[row], self.data.real_heights_I[row]
            return {"width": width, "height": height}, dict(zip(("width", "height"), self.sizes_I2[row].tolist(), strict=True))
        self.keep_I[row] = False
        return {"width": width, "height": height, "annotations": int(self._labels_I[row])}, None

    def _mend_annotation(self, row: int, fix: Fix) -> tuple[dict[str, Any], dict[str, Any] | None]:
        old = _plain(self.boxes_A4[row])
        if fix == Fix.CLIP:
            frame = self._frames_I2[self.data.image_A[row]]
            self.boxes_A4[row] = np.clip(self.boxes_A4[row], 0, np.tile(frame, 2))
            return {"box": old}, {"box": _plain(self.boxes_A4[row])}
        self.keep_A[row] = False
        return {"box": old, "category_id": int(self.data.category_A[row])}, None


def _plain(box_4: NDArray[np.float64]) -> list[float | None]:
    """A box for JSON: what is not finite becomes null."""
    return [value if np.isfinite(value) else None for value in box_4.tolist()]
