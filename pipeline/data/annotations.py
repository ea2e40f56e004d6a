"""A split's labels as columns: numpy arrays over all images and annotations, polygons in pools with offsets. numpy only.

A million annotations as Python objects cost gigabytes and are copied into every worker; as columns they are a few arrays that
workers share. Faults of the source are kept, marked in the columns: finding them is the label checks' job.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pipeline.data.dense import DensePool

Rows = NDArray[Any] | list[int] | slice
"""Rows to take: indices in the order wanted, a boolean mask, or a slice."""
_POLYGONS_AT_ONCE = 1 << 16


@dataclass(slots=True)
class ImageTable:
    """I images of a split, in file-name order."""

    ids_I: NDArray[np.int64]
    """The id that annotations refer to; the source's own where it has one, so a faulty source may repeat it."""
    file_names: list[str]
    """Path below `images/`, with forward slashes; the file may be missing."""
    widths_I: NDArray[np.int32]
    """Width that the labels state, in pixels; 0 = not stated. The file may differ."""
    heights_I: NDArray[np.int32]
    """Height that the labels state, in pixels; 0 = not stated."""
    extra: dict[int, dict[str, Any]]
    """By row, sparse: fields without a column (license, flickr_url ...), kept and written back. `unlabelled: 1` marks a picture
    that no label file mentions, as opposed to one that is labelled as empty."""

    def __len__(self) -> int:
        return len(self.file_names)

    def take(self, rows: Rows) -> Self:
        """The images of `rows`, in that order."""
        index = row_indices(rows, len(self))
        return replace(
            self,
            ids_I=self.ids_I[index],
            file_names=[self.file_names[i] for i in index],
            widths_I=self.widths_I[index],
            heights_I=self.heights_I[index],
            extra=_take_sparse(self.extra, index),
        )


@dataclass(slots=True)
class PolygonPool:
    """All polygons of A annotations: annotation a has polygons `annotation_starts[a] : annotation_starts[a + 1]`, polygon q has
    points `polygon_starts[q] : polygon_starts[q + 1]`."""

    points_P2: NDArray[np.floating]
    """(x, y) in pixels; float64 once read: COCO's rasteriser rounds at ties, which a label's decimals in float32 fall beside."""
    polygon_starts: NDArray[np.int64]
    """[Q + 1] offsets into points."""
    annotation_starts: NDArray[np.int64]
    """[A + 1] offsets into polygons."""

    @classmethod
    def empty(cls, annotations: int) -> "PolygonPool":
        """A pool in which none of `annotations` rows has a polygon."""
        return cls(np.zeros((0, 2)), np.zeros(1, np.int64), np.zeros(annotations + 1, np.int64))

    def polygons_of(self, row: int) -> list[NDArray[np.floating]]:
        """The polygons of one annotation, each [points, 2]: views, not copies."""
        starts = self.polygon_starts[self.annotation_starts[row] : self.annotation_starts[row + 1] + 1]
        return [self.points_P2[a:b] for a, b in pairwise(starts.tolist())]

    @classmethod
    def of(cls, polygons_A: Sequence[Sequence[NDArray[np.floating]]]) -> "PolygonPool":
        """The pool of annotations given as lists of polygons [points, 2], in float64."""
        flat = [polygon for polygons in polygons_A for polygon in polygons]
        points_P2 = np.concatenate([np.zeros((0, 2)), *flat])
        polygon_starts = np.cumsum([0, *map(len, flat)], dtype=np.int64)
        return cls(points_P2, polygon_starts, np.cumsum([0, *map(len, polygons_A)], dtype=np.int64))

    def take(self, rows: Rows) -> "PolygonPool":
        """The pool of the annotations in `rows`, in that order."""
        index = row_indices(rows, len(self.annotation_starts) - 1)
        polygons, annotation_starts = ranges(self.annotation_starts, index)
        polygon_starts = np.zeros(len(polygons) + 1, np.int64)
        np.cumsum(self.polygon_starts[polygons + 1] - self.polygon_starts[polygons], out=polygon_starts[1:])
        points_P2 = np.empty((polygon_starts[-1], 2), self.points_P2.dtype)
        for first in range(0, len(polygons), _POLYGONS_AT_ONCE):  # indices of all points would take as much as the points
            last = min(first + _POLYGONS_AT_ONCE, len(polygons))
            points = ranges(self.polygon_starts, polygons[first:last])[0]
            points_P2[polygon_starts[first] : polygon_starts[last]] = self.points_P2[points]
        return PolygonPool(points_P2, polygon_starts, annotation_starts)


@dataclass(slots=True)
class Annotations:
    """A annotations of a split, sorted by (image row, id); those that refer to no image come first."""

    ids_A: NDArray[np.int64]
    """Id in the dataset, from 1. After rows were dropped there are gaps: an annotation keeps its id from `ingest` on."""
    image_A: NDArray[np.int32]
    """Row in the ImageTable; -1 = dangling (the id it asked for is then in `extra` as `image_id`)."""
    category_A: NDArray[np.int64]
    """Category id as written in the labels; -1 = none."""
    label_A: NDArray[np.int64]
    """Class 0..K-1 in category-id order; -1 = the category is not one of the dataset's."""
    boxes_A4: NDArray[np.float64]
    """(x1, y1, x2, y2) in continuous pixels; NaN where absent or null; never repaired here."""
    area_A: NDArray[np.float64]
    """Area that the labels state, in square pixels; NaN where absent."""
    crowd_A: NDArray[np.bool_]
    """COCO's iscrowd."""
    source_ids: list[int | str | None]
    """Id in the source's own labels."""
    polygons: PolygonPool
    rle: dict[int, dict[str, Any]]
    """By row, sparse: COCO run-length masks `{"size": [h, w], "counts": ...}`, as written."""
    keypoints_AK3: NDArray[np.float32] | None
    """(x, y, visibility) in COCO's convention (pixel indices); NaN where a row has none or fewer; None if no row has any."""
    extra: dict[int, dict[str, Any]]
    """By row, sparse: fields without a column, and under its own name a field whose value its column cannot hold (a box of three
    numbers, an odd polygon, the id of a missing image). Written back as they came."""
    rotated_A5: NDArray[np.float64] | None = None
    """Rotated boxes (cx, cy, w, h, degrees counter-clockwise) in continuous pixels; NaN where a row has none; None if no row has
    any. `boxes_A4` holds the upright boxes."""
    dense: "DensePool | None" = None
    """Dense pose labels; None if no row has any."""

    def __len__(self) -> int:
        return len(self.ids_A)

    @classmethod
    def empty(cls) -> "Annotations":
        """No annotations."""
        whole, real = np.zeros(0, np.int64), np.zeros(0, np.float64)
        return cls(
            ids_A=whole,
            image_A=np.zeros(0, np.int32),
            category_A=whole,
            label_A=whole,
            boxes_A4=np.zeros((0, 4), np.float64),
            area_A=real,
            crowd_A=np.zeros(0, np.bool_),
            source_ids=[],
            polygons=PolygonPool.empty(0),
            rle={},
            keypoints_AK3=None,
            extra={},
        )

    def take(self, rows: Rows) -> Self:
        """The annotations of `rows`, in that order, pools and sparse fields included; ids stay as they are."""
        index = row_indices(rows, len(self))
        taken: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                taken[field.name] = value[index]
            elif isinstance(value, dict):
                taken[field.name] = _take_sparse(value, index)
            elif isinstance(value, list):
                taken[field.name] = [value[i] for i in index]
            elif value is not None:
                taken[field.name] = value.take(index)
        return replace(self, **taken)

    def renumbered(self) -> Self:
        """The same rows with ids 1..A; the ids they had become `source_ids`, except where one is known already."""
        old = [int(i) if i >= 0 else None for i in self.ids_A]
        kept = [known if known is not None else was for known, was in zip(self.source_ids, old, strict=True)]
        return replace(self, ids_A=np.arange(1, len(self) + 1, dtype=np.int64), source_ids=kept)


def row_indices(rows: Rows, count: int) -> NDArray[np.int64]:
    """`rows` of a table of `count` rows as int64 indices 0..count-1."""
    if isinstance(rows, slice):  # not through all rows: a picture of a large dataset has a few
        return np.arange(*rows.indices(count), dtype=np.int64)
    indices: NDArray[np.int64] = np.arange(count, dtype=np.int64)
    taken: NDArray[np.int64] = indices[np.asarray(rows, np.int64) if isinstance(rows, list) else rows]
    return taken


def ranges(starts: NDArray[np.int64], index: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The elements of the segments `index` of a pool with offsets `starts`, one after the other, and the new offsets."""
    lengths = starts[index + 1] - starts[index]
    new = np.zeros(len(index) + 1, np.int64)
    np.cumsum(lengths, out=new[1:])
    return np.arange(new[-1]) - np.repeat(new[:-1] - starts[index], lengths), new


def _take_sparse(sparse: dict[int, dict[str, Any]], index: NDArray[np.int64]) -> dict[int, dict[str, Any]]:
    if not sparse:
        return {}
    return {new: sparse[old] for new, old in enumerate(index.tolist()) if old in sparse}
