"""Kernels of deformable convolution: features are sampled into columns, which a product of matrices turns into outputs.

Columns [B, channels * taps, places] hold what each tap reads for each place of the output; the products are cuBLAS's. One kernel
samples, one brings the columns' gradient back to features, offsets and mask. Images are worked in turns, so that columns stay
bounded however large the batch is.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import (
    HALF_TYPES,
    THREADS,
    Kernel,
    arithmetic,
    atomic_add,
    blocks_for,
    cuda,
    device,
    load,
    store,
    warn_not_deterministic,
)

CHANNELS = 16
"""Channels of a thread that samples: its offset is read once for all of them."""

ELEMENTS = 2**26
"""Most elements of the columns at a time, 256 MB in float32; one image may need more."""


def _kernels(real: Any) -> tuple[Any, Any]:
    """Sampling and its gradient in `real` arithmetic."""

    @device
    def placed(at: Any, size: int) -> tuple[int, Any]:
        """The lower of the two pixels that a place lies between, and the upper one's share; -2: outside, or not a number."""
        if not (at >= real(-1) and at < real(size)):
            return -2, real(0)
        lower = int(math.floor(at))
        return int(lower), at - real(lower)

    @device
    def read(x: Any, plane: int, row: int, column: int, height: int, width: int) -> Any:
        """A pixel, zero outside."""
        if row >= 0 and row < height and column >= 0 and column < width:
            return load(x, (plane + row) * width + column)
        return real(0)

    def sample(
        x: Any, offset: Any, mask: Any, columns: Any, count: int, channels: int, groups: int, height: int, width: int,
        rows: int, across: int, tall: int, wide: int, stride: int, padding: int, dilation: int, modulated: int,
    ) -> None:  # fmt: skip
        i = cuda.grid(1)
        places, taps, own = rows * across, tall * wide, channels // groups
        parts = (own + CHANNELS - 1) // CHANNELS
        if i < count * groups * parts * taps * places:
            p, tap = i % places, i // places % taps
            part, group = i // places // taps % parts, i // places // taps // parts % groups
            image = i // places // taps // parts // groups
            at = ((image * groups + group) * taps + tap) * places + p
            twice = ((image * groups + group) * taps + tap) * 2 * places + p
            y, below = placed(real(p // across * stride - padding + tap // wide * dilation) + load(offset, twice), height)
            z, right = placed(real(p % across * stride - padding + tap % wide * dilation) + load(offset, twice + places), width)
            scale = real(1)
            if modulated != 0:
                scale = load(mask, at)
            first = group * own + part * CHANNELS
            for c in range(first, min(first + CHANNELS, (group + 1) * own)):
                value = real(0)
                if y > -2 and z > -2:
                    plane = (image * channels + c) * height
                    value = read(x, plane, y, z, height, width) * (real(1) - below) * (real(1) - right)
                    value += read(x, plane, y, z + 1, height, width) * (real(1) - below) * right
                    value += read(x, plane, y + 1, z, height, width) * below * (real(1) - right)
                    value += read(x, plane, y + 1, z + 1, height, width) * below * right
                store(columns, ((image * channels + c) * taps + tap) * places + p, value * scale)

    def backward(
        columns: Any, x: Any, offset: Any, mask: Any, x_slope: Any, offset_slope: Any, mask_slope: Any, count: int,
        channels: int, groups: int, height: int, width: int, rows: int, across: int, tall: int, wide: int, stride: int,
        padding: int, dilation: int, modulated: int,
    ) -> None:  # fmt: skip
        i = cuda.grid(1)
        places, taps, own = rows * across, tall * wide, channels // groups
        if i < count * groups * taps * places:
            p, tap = i % places, i // places % taps
            group, image = i // places // taps % groups, i // places // taps // groups
            twice = ((image * groups + group) * taps + tap) * 2 * places + p
            y, below = placed(real(p // across * stride - padding + tap // wide * dilation) + load(offset, twice), height)
            z, right = placed(real(p % across * stride - padding + tap % wide * dilation) + load(offset, twice + places), width)
            scale = real(1)
            if modulated != 0:
                scale = load(mask, i)
            down, aside, amount = real(0), real(0), real(0)
            if y > -2 and z > -2:
                above, left = real(1) - below, real(1) - right
                for c in range(group * own, (group + 1) * own):
                    plane = (image * channels + c) * height
                    slope = load(columns, ((image * channels + c) * taps + tap) * places + p)
                    v00, v01 = read(x, plane, y, z, height, width), read(x, plane, y, z + 1, height, width)
                    v10, v11 = read(x, plane, y + 1, z, height, width), read(x, plane, y + 1, z + 1, height, width)
                    down += slope * ((v10 - v00) * left + (v11 - v01) * right)
                    aside += slope * ((v01 - v00) * above + (v11 - v10) * below)
                    amount += slope * ((v00 * left + v01 * right) * above + (v10 * left + v11 * right) * below)
                    slope *= scale
                    if y >= 0 and z >= 0:
                        atomic_add(x_slope, (plane + y) * width + z, slope * above * left)
                    if y >= 0 and z + 1 < width:
                        atomic_add(x_slope, (plane + y) * width + z + 1, slope * above * right)
                    if y + 1 < height and z >= 0:
                        atomic_add(x_slope, (plane + y + 1) * width + z, slope * below * left)
                    if y + 1 < height and z + 1 < width:
                        atomic_add(x_slope, (plane + y + 1) * width + z + 1, slope * below * right)
            store(offset_slope, twice, down * scale)
            store(offset_slope, twice + places, aside * scale)
            if modulated != 0:
                store(mask_slope, i, amount)

    return sample, backward


_SAMPLE, _BACKWARD = _kernels(np.float32)
_SAMPLE_64, _BACKWARD_64 = _kernels(np.float64)
_SHAPE = (
    "i64 count, i64 channels, i64 groups, i64 height, i64 width, i64 rows, i64 across, i64 tall, i64 wide, "
    "i64 stride, i64 padding, i64 dilation, i64 modulated"
)
SAMPLE = Kernel(
    "deform_sample",
    f"T* x, T* offset, T* mask, T* columns, {_SHAPE}",
    {**dict.fromkeys(HALF_TYPES, _SAMPLE), torch.float64: _SAMPLE_64},
)
BACKWARD = Kernel(
    "deform_backward",
    f"T* columns, T* x, T* offset, T* mask, R* x_slope, T* offset_slope, T* mask_slope, {_SHAPE}",
    {**dict.fromkeys(HALF_TYPES, _BACKWARD), torch.float64: _BACKWARD_64},
)


# -- launch --


class _Case(NamedTuple):
    """One call's tensors, contiguous, without a mask `offset` in its place, and its sizes."""

    x: Tensor
    weight: Tensor
    offset: Tensor
    mask: Tensor
    groups: int
    shape: tuple[int, ...]
    """The kernels' sizes behind `count`."""

    @classmethod
    def of(
        cls, x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, stride: int, padding: int, dilation: int, groups: int
    ) -> "_Case":
        given = [value.contiguous() for value in (x, offset, offset if mask is None else mask)]
        tall, wide = weight.shape[2:]
        geometry = (stride, padding, dilation, int(mask is not None))
        shape = (x.shape[1], offset.shape[1] // (2 * tall * wide), *x.shape[2:], *offset.shape[2:], tall, wide, *geometry)
        grouped = weight.reshape(groups, weight.shape[0] // groups, -1)
        return cls(given[0], grouped, given[1], given[2], groups, shape)

    @property
    def places(self) -> int:
        """Of the output."""
        return self.offset.shape[2] * self.offset.shape[3]

    def turns(self) -> Iterator[slice]:
        """Images of each turn."""
        own = self.x.shape[1] * self.shape[6] * self.shape[7] * self.places
        step = max(1, ELEMENTS // max(1, own))
        return (slice(first, min(first + step, len(self.x))) for first in range(0, len(self.x), step))

    def columns(self, turn: slice) -> Tensor:
        """[B, groups, C / groups * taps, places]."""
        count, (channels, offset_groups, *_) = turn.stop - turn.start, self.shape
        taps = self.shape[6] * self.shape[7]
        columns = self.x.new_empty(count, self.groups, channels // self.groups * taps, self.places)
        threads = count * offset_groups * blocks_for(channels // offset_groups, CHANNELS) * taps * self.places
        given = self.x[turn], self.offset[turn], self.mask[turn], columns, count, *self.shape
        SAMPLE.launch(self.x.dtype, self.x.device, blocks_for(threads), THREADS, *given)
        return columns


def deform_conv2d(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, stride: int, padding: int, dilation: int, groups: int
) -> Tensor:
    """Features [N, K, H', W']."""
    case = _Case.of(x, weight, offset, mask, stride, padding, dilation, groups)
    features = x.new_empty(len(x), groups, weight.shape[0] // groups, case.places)
    for turn in case.turns():
        features[turn] = case.weight @ case.columns(turn)
    return features.view(len(x), weight.shape[0], *offset.shape[2:])


def deform_conv2d_backward(
    upstream: Tensor,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    mask: Tensor | None,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> list[Tensor]:
    """Gradients of x, weight, offset and, where there is one, mask; x's and the weight's are summed in float32 at least."""
    warn_not_deterministic("deform_conv2d")
    case = _Case.of(x, weight, offset, mask, stride, padding, dilation, groups)
    real = arithmetic(x.dtype)
    x_slope, weight_slope = torch.zeros_like(case.x, dtype=real), torch.zeros_like(case.weight, dtype=real)
    offset_slope = torch.empty_like(case.offset)
    mask_slope = offset_slope if mask is None else torch.empty_like(case.mask)
    slopes = upstream.reshape(len(x), groups, weight.shape[0] // groups, case.places)
    threads = offset.shape[1] // 2 * case.places
    for turn in case.turns():
        weight_slope += (slopes[turn] @ case.columns(turn).mT).sum(0, dtype=real)
        columns = (case.weight.mT @ slopes[turn]).contiguous()
        given = columns, case.x[turn], case.offset[turn], case.mask[turn]
        made = x_slope[turn], offset_slope[turn], mask_slope[turn]
        count = turn.stop - turn.start
        blocks = blocks_for(count * threads)
        BACKWARD.launch(x.dtype, x.device, blocks, THREADS, *given, *made, count, *case.shape)
    gradients = [x_slope.to(x.dtype), weight_slope.to(weight.dtype).view(weight.shape), offset_slope]
    return gradients if mask is None else [*gradients, mask_slope]
