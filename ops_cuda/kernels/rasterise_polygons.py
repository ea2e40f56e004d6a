"""Kernel of mask targets: a thread fills 32 rows of one column of a row's mask."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import THREADS, blocks_for, cuda, device, kernel, whole
from ops_cuda.kernels.outlines import IN_DOUBLE, ROWS, covered


@device
def _stretch(size: int, side: Any) -> Any:
    """Cells per pixel, divided in float32 as the reference does."""
    if side > np.float32(0.1):
        return np.float64(np.float32(size) / side)
    return np.float64(size) / np.float64(0.1)


@kernel(
    "f64* points, i64* polygon_starts, i64* owner_starts, f32* boxes, i64* owner, u8* masks, i64 count, i64 size",
    exempt=IN_DOUBLE,
)
def rasterise(
    points: Any, polygon_starts: Any, owner_starts: Any, boxes: Any, owner: Any, masks: Any, count: int, size: int
) -> None:
    """Rows of masks [R, size, size]."""
    i = cuda.grid(1)
    bands = (size + ROWS - 1) // ROWS
    if i < count * bands * size:
        column, base, r = i % size, i // size % bands * ROWS, i // size // bands
        word = 0
        if owner[r] >= 0:
            left, top = boxes[r * 4], boxes[r * 4 + 1]
            by_x, by_y = _stretch(size, boxes[r * 4 + 2] - left), _stretch(size, boxes[r * 4 + 3] - top)
            first, last = owner_starts[owner[r]], owner_starts[owner[r] + 1]
            corner_x, corner_y = np.float64(left), np.float64(top)
            word = covered(points, polygon_starts, first, last, corner_x, corner_y, by_x, by_y, column, base, size)
        for row in range(base, min(base + ROWS, size)):
            masks[(r * size + row) * size + column] = (word >> (row - base)) & 1


# -- launch --


def rasterise_polygons(
    points: Tensor, polygon_starts: Tensor, owner_starts: Tensor, boxes: Tensor, owner: Tensor, size: int
) -> Tensor:
    """Masks [R, size, size] (bool)."""
    count = boxes.shape[0]
    masks = torch.empty(count, size, size, dtype=torch.bool, device=boxes.device)
    pools = points.double().contiguous(), whole(polygon_starts), whole(owner_starts)
    given = *pools, boxes.float().contiguous(), whole(owner), masks, count, size
    rasterise.launch(torch.float32, boxes.device, blocks_for(count * blocks_for(size, ROWS) * size), THREADS, *given)
    return masks
