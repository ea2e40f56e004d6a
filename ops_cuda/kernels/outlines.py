"""COCO's rasteriser on the device: which rows of one column polygons cover, 32 rows at a time as the bits of a word.

A column's rows change sides below each crossing of its middle, so a polygon's bits are the exclusive or of one suffix per edge
that crosses; no picture is kept. Each expression is the CPU twin's, in float64, and rounds as it does.
"""

import math
from typing import Any

import numpy as np

from ops_cuda._numba import device, product
from ops_cuda.rasterise_polygons import FARTHEST

ROWS = 32
FULL = (1 << ROWS) - 1

IN_DOUBLE = {"f64": "COCO's rasteriser computes in float64"}
"""Why these kernels are excused from the gate's rule of float32."""


@device
def fine(value: Any) -> int:
    """A coordinate on the grid five times finer."""
    scaled = product(np.float64(5), value) + np.float64(0.5)
    if not scaled > -np.float64(FARTHEST):  # no number is far away too
        scaled = -np.float64(FARTHEST)
    return int(min(scaled, np.float64(FARTHEST)))


@device
def _at(start: int, slope: Any, steps: int) -> int:
    """The fine coordinate beside the long one, so many steps along an edge."""
    return int(np.float64(start) + product(slope, np.float64(steps)) + np.float64(0.5))


@device
def _steep(xs: int, ys: int, xe: int, dy: int, beyond: int) -> int:
    """The fine row before which a steep edge passes to the fine column `beyond`, or from there."""
    slope = np.float64(xe - xs) / np.float64(dy)
    t = min(max(int((np.float64(beyond) - np.float64(0.5) - np.float64(xs)) / slope), 0), dy)
    rising = slope > np.float64(0)
    while t < dy and (_at(xs, slope, t) < beyond) == rising:
        t += 1
    while t > 0 and (_at(xs, slope, t - 1) >= beyond) == rising:
        t -= 1
    return ys + t - 1


@device
def crossing(xs: int, ys: int, xe: int, ye: int, column: int, height: int) -> int:
    """The row from which on an edge changes a column's sides; -1 where it does not cross the column's middle."""
    middle = 5 * column + 2
    if min(xs, xe) > middle or max(xs, xe) <= middle:
        return -1
    dx, dy = abs(xe - xs), abs(ye - ys)
    if dx >= dy:
        if xs > xe:
            xs, ys, xe, ye = xe, ye, xs, ys
        slope = np.float64(ye - ys) / np.float64(dx)
        fine_y = min(_at(ys, slope, middle - xs), _at(ys, slope, middle + 1 - xs))
    else:
        if ys > ye:
            xs, ys, xe, ye = xe, ye, xs, ys
        fine_y = _steep(xs, ys, xe, dy, middle + 1)
    row = (np.float64(fine_y) + np.float64(0.5)) / np.float64(5) - np.float64(0.5)
    return int(math.ceil(min(max(row, np.float64(0)), np.float64(height))))


@device
def covered(
    points: Any, polygon_starts: Any, first: int, last: int, left: Any, top: Any, stretch_x: Any, stretch_y: Any,
    column: int, base: int, height: int,
) -> int:  # fmt: skip
    """Bits of the rows base .. base + 31 of a column that polygons first .. last - 1 cover, once moved and stretched."""
    word = 0
    for q in range(first, last):
        start, end = polygon_starts[q], polygon_starts[q + 1]
        if end - start >= 3:
            inside = 0
            xs = fine(product(points[end * 2 - 2] - left, stretch_x))
            ys = fine(product(points[end * 2 - 1] - top, stretch_y))
            for p in range(start, end):
                xe = fine(product(points[p * 2] - left, stretch_x))
                ye = fine(product(points[p * 2 + 1] - top, stretch_y))
                row = crossing(xs, ys, xe, ye, column, height)
                if row >= 0 and row - base < ROWS:
                    inside ^= (FULL << max(row - base, 0)) & FULL
                xs, ys = xe, ye
            word |= inside
    return word
