"""Kernels of swap-align-to-natural: each cell of a window gathers its four units, each unit's gradient its few cells."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import HALF_TYPES, THREADS, Kernel, blocks_for, cuda, device, load, store


def _kernels(real: Any) -> tuple[Any, Any]:
    """Forward and backward in `real` arithmetic."""

    @device
    def units(offset: int, side: int, scale: int) -> tuple[int, Any]:
        """The lower of the two units that a cell `offset` pixels from its window's centre lies between, and the upper's share."""
        unit = real(offset) / real(scale) + real(side // 2)
        unit = min(max(unit, real(0)), real(side - 1))
        low = int(math.floor(unit))
        return low, unit - real(low)

    @device
    def share_of(unit: int, offset: int, side: int, scale: int) -> Any:
        """How much of a unit is in a cell; 0 for a cell that the window does not have."""
        cells = scale * side
        if offset < -(cells // 2) or offset >= cells - cells // 2:
            return real(0)
        low, share = units(offset, side, scale)
        total = real(0)
        if low == unit:
            total += real(1) - share
        if min(low + 1, side - 1) == unit:
            total += share
        return total

    def forward(
        aligned: Any, natural: Any, count: int, side: int, scale: int, rows: int, columns: int, height: int, width: int, pad: Any
    ) -> None:
        i = cuda.grid(1)
        if i < count:
            cells = scale * side
            x, y = i % width, i // width % height
            right, down = i // width // height % cells - cells // 2, i // width // height // cells % cells - cells // 2
            n = i // width // height // cells // cells
            row, column = scale * y + down, scale * x + right
            value = pad
            if row >= 0 and row < rows and column >= 0 and column < columns:
                v, below = units(down, side, scale)
                u, beside = units(right, side, scale)
                lower, further = min(v + 1, side - 1), min(u + 1, side - 1)
                plane, at = rows * columns, row * columns + column
                upper = (n * side + v) * side
                lower = (n * side + lower) * side
                near = (
                    load(aligned, (upper + u) * plane + at) * (real(1) - below) + load(aligned, (lower + u) * plane + at) * below
                )
                far = (
                    load(aligned, (upper + further) * plane + at) * (real(1) - below)
                    + load(aligned, (lower + further) * plane + at) * below
                )
                value = near * (real(1) - beside) + far * beside
            store(natural, i, value)

    def backward(
        upstream: Any, gradient: Any, count: int, side: int, scale: int, rows: int, columns: int, height: int, width: int
    ) -> None:
        i = cuda.grid(1)
        if i < count:
            cells = scale * side
            column, row = i % columns, i // columns % rows
            u, v = i // columns // rows % side, i // columns // rows // side % side
            n = i // columns // rows // side // side
            # Cells less than one unit from this one, of the windows whose centres lie whole multiples of `scale` away.
            down = (v - side // 2) * scale + (row - (v - side // 2) * scale) % scale
            right = (u - side // 2) * scale + (column - (u - side // 2) * scale) % scale
            total = real(0)
            for lower in range(2):
                down_by = down - lower * scale
                y = (row - down_by) // scale
                by_row = share_of(v, down_by, side, scale)
                if by_row != real(0) and y >= 0 and y < height:
                    for further in range(2):
                        right_by = right - further * scale
                        x = (column - right_by) // scale
                        by_column = share_of(u, right_by, side, scale)
                        if by_column != real(0) and x >= 0 and x < width:
                            cell = ((n * cells + down_by + cells // 2) * cells + right_by + cells // 2) * height
                            total += by_row * by_column * load(upstream, (cell + y) * width + x)
            store(gradient, i, total)

    return forward, backward


_FORWARD, _BACKWARD = _kernels(np.float32)
_FORWARD_64, _BACKWARD_64 = _kernels(np.float64)
FORWARD = Kernel(
    "swap_align2nat_forward",
    "T* aligned, T* natural, i64 count, i64 side, i64 scale, i64 rows, i64 columns, i64 height, i64 width, R pad",
    {**dict.fromkeys(HALF_TYPES, _FORWARD), torch.float64: _FORWARD_64},
)
BACKWARD = Kernel(
    "swap_align2nat_backward",
    "T* upstream, T* gradient, i64 count, i64 side, i64 scale, i64 rows, i64 columns, i64 height, i64 width",
    {**dict.fromkeys(HALF_TYPES, _BACKWARD), torch.float64: _BACKWARD_64},
)


# -- launch --


def forward(aligned: Tensor, side: int, scale: int, height: int, width: int, pad: float) -> Tensor:
    """Windows' masks [N, scale * side, scale * side, height, width]."""
    images, _, rows, columns = aligned.shape
    natural = aligned.new_empty(images, scale * side, scale * side, height, width)
    count = natural.numel()
    sizes = count, side, scale, rows, columns, height, width
    FORWARD.launch(aligned.dtype, aligned.device, blocks_for(count), THREADS, aligned.contiguous(), natural, *sizes, pad)
    return natural


def backward(upstream: Tensor, side: int, scale: int, rows: int, columns: int) -> Tensor:
    """Gradient [N, side * side, rows, columns] of the aligned map."""
    gradient = upstream.new_empty(upstream.shape[0], side * side, rows, columns)
    count = gradient.numel()
    sizes = count, side, scale, rows, columns, upstream.shape[3], upstream.shape[4]
    BACKWARD.launch(upstream.dtype, upstream.device, blocks_for(count), THREADS, upstream.contiguous(), gradient, *sizes)
    return gradient
