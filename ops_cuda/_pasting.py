"""Pasting on the CPU, one mask at a time: for `paste_masks` and `merge_panoptic`. The device's form is `kernels.paste_masks`."""

import math

import numba
import numpy as np


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _touched(start: np.float32, end: np.float32, pixels: int) -> tuple[int, int]:
    """Pixels first..last-1 of a side that an interval touches; none of one without length, infinite or not a number."""
    if not np.float32(0) < end - start < np.float32(np.inf):
        return 0, 0
    first = int(min(max(start, np.float32(0)), np.float32(pixels)))
    last = math.ceil(min(max(end, np.float32(-1)), np.float32(pixels))) + 1
    return first, max(first, min(last, pixels))


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _taps(start: np.float32, end: np.float32, first: int, last: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel first..last-1 the lower of the two cells that its centre lies between, and their weights.

    Cells outside the grid weigh nothing; centres further out than that are held at -2 or `cells`.
    """
    cell = np.empty(last - first, np.int64)
    weight = np.zeros((last - first, 2), np.float32)
    for pixel in range(first, last):
        at = (np.float32(pixel) + np.float32(0.5) - start) / (end - start) * np.float32(cells) - np.float32(0.5)
        at = min(max(at, np.float32(-2)), np.float32(cells))
        lower = math.floor(at)
        cell[pixel - first] = lower
        for side in range(2):
            if 0 <= lower + side < cells:
                weight[pixel - first, side] = np.float32(1) - abs(at - np.float32(lower + side))
    return cell, weight


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def paste(mask: np.ndarray, box: np.ndarray, height: int, width: int) -> tuple[int, int, np.ndarray]:
    """First row, first column and bool [h, w]: the part of the picture that the box touches, and which of its pixels are in.

    `mask` and `box` (x1, y1, x2, y2) are float32. A box without area, or not finite, touches nothing.
    """
    rows, columns = mask.shape
    top, bottom = _touched(box[1], box[3], height)
    left, right = _touched(box[0], box[2], width)
    inside = np.zeros((bottom - top, right - left), np.bool_)
    if inside.size == 0 or mask.size == 0:
        return top, left, inside
    row, by_row = _taps(box[1], box[3], top, bottom, rows)
    column, by_column = _taps(box[0], box[2], left, right, columns)
    for y in range(bottom - top):
        upper, lower = min(max(row[y], 0), rows - 1), min(max(row[y] + 1, 0), rows - 1)
        for x in range(right - left):
            value = np.float32(0)
            for side in range(2):
                c = min(max(column[x] + side, 0), columns - 1)
                value += by_column[x, side] * (by_row[y, 0] * mask[upper, c] + by_row[y, 1] * mask[lower, c])
            inside[y, x] = value >= np.float32(0.5)
    return top, left, inside
