"""Splits of one source as one."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations, ImageTable, PolygonPool
from pipeline.data.dataset import Split
from pipeline.errors import DataError


def joined(splits: Sequence[Split], place: object) -> Split:
    """All pictures and labels of `splits`, under the first one's name. Ids of pictures that two splits use are made different.

    DataError for what is not kept in columns: maps, proposals and dense pose labels.
    """
    for split in splits:
        unpoolable = {"maps": split.maps, "proposals": split.proposals, "dense pose labels": split.annotations.dense}
        if there := [what for what, value in unpoolable.items() if value is not None]:
            raise DataError(place, f"{split.name} has {there[0]}, which cannot be pooled", "set dataset.split.existing=true")
    tables = [split.images for split in splits]
    first_row = list(accumulate((len(table) for table in tables), initial=0))
    images = ImageTable(
        ids_I=_distinct([table.ids_I for table in tables]),
        file_names=[name for table in tables for name in table.file_names],
        widths_I=np.concatenate([table.widths_I for table in tables]),
        heights_I=np.concatenate([table.heights_I for table in tables]),
        extra=_sparse([table.extra for table in tables], first_row),
    )
    annotations = _annotations([split.annotations for split in splits], first_row)
    ordered = annotations.take(np.argsort(annotations.image_A, kind="stable"))
    sources = [split.path(row) for split in splits for row in range(len(split.images))]
    header = {key: value for split in reversed(splits) for key, value in split.header.items()}
    return replace(splits[0], images=images, annotations=ordered, sources=sources, header=header)


def _annotations(tables: Sequence[Annotations], first_row: Sequence[int]) -> Annotations:
    def column(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(table, name) for table in tables])

    starts = list(accumulate(map(len, tables), initial=0))
    moved = [np.where(table.image_A >= 0, table.image_A + row, -1) for table, row in zip(tables, first_row, strict=False)]
    keypoints = _optional([table.keypoints_AK3 for table in tables], starts)
    return Annotations(
        ids_A=column("ids_A"),
        image_A=np.concatenate(moved).astype(np.int32),
        category_A=column("category_A"),
        label_A=column("label_A"),
        boxes_A4=column("boxes_A4"),
        area_A=column("area_A"),
        crowd_A=column("crowd_A"),
        source_ids=[identity for table in tables for identity in table.source_ids],
        polygons=_polygons([table.polygons for table in tables]),
        rle=_sparse([table.rle for table in tables], starts),
        keypoints_AK3=keypoints,
        extra=_sparse([table.extra for table in tables], starts),
        rotated_A5=_optional([table.rotated_A5 for table in tables], starts),
    )


def _polygons(pools: Sequence[PolygonPool]) -> PolygonPool:
    return PolygonPool(
        np.concatenate([pool.points_P2 for pool in pools]),
        _offsets([pool.polygon_starts for pool in pools]),
        _offsets([pool.annotation_starts for pool in pools]),
    )


def _offsets(starts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Offsets into pools that lie behind one another."""
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(own) for own in starts]))]).astype(np.int64)


def _optional(columns: Sequence[NDArray[Any] | None], starts: Sequence[int]) -> NDArray[Any] | None:
    """Columns one behind the other; rows of a table that has none, and places beyond its own, are NaN."""
    known = [column for column in columns if column is not None]
    if not known:
        return None
    widest = max(column.shape[1] for column in known)
    whole = np.full((starts[-1], widest, *known[0].shape[2:]), np.nan, known[0].dtype)
    for start, column in zip(starts, columns, strict=False):
        if column is not None:
            whole[start : start + len(column), : column.shape[1]] = column
    return whole


def _sparse(tables: Sequence[dict[int, dict[str, Any]]], starts: Sequence[int]) -> dict[int, dict[str, Any]]:
    return {start + row: value for table, start in zip(tables, starts, strict=False) for row, value in table.items()}


def _distinct(ids: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Ids one behind the other; from the first split on that shares one with those before, ids count on from the largest.

    A repeated id within one split stays repeated: it is a fault of the source.
    """
    taken = ids[0]
    for own in ids[1:]:
        if np.isin(own, taken).any():
            own = np.unique(own, return_inverse=True)[1] + taken.max() + 1
        taken = np.concatenate([taken, own])
    return taken.astype(np.int64)
