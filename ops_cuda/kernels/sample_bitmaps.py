"""Kernel of bitmaps at points: a thread asks the outlines about the four pixels around its point; no bitmap is filled."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import THREADS, blocks_for, cuda, kernel, whole
from ops_cuda.kernels.outlines import IN_DOUBLE, covered


@kernel(
    "f64* points, i64* polygon_starts, i64* owner_starts, i64* sizes, i64* owner, f32* at, f32* values, i64 rows, i64 count",
    exempt=IN_DOUBLE,
)
def sample(
    points: Any, polygon_starts: Any, owner_starts: Any, sizes: Any, owner: Any, at: Any, values: Any, rows: int, count: int
) -> None:
    """Values of `count` points per row."""
    i = cuda.grid(1)
    if i < rows * count:
        r = i // count
        height, width, number = sizes[r * 2], sizes[r * 2 + 1], owner[r]
        x, y = at[i * 2] - np.float32(0.5), at[i * 2 + 1] - np.float32(0.5)
        value = np.float32(0)
        sides = x > np.float32(-1) and x < np.float32(width)  # which no NaN is
        if number >= 0 and sides and y > np.float32(-1) and y < np.float32(height):
            column, row = int(math.floor(x)), int(math.floor(y))
            right, below = x - np.float32(column), y - np.float32(row)
            first, last = owner_starts[number], owner_starts[number + 1]
            zero, one = np.float64(0), np.float64(1)
            for side in range(2):
                share = right
                if side == 0:
                    share = np.float32(1) - right
                if column + side >= 0 and column + side < width:
                    word = covered(points, polygon_starts, first, last, zero, zero, one, one, column + side, row, height)
                    value += share * (np.float32(word & 1) * (np.float32(1) - below) + np.float32((word >> 1) & 1) * below)
        values[i] = value


# -- launch --


def sample_bitmaps(
    points: Tensor, polygon_starts: Tensor, owner_starts: Tensor, sizes: Tensor, owner: Tensor, at: Tensor
) -> Tensor:
    """Values [R, S] (float32)."""
    rows, count = at.shape[:2]
    values = torch.empty(rows, count, dtype=torch.float32, device=at.device)
    pools = points.double().contiguous(), whole(polygon_starts), whole(owner_starts)
    given = *pools, whole(sizes), whole(owner), at.float().contiguous(), values, rows, count
    sample.launch(torch.float32, at.device, blocks_for(rows * count), THREADS, *given)
    return values
