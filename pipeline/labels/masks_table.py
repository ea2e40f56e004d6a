"""What the masks of all labels are like, as columns: measured once, read by every check of masks.

Axes: `A` annotations of all splits. The pools of the splits are read where they lie: points are never copied.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations
from pipeline.data.dataset import Dataset

SMALLEST_LOOP = 0.02
"""Crossings that cut off a smaller share of the mask are slips of the hand, which every real dataset is full of."""


@dataclass(slots=True)
class MaskTable:
    """Measures of the masks, polygons or run lengths; zero or NaN where a label has none."""

    parts_A: NDArray[np.int64]
    """Polygons."""
    coded_A: NDArray[np.bool_]
    """The mask is run lengths."""
    short_A: NDArray[np.int64]
    """Polygons with fewer than three points."""
    wild_A: NDArray[np.int64]
    """Polygons with a number that is not finite."""
    odd_A: NDArray[np.bool_]
    """A polygon has an odd number of coordinates."""
    area_A: NDArray[np.float64]
    """Square pixels of the sound polygons, counted twice where they overlap; pixels of run lengths."""
    length_A: NDArray[np.float64]
    """Length of the polygons' outlines; how far the area of their pixels may be off."""
    boxes_A4: NDArray[np.float64]
    """Extent (x1, y1, x2, y2); NaN for none."""
    loop_A: NDArray[np.float64]
    """Greatest loop that a crossing of a polygon's edges cuts off, as a share of the polygon's area."""
    hole_A: NDArray[np.bool_]
    """A polygon lies within another of the same label."""
    sizes_A2: NDArray[np.int64]
    """Height and width that the run lengths state; 0 where they state none."""
    pieces_A: NDArray[np.int64]
    """Of run lengths: parts whose pixels touch."""
    holes_A: NDArray[np.int64]
    """Of run lengths: gaps that the mask surrounds."""
    fault_A: dict[int, str]
    """By row: what is wrong with run lengths that cannot be used, whatever the picture."""

    def has_mask(self) -> NDArray[np.bool_]:
        """Labels with at least one sound polygon or run lengths that can be read."""
        sound_A = self.parts_A > self.short_A + self.wild_A
        sound_A |= self.coded_A
        sound_A[list(self.fault_A)] = False
        return sound_A

    def means_mask(self) -> NDArray[np.bool_]:
        """Labels that were given a mask, sound or not."""
        return (self.parts_A > 0) | self.coded_A | self.odd_A


def mask_table(dataset: Dataset) -> MaskTable:
    """The masks of every split, behind each other."""
    tables = [_measured(split.annotations) for split in dataset.splits.values()]
    starts = np.cumsum([0, *(len(table.parts_A) for table in tables)]).tolist()
    columns = (
        {name: np.concatenate([getattr(table, name) for table in tables]) for name in MaskTable.__slots__ if name != "fault_A"}
        if tables
        else {}
    )
    faults = {start + row: text for start, table in zip(starts, tables, strict=False) for row, text in table.fault_A.items()}
    return MaskTable(**columns, fault_A=faults) if tables else _measured(Annotations.empty())


def _measured(rows: Annotations) -> MaskTable:
    from pipeline.labels.outlines import measure_polygons

    pool, count = rows.polygons, len(rows)
    points_P2 = np.ascontiguousarray(pool.points_P2, np.float64)
    short, wild, area, length, box, loop, hole = measure_polygons(
        points_P2, pool.polygon_starts, pool.annotation_starts, SMALLEST_LOOP
    )
    odd_A, coded_A = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    odd_A[[row for row, extra in rows.extra.items() if "segmentation" in extra]] = True
    coded_A[list(rows.rle)] = True
    table = MaskTable(
        parts_A=np.diff(pool.annotation_starts),
        coded_A=coded_A,
        short_A=short,
        wild_A=wild,
        odd_A=odd_A,
        area_A=area,
        length_A=length,
        boxes_A4=box,
        loop_A=loop,
        hole_A=hole,
        sizes_A2=np.zeros((count, 2), np.int64),
        pieces_A=np.zeros(count, np.int64),
        holes_A=np.zeros(count, np.int64),
        fault_A={},
    )
    if rows.rle:
        _measure_coded(table, rows.rle)
    return table


def _measure_coded(table: MaskTable, rle: dict[int, dict[str, Any]]) -> None:
    """Fill the columns of the labels with run lengths."""
    from pipeline.labels.runs import measure_pieces, measure_runs

    sized = {row: size for row, coded in rle.items() if (size := _size(coded)) is not None}
    for row in rle.keys() - sized.keys():
        table.fault_A[row] = f"states no size: {str(rle[row].get('size'))[:40]}"
    rows = list(sized)
    runs, starts, unreadable = _runs([rle[row].get("counts") for row in rows])
    table.sizes_A2[rows] = [sized[row] for row in rows] if rows else np.zeros((0, 2), np.int64)
    total, pixels, box, wrong = measure_runs(runs, starts, table.sizes_A2[rows, 0])
    table.area_A[rows], table.boxes_A4[rows] = pixels, box
    wanted = table.sizes_A2[rows].prod(axis=1)
    sound = ~(unreadable | wrong | (total != wanted))
    sizes_R2 = table.sizes_A2[rows]
    table.pieces_A[rows], table.holes_A[rows] = measure_pieces(runs, starts, sizes_R2[:, 0], sizes_R2[:, 1], sound)
    for place in np.flatnonzero(~sound).tolist():
        row = rows[place]
        height, width = sized[row]
        if unreadable[place] or wrong[place]:
            table.fault_A[row] = "its run lengths are damaged"
        else:
            table.fault_A[row] = f"its runs are {total[place]} pixels, {height} x {width} are {wanted[place]}"


def _size(coded: dict[str, Any]) -> tuple[int, int] | None:
    """Height and width that run lengths state; None where they are not two whole numbers of a picture."""
    size = coded.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(isinstance(side, int | float) for side in size):
        return None
    if not all(side == side and 1 <= side <= 2**20 and side == int(side) for side in size):
        return None
    return int(size[0]), int(size[1])


def _runs(given: list[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """All runs, their offsets, and which could not be read."""
    from pipeline.labels.runs import unpack_runs

    packed = [place for place, counts in enumerate(given) if isinstance(counts, str | bytes)]
    texts = [given[place].encode() if isinstance(given[place], str) else given[place] for place in packed]
    codes = np.frombuffer(b"".join(texts), np.uint8)
    unpacked, ends, damaged = unpack_runs(codes, np.cumsum([0, *map(len, texts)], dtype=np.int64))
    pieces: list[NDArray[np.int64]] = [np.zeros(0, np.int64)] * len(given)
    unreadable = np.ones(len(given), np.bool_)
    unreadable[packed] = damaged
    for place, start, end in zip(packed, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        pieces[place] = unpacked[start:end]
    for place, counts in enumerate(given):
        if isinstance(counts, list | tuple) and all(type(run) is int and abs(run) < 2**62 for run in counts):
            pieces[place], unreadable[place] = np.array(counts, np.int64), False
    starts = np.cumsum([0, *map(len, pieces)], dtype=np.int64)
    return np.concatenate([np.zeros(0, np.int64), *pieces]), starts, unreadable
