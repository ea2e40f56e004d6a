"""The whole dataset as columns, all splits behind each other, so that a check is a few numpy lines over a million rows.

Axes: `I` pictures and `A` annotations of all splits, `F` findings. Rows here are global; `split_I` and the `*_start` offsets
lead back to a split's own rows.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Dataset
from pipeline.data.rotated import rotated_boxes
from pipeline.labels.check import Check, Fix
from pipeline.labels.mask_fixes import Mask
from pipeline.labels.masks_table import MaskTable, mask_table
from pipeline.labels.pictures import Inspection, State

Rows = NDArray[np.int64]
T = TypeVar("T")


class Finding(NamedTuple):
    """One fault: the row of findings.json."""

    code: str
    severity: str
    split: str | None
    image: str | None
    annotation: int | None
    reason: str
    fix: str | None


@dataclass(slots=True)
class Findings:
    """All findings of one check. A row of -1 means that the finding is not about one annotation, or one picture."""

    check: Check
    image_F: Rows
    annotation_F: Rows
    split_F: Rows
    reasons: list[str]
    keypoints_AK: NDArray[np.bool_] | None = None
    """Of findings about keypoints: which are at fault, over all annotations."""

    def __len__(self) -> int:
        return len(self.reasons)

    @property
    def fix(self) -> Fix | None:
        """What mends these findings."""
        return self.check.fix


class Columns:
    """Annotations and pictures of every split, read only. `inspections` holds what decoding each picture showed."""

    def __init__(
        self, dataset: Dataset, inspections: dict[str, list[Inspection]], network: tuple[int, int] | None = None
    ) -> None:
        self.dataset = dataset
        self.network = network
        """Shorter side, and most of the longer one, that the chosen model resizes pictures to; None where that is not known."""
        self.names = tuple(dataset.splits)
        """Split names, in the dataset's order."""
        splits = list(dataset.splits.values())
        tables, annotations = [split.images for split in splits], [split.annotations for split in splits]
        images_S = [len(table.file_names) for table in tables]
        annotations_S = [len(rows.ids_A) for rows in annotations]
        self.image_start = np.concatenate([[0], np.cumsum(images_S)]).astype(np.int64)
        self.annotation_start = np.concatenate([[0], np.cumsum(annotations_S)]).astype(np.int64)
        self.split_I = np.repeat(np.arange(len(splits)), images_S)
        self.split_A = np.repeat(np.arange(len(splits)), annotations_S)

        self.file_names = [name for table in tables for name in table.file_names]
        self.widths_I = _joined([table.widths_I for table in tables], np.int64)
        """Stored sizes; 0 = unknown."""
        self.heights_I = _joined([table.heights_I for table in tables], np.int64)
        self.unlisted_I = np.zeros(len(self.file_names), np.bool_)
        """Pictures that no label file mentions."""
        for start, table in zip(self.image_start.tolist(), tables, strict=False):
            self.unlisted_I[[start + row for row, extra in table.extra.items() if extra.get("unlabelled")]] = True
        seen = [one for name in self.names for one in inspections[name]]
        self.state_I = np.array([one.state for one in seen], np.int8)
        self.real_widths_I = np.array([one.width for one in seen], np.int64)
        """Real sizes, from the files; 0 where the header could not be read."""
        self.real_heights_I = np.array([one.height for one in seen], np.int64)
        self.digests_I = np.array([one.digest for one in seen], dtype=object)
        """Content digest of the file; empty when it could not be read."""
        self.faults = [one.fault for one in seen]

        own_A = _joined([rows.image_A for rows in annotations], np.int64)
        self.image_A = np.where(own_A >= 0, own_A + self.image_start[self.split_A], -1)
        self.ids_A = _joined([rows.ids_A for rows in annotations], np.int64)
        self.label_A = _joined([rows.label_A for rows in annotations], np.int64)
        self.category_A = _joined([rows.category_A for rows in annotations], np.int64)
        self.ignored_A = _joined([rows.crowd_A for rows in annotations], np.bool_)
        """Crowds and annotations marked `ignore` (VOC's difficult): evaluation does not count them."""
        for start, rows in zip(self.annotation_start.tolist(), annotations, strict=False):
            self.ignored_A[[start + row for row, extra in rows.extra.items() if extra.get("ignore")]] = True
        self.boxes_A4 = np.concatenate([rows.boxes_A4 for rows in annotations] or [np.zeros((0, 4))])
        self.rotated_A5 = np.concatenate(
            [rotated_boxes(split, slice(0, len(split.annotations))) for split in splits] or [np.zeros((0, 5))]
        )
        """Rotated boxes (cx, cy, w, h, degrees), NaN where a label has none."""
        self._measured: dict[tuple[str, tuple[float, ...]], Any] = {}
        self.crowd_A = _joined([rows.crowd_A for rows in annotations], np.bool_)
        self.area_A = _joined([rows.area_A for rows in annotations], np.float64)
        """Areas that the labels state; NaN where they state none."""
        self.looks = [one.look for one in seen]
        """What each picture is like; None where it could not be read."""
        self.maps = [one.drawn for one in seen]
        """The pictures' panoptic maps; None where there are none."""

    @cached_property
    def masks(self) -> MaskTable:
        """Measures of all masks."""
        return mask_table(self.dataset)

    @cached_property
    def keypoints_AK3(self) -> NDArray[np.float32] | None:
        """Keypoints (x, y, visibility) as COCO writes them, NaN beyond a label's own; None if there are none at all."""
        columns = [split.annotations.keypoints_AK3 for split in self.dataset.splits.values()]
        most = max((column.shape[1] for column in columns if column is not None), default=0)
        if not most:
            return None
        points_AK3 = np.full((len(self.ids_A), most, 3), np.nan, np.float32)
        for start, column in zip(self.annotation_start.tolist(), columns, strict=False):
            if column is not None:
                points_AK3[start : start + len(column), : column.shape[1]] = column
        return points_AK3

    def extras(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows with fields that have no column, and those fields."""
        for start, split in zip(self.annotation_start.tolist(), self.dataset.splits.values(), strict=False):
            yield from ((start + row, extra) for row, extra in split.annotations.extra.items())

    def mask(self, row: int) -> Mask:
        """The mask of annotation `row`."""
        split = int(self.split_A[row])
        rows, own = self.dataset.splits[self.names[split]].annotations, row - int(self.annotation_start[split])
        polygons = tuple(np.asarray(polygon, np.float64) for polygon in rows.polygons.polygons_of(own))
        return Mask(polygons, rows.rle.get(own), rows.extra.get(own, {}).get("segmentation"))

    @cached_property
    def frames_A2(self) -> NDArray[np.float64]:
        """(width, height) of each annotation's picture; NaN where unknown."""
        frames_A2 = np.full((len(self.image_A), 2), np.nan)
        held = self.image_A >= 0
        frames_A2[held] = self.frames_I2()[self.image_A[held]]
        frames_A2[~(frames_A2 > 0).all(axis=1)] = np.nan
        return frames_A2

    @cached_property
    def mask_extents_A4(self) -> NDArray[np.float64]:
        """Boxes around the masks, cut at the pictures' borders; NaN where there is no mask."""
        far_A4 = np.tile(self.frames_A2, 2)
        inside_A4 = np.clip(self.masks.boxes_A4, 0, np.where(np.isnan(far_A4), np.inf, far_A4))
        return np.where(self.masks.has_mask()[:, None], inside_A4, np.nan)

    def once(self, measure: Callable[..., T], *limits: float) -> T:
        """`measure(self, *limits)`, computed once for all checks that ask for it."""
        key = measure.__qualname__, limits
        if key not in self._measured:
            self._measured[key] = measure(self, *limits)
        found: T = self._measured[key]
        return found

    @property
    def readable_I(self) -> NDArray[np.bool_]:
        """Pictures that decode to the end."""
        return np.equal(self.state_I, State.GOOD)

    def path(self, row: int) -> Path:
        """The file of picture `row`."""
        split = int(self.split_I[row])
        return self.dataset.splits[self.names[split]].path(row - int(self.image_start[split]))

    def labelled_I(self) -> NDArray[np.bool_]:
        """Pictures with at least one annotation."""
        labelled_I = np.zeros(len(self.file_names), np.bool_)
        labelled_I[self.image_A[self.image_A >= 0]] = True
        return labelled_I

    def frames_I2(self) -> NDArray[np.int64]:
        """(width, height) that boxes are judged against: the stored size, the real one where none is stored, else 0."""
        stored_I2 = np.stack([self.widths_I, self.heights_I], axis=1)
        real_I2 = np.stack([self.real_widths_I, self.real_heights_I], axis=1)
        stored_I1 = (self.widths_I > 0)[:, None] & (self.heights_I > 0)[:, None]
        return np.where(stored_I1, stored_I2, real_I2)

    def scale_I(self) -> NDArray[np.float64]:
        """How many times the chosen model enlarges each picture; NaN where picture or model is unknown."""
        if self.network is None:
            return np.full(len(self.file_names), np.nan)
        real_I2 = np.stack([self.real_widths_I, self.real_heights_I], axis=1).astype(np.float64)
        real_I2[(real_I2 <= 0).any(axis=1)] = np.nan
        short, long = self.network
        scale_I: NDArray[np.float64] = np.minimum(short / real_I2.min(axis=1), long / real_I2.max(axis=1))
        return scale_I

    def on_annotations(self, check: Check, rows: Rows, reason: str, **columns: Sequence[Any] | NDArray[Any]) -> Findings:
        """Findings about the annotations `rows`; `reason` is a format string over `columns`, which have one value per row."""
        return Findings(check, self.image_A[rows], rows, self.split_A[rows], _formatted(reason, columns, len(rows)))

    def on_pictures(self, check: Check, rows: Rows, reason: str, **columns: Sequence[Any] | NDArray[Any]) -> Findings:
        """Findings about the pictures `rows`; `reason` as for annotations."""
        none = np.full(len(rows), -1, np.int64)
        return Findings(check, rows, none, self.split_I[rows], _formatted(reason, columns, len(rows)))

    def on_dataset(self, check: Check, reasons: list[str], splits: Sequence[int] | None = None) -> Findings:
        """Findings about the dataset or, with `splits`, about a split each."""
        none = np.full(len(reasons), -1, np.int64)
        return Findings(check, none, none, none if splits is None else np.array(splits, np.int64), reasons)

    def listed(self, findings: Findings) -> Iterator[Finding]:
        """The findings as rows of findings.json."""
        check = findings.check
        fix = str(check.fix) if check.fix else None
        rows = zip(
            findings.split_F.tolist(), findings.image_F.tolist(), findings.annotation_F.tolist(), findings.reasons, strict=True
        )
        for split, image, annotation, reason in rows:
            yield Finding(
                code=check.code,
                severity=str(check.severity),
                split=self.names[split] if split >= 0 else None,
                image=self.file_names[image] if image >= 0 else None,
                annotation=int(self.ids_A[annotation]) if annotation >= 0 else None,
                reason=reason,
                fix=fix,
            )


def _joined(columns: list[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate(columns).astype(kind) if columns else np.zeros(0, kind)


def _formatted(reason: str, columns: Mapping[str, Sequence[Any] | NDArray[Any]], count: int) -> list[str]:
    if not columns:
        return [reason] * count
    plain = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns.values()]
    return [reason.format(**dict(zip(columns, values, strict=True))) for values in zip(*plain, strict=True)]
