"""Kernel of mask targets from bitmaps: a thread averages one cell, column by column of its samples; no bitmap is filled.

The twin adds a cell's samples row by row: sums of many samples may differ in their last bits, and so may a cell whose average is
one half but for those.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import SIMULATED, THREADS, blocks_for, cuda, device, kernel, product, whole
from ops_cuda.kernels.outlines import IN_DOUBLE, covered

SAMPLES = 3 if SIMULATED else 30
"""Samples of a column that are read from one word: they lie within a pixel of one another."""


@device
def _pixels(at: Any, size: int) -> tuple[int, int, Any]:
    """The two pixels that a sample lies between, held inside the picture, and the second's share; -1: outside."""
    if at < np.float32(-1) or at > np.float32(size):
        return -1, -1, np.float32(0)
    at = max(at, np.float32(0))
    low = int(at)
    if low >= size - 1:
        return size - 1, size - 1, np.float32(0)
    return low, low + 1, at - np.float32(low)


@kernel(
    "f64* points, i64* polygon_starts, i64* owner_starts, i64* sizes, f32* boxes, i64* owner, u8* masks, i64 count, i64 size",
    exempt=IN_DOUBLE,
)
def crop(
    points: Any, polygon_starts: Any, owner_starts: Any, sizes: Any, boxes: Any, owner: Any, masks: Any, count: int, size: int
) -> None:
    """Cells of masks [R, size, size]: ROIAlign, aligned and adaptive, at least one half."""
    i = cuda.grid(1)
    if i < count:
        cell_x, cell_y, r = i % size, i // size % size, i // size // size
        number, height, width = owner[r], sizes[r * 2], sizes[r * 2 + 1]
        left, top = boxes[r * 4] - np.float32(0.5), boxes[r * 4 + 1] - np.float32(0.5)
        right, bottom = boxes[r * 4 + 2] - np.float32(0.5), boxes[r * 4 + 3] - np.float32(0.5)
        total, samples = np.float32(0), 1
        finite = math.isfinite(left) and math.isfinite(top) and math.isfinite(right) and math.isfinite(bottom)
        if number >= 0 and height >= 1 and width >= 1 and finite:
            first, last = owner_starts[number], owner_starts[number + 1]
            zero, one = np.float64(0), np.float64(1)
            bin_x, bin_y = (right - left) / np.float32(size), (bottom - top) / np.float32(size)
            grid_x, grid_y = int(math.ceil(bin_x)), int(math.ceil(bin_y))
            samples = max(grid_x * grid_y, 1)
            start_x = left + product(np.float32(cell_x), bin_x)
            start_y = top + product(np.float32(cell_y), bin_y)
            for begin in range(0, grid_y, SAMPLES):
                end = min(begin + SAMPLES, grid_y)
                base = start_y + product(np.float32(begin) + np.float32(0.5), bin_y) / np.float32(grid_y)
                base_row = min(int(max(base, np.float32(0))), height - 1)
                known, further, near, far = -1, -1, 0, 0
                for sample_x in range(grid_x):
                    x = start_x + product(np.float32(sample_x) + np.float32(0.5), bin_x) / np.float32(grid_x)
                    low, high, beside = _pixels(x, width)
                    if low < 0:
                        continue
                    if low != known:
                        near = far
                        if low != further:
                            near = covered(points, polygon_starts, first, last, zero, zero, one, one, low, base_row, height)
                        far = near
                        if high != low:
                            far = covered(points, polygon_starts, first, last, zero, zero, one, one, high, base_row, height)
                        known, further = low, high
                    for sample_y in range(begin, end):
                        y = start_y + product(np.float32(sample_y) + np.float32(0.5), bin_y) / np.float32(grid_y)
                        upper, lower, below = _pixels(y, height)
                        if upper >= 0:
                            above, before = np.float32(1) - below, np.float32(1) - beside
                            u, v = upper - base_row, lower - base_row
                            value = np.float32((near >> u) & 1) * product(above, before)
                            value += np.float32((far >> u) & 1) * product(above, beside)
                            value += np.float32((near >> v) & 1) * product(below, before)
                            total += value + np.float32((far >> v) & 1) * product(below, beside)
        masks[i] = total / np.float32(samples) >= np.float32(0.5)


# -- launch --


def crop_bitmaps(
    points: Tensor, polygon_starts: Tensor, owner_starts: Tensor, sizes: Tensor, boxes: Tensor, owner: Tensor, size: int
) -> Tensor:
    """Masks [R, size, size] (bool)."""
    masks = torch.empty(boxes.shape[0], size, size, dtype=torch.bool, device=boxes.device)
    count = masks.numel()
    pools = points.double().contiguous(), whole(polygon_starts), whole(owner_starts)
    given = *pools, whole(sizes), boxes.float().contiguous(), whole(owner), masks, count, size
    crop.launch(torch.float32, boxes.device, blocks_for(count), THREADS, *given)
    return masks
