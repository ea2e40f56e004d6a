"""The masks of labels: polygons and COCO's run lengths, as what training and evaluation need. numpy only."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations, PolygonPool
from pipeline.data.dataset import Split
from pipeline.errors import DataError

NAMED = 10
"""Labels that an error lists by id; it counts the others."""


def has_mask(annotations: Annotations) -> NDArray[np.bool_]:
    """bool [A]: the label has run lengths, or a polygon of at least three points."""
    pool = annotations.polygons
    sound_Q = np.concatenate([[0], np.cumsum(np.diff(pool.polygon_starts) >= 3)])
    has_A = sound_Q[pool.annotation_starts[1:]] > sound_Q[pool.annotation_starts[:-1]]
    has_A[list(annotations.rle)] = True
    return has_A


def require_masks(split: Split, place: object) -> None:
    """DataError with the number and the ids of the labels without a mask; crowds and labels of no known class need none."""
    table = split.annotations
    needs_A = (table.image_A >= 0) & (table.label_A >= 0) & ~table.crowd_A
    lacks_A = needs_A & ~has_mask(table)
    if not lacks_A.any():
        return
    without = f"{int(lacks_A.sum())} of {int(needs_A.sum())} labels of the split {split.name} have no mask"
    boxes = "train a detector of boxes, such as model=faster_rcnn_r50_fpn"
    if lacks_A.sum() == needs_A.sum():
        raise DataError(place, f"{without}: nothing to learn masks from", f"{boxes}, or add polygons to the labels")
    ids = ", ".join(map(str, table.ids_A[lacks_A][:NAMED].tolist())) + (", ..." if lacks_A.sum() > NAMED else "")
    raise DataError(place, f"{without}: annotations {ids}", f"add their polygons, remove them, or {boxes}")


def outlines(split: Split, rows: slice) -> PolygonPool:
    """The outlines of the annotations in `rows`; run lengths become one rectangle per run of pixels."""
    table = split.annotations
    pool = table.polygons.take(rows)
    coded = {place: table.rle[row] for place, row in enumerate(range(*rows.indices(len(table)))) if row in table.rle}
    if not coded:
        return pool
    polygons: list[list[NDArray[Any]]] = []
    for place in range(len(pool.annotation_starts) - 1):
        if place in coded:
            row = split.annotations.image_A[rows][place]
            picture = int(split.images.heights_I[row]), int(split.images.widths_I[row])
            name = f"{split.name}.json: annotation {table.ids_A[rows][place]}"
            height, _, counts = run_lengths(coded[place], name, picture if min(picture) > 0 else None)
            polygons.append(_rectangles(height, counts))
        else:
            polygons.append(list(pool.polygons_of(place)))
    return PolygonPool.of(polygons)


def run_lengths(rle: dict[str, Any], place: object, picture: tuple[int, int] | None = None) -> tuple[int, int, NDArray[np.int64]]:
    """Height, width and run lengths (outside first, down the columns) of COCO's `{"size", "counts"}`, packed or plain.

    DataError naming `place` when they are not run lengths of the size that they state, or `picture` (height, width) is another.
    """
    try:
        height, width = (int(side) for side in rle["size"])
        given = rle["counts"]
        counts = unpack(given) if isinstance(given, str | bytes) else np.asarray(given, np.int64)
        wrong = counts.ndim != 1 or (counts < 0).any() or int(counts.sum()) != height * width or min(height, width) < 1
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(place, f"its mask is no run lengths: {error!r}", "draw it anew as polygons") from error
    if not wrong and picture is not None and (height, width) != picture:
        wrong_size = f"its mask is of {height} x {width} pixels, its picture of {picture[0]} x {picture[1]}"
        raise DataError(place, wrong_size, "was the picture resized? draw the mask anew, or bring back the picture")
    if wrong:
        raise DataError(place, f"its run lengths are not those of {height} x {width} pixels", "draw it anew as polygons")
    return height, width, counts


def unpack(packed: str | bytes) -> NDArray[np.int64]:
    """Run lengths from COCO's packed text: six bits a character, five of them value; from the fourth on as differences."""
    codes = packed.encode() if isinstance(packed, str) else packed
    counts: list[int] = []
    value = shift = 0
    for code in codes:
        bits = code - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{chr(code)!r} in packed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("packed run lengths end within a number")
    return np.array(counts, np.int64)


def _rectangles(height: int, counts: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """The runs inside the mask as rectangles of pixels: what is left of a first column, whole columns, and part of a last one."""
    ends = np.cumsum(counts).tolist()
    found: list[tuple[int, int, int, int]] = []
    for start, end in zip(ends[:-1:2], ends[1::2], strict=False):
        (left, top), (right, bottom) = divmod(start, height), divmod(end, height)
        if left == right:
            found.append((left, top, left + 1, bottom))
            continue
        if top:
            found.append((left, top, left + 1, height))
        found.append((left + bool(top), 0, right, height))
        found.append((right, 0, right + 1, bottom))
    real = [(x1, y1, x2, y2) for x1, y1, x2, y2 in found if x2 > x1 and y2 > y1]
    return [np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], np.float64) for x1, y1, x2, y2 in real]
