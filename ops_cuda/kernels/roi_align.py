"""Kernels of ROIAlign: every level in one launch, one thread for one cell of four channels.

The levels' addresses, sizes and scales are arguments, so that no table is sent to the device. Positions are rounded as
on the CPU. Gradients are added atomically in float32 (float64 for float64), so
their last bits change from run to run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import (
    HALF_TYPES,
    THREADS,
    Kernel,
    atomic_add,
    blocks_for,
    cuda,
    device,
    load,
    product,
    store,
    warn_not_deterministic,
    whole,
)
from ops_cuda._registration import layout_of
from ops_cuda.roi_align import MOST_SAMPLES

MOST_LEVELS = 6
CHANNELS = 4
"""Channels of one thread: they share the arithmetic of positions."""

LEVELS = (
    ", ".join(f"{{pointer}}* x{n}" for n in range(MOST_LEVELS))
    + ", "
    + ", ".join(f"i64 size{n}" for n in range(MOST_LEVELS))
    + ", "
    + ", ".join(f"R scale{n}" for n in range(MOST_LEVELS))
)
"""Parameters of the levels: addresses, heights and widths packed into one integer, scales."""

REST = ", i64* image, i64* level, i64 channels, i64 count, i64 height, i64 width, i64 ratio, i64 aligned, i64 last"


@device
def pick(n: int, a0: Any, a1: Any, a2: Any, a3: Any, a4: Any, a5: Any) -> Any:
    """The n-th of six."""
    if n == 0:
        return a0
    if n == 1:
        return a1
    if n == 2:
        return a2
    if n == 3:
        return a3
    if n == 4:
        return a4
    return a5


@device
def blend(x: Any, k00: int, k01: int, k10: int, k11: int, w00: Any, w01: Any, w10: Any, w11: Any) -> Any:
    """Four features in their weights."""
    return w00 * load(x, k00) + w01 * load(x, k01) + w10 * load(x, k10) + w11 * load(x, k11)


@device
def cell_of(i: int, channels: int, height: int, width: int) -> Any:
    """Column and row of thread i's cell, its first channel, its box, and where its first value lies in [M, C, height, width]."""
    quads = (channels + CHANNELS - 1) // CHANNELS
    q, p, rest = i % width, i // width % height, i // width // height
    c, m = rest % quads * CHANNELS, rest // quads
    return q, p, c, m, ((m * channels + c) * height + p) * width + q


@device
def plane_of(size: int, channels: int, last: int) -> Any:
    """Height and width of a level, and the distances between its rows, columns and channels."""
    rows, columns = size >> 32, size & 0xFFFFFFFF
    if last != 0:
        return rows, columns, columns * channels, channels, 1
    return rows, columns, columns, 1, rows * columns


def geometry(real: Any) -> tuple[Any, Any, Any]:
    """Device functions in `real` arithmetic, for upright and rotated boxes."""

    @device
    def samples(step: Any, ratio: int) -> Any:
        """Samples along one axis of a cell; none of a box that is not finite, or is longer than any picture."""
        if ratio > 0:
            return ratio
        if not (step > real(0) and step < real(MOST_SAMPLES)):
            return 0
        whole = np.int64(step)
        if real(whole) < step:
            whole += 1
        return whole

    @device
    def taps(at: Any, length: int) -> tuple[Any, Any, Any]:
        """The two features around a position, and the weight of the second; -1 outside."""
        if not (at >= real(-1) and at <= real(length)):
            return -1, -1, real(0)
        at = max(at, real(0))
        low = np.int64(at)
        if low >= length - 1:
            return length - 1, length - 1, real(0)
        return low, low + 1, at - real(low)

    @device
    def position(start: Any, cell: int, step: Any, k: int, grid: int) -> Any:
        """Where sample k of a cell lies, rounded as on the CPU."""
        return start + product(real(cell), step) + product(real(k) + real(0.5), step) / real(grid)

    return samples, taps, position


def _kernels(real: Any) -> tuple[Any, Any]:
    samples, taps, position = geometry(real)

    @device
    def frame(boxes: Any, m: int, scale: Any, aligned: int) -> Any:
        """First corner and sides of a box in its level's features, rounded as on the CPU."""
        shift = real(0)
        if aligned != 0:
            shift = real(0.5)
        left, top = product(boxes[4 * m], scale) - shift, product(boxes[4 * m + 1], scale) - shift
        wide = product(boxes[4 * m + 2], scale) - shift - left
        high = product(boxes[4 * m + 3], scale) - shift - top
        if aligned == 0:
            if wide < real(1):  # not max, whose result for what is no number differs between devices
                wide = real(1)
            if high < real(1):
                high = real(1)
        return left, top, wide, high

    def forward(
        x0: Any, x1: Any, x2: Any, x3: Any, x4: Any, x5: Any,
        size0: int, size1: int, size2: int, size3: int, size4: int, size5: int,
        scale0: Any, scale1: Any, scale2: Any, scale3: Any, scale4: Any, scale5: Any, y: Any, boxes: Any, image: Any, level: Any,
        channels: int, count: int, height: int, width: int, ratio: int, aligned: int, last: int,
    ) -> None:  # fmt: skip
        i = cuda.grid(1)
        if i >= count:
            return
        q, p, c, m, out = cell_of(i, channels, height, width)
        more = channels - c
        plane = height * width
        n = level[m]
        a0, a1, a2, a3 = real(0), real(0), real(0), real(0)
        if n >= 0:
            x = pick(n, x0, x1, x2, x3, x4, x5)
            scale = pick(n, scale0, scale1, scale2, scale3, scale4, scale5)
            size = pick(n, size0, size1, size2, size3, size4, size5)
            rows, columns, down, across, step_c = plane_of(size, channels, last)
            base = image[m] * channels * rows * columns + c * step_c
            left, top, wide, high = frame(boxes, m, scale, aligned)
            step_y, step_x = high / real(height), wide / real(width)
            grid_y, grid_x = samples(step_y, ratio), samples(step_x, ratio)
            o1, o2, o3 = min(1, more - 1) * step_c, min(2, more - 1) * step_c, min(3, more - 1) * step_c
            for iy in range(grid_y):
                y_low, y_high, wy = taps(position(top, p, step_y, iy, grid_y), rows)
                if y_low >= 0:
                    for ix in range(grid_x):
                        x_low, x_high, wx = taps(position(left, q, step_x, ix, grid_x), columns)
                        if x_low >= 0:
                            k00, k01 = base + y_low * down + x_low * across, base + y_low * down + x_high * across
                            k10, k11 = base + y_high * down + x_low * across, base + y_high * down + x_high * across
                            w00, w01 = (real(1) - wy) * (real(1) - wx), (real(1) - wy) * wx
                            w10, w11 = wy * (real(1) - wx), wy * wx
                            a0 += blend(x, k00, k01, k10, k11, w00, w01, w10, w11)
                            a1 += blend(x, k00 + o1, k01 + o1, k10 + o1, k11 + o1, w00, w01, w10, w11)
                            a2 += blend(x, k00 + o2, k01 + o2, k10 + o2, k11 + o2, w00, w01, w10, w11)
                            a3 += blend(x, k00 + o3, k01 + o3, k10 + o3, k11 + o3, w00, w01, w10, w11)
            part = real(1) / real(max(grid_y * grid_x, 1))
            a0, a1, a2, a3 = a0 * part, a1 * part, a2 * part, a3 * part
        store(y, out, a0)
        if more > 1:
            store(y, out + plane, a1)
        if more > 2:
            store(y, out + 2 * plane, a2)
        if more > 3:
            store(y, out + 3 * plane, a3)

    def backward(
        x0: Any, x1: Any, x2: Any, x3: Any, x4: Any, x5: Any,
        size0: int, size1: int, size2: int, size3: int, size4: int, size5: int,
        scale0: Any, scale1: Any, scale2: Any, scale3: Any, scale4: Any, scale5: Any, y: Any, boxes: Any, image: Any, level: Any,
        channels: int, count: int, height: int, width: int, ratio: int, aligned: int, last: int,
    ) -> None:  # fmt: skip
        i = cuda.grid(1)
        if i >= count:
            return
        q, p, c, m, out = cell_of(i, channels, height, width)
        more = min(channels - c, CHANNELS)
        plane = height * width
        n = level[m]
        if n < 0:
            return
        x = pick(n, x0, x1, x2, x3, x4, x5)
        scale = pick(n, scale0, scale1, scale2, scale3, scale4, scale5)
        size = pick(n, size0, size1, size2, size3, size4, size5)
        rows, columns, down, across, step_c = plane_of(size, channels, last)
        base = image[m] * channels * rows * columns + c * step_c
        left, top, wide, high = frame(boxes, m, scale, aligned)
        step_y, step_x = high / real(height), wide / real(width)
        grid_y, grid_x = samples(step_y, ratio), samples(step_x, ratio)
        part = real(1) / real(max(grid_y * grid_x, 1))
        for iy in range(grid_y):
            y_low, y_high, wy = taps(position(top, p, step_y, iy, grid_y), rows)
            if y_low >= 0:
                for ix in range(grid_x):
                    x_low, x_high, wx = taps(position(left, q, step_x, ix, grid_x), columns)
                    if x_low >= 0:
                        k00, k01 = base + y_low * down + x_low * across, base + y_low * down + x_high * across
                        k10, k11 = base + y_high * down + x_low * across, base + y_high * down + x_high * across
                        for k in range(more):
                            value = load(y, out + k * plane) * part
                            atomic_add(x, k00 + k * step_c, (real(1) - wy) * (real(1) - wx) * value)
                            atomic_add(x, k01 + k * step_c, (real(1) - wy) * wx * value)
                            atomic_add(x, k10 + k * step_c, wy * (real(1) - wx) * value)
                            atomic_add(x, k11 + k * step_c, wy * wx * value)

    return forward, backward


_FORWARD, _BACKWARD = _kernels(np.float32)
_FORWARD_64, _BACKWARD_64 = _kernels(np.float64)
roi_align_forward = Kernel(
    "roi_align_forward",
    LEVELS.format(pointer="T") + ", T* y, R* boxes" + REST,
    {**dict.fromkeys(HALF_TYPES, _FORWARD), torch.float64: _FORWARD_64},
)
roi_align_backward = Kernel(
    "roi_align_backward",
    LEVELS.format(pointer="R") + ", T* y, R* boxes" + REST,
    {**dict.fromkeys(HALF_TYPES, _BACKWARD), torch.float64: _BACKWARD_64},
)


# -- launch --


def laid_out(features: Sequence[Tensor]) -> tuple[list[Tensor], bool]:
    """The levels in one dtype and layout, copied only where they differ; whether it is channels last."""
    layout = layout_of(features)
    return [one.to(features[0].dtype).contiguous(memory_format=layout) for one in features], layout is torch.channels_last


def level_arguments(op: str, features: Sequence[Tensor], scales: Sequence[float]) -> list[Any]:
    """Addresses, packed sizes and scales of the levels; missing ones repeat the first, which no box reads."""
    if len(features) > MOST_LEVELS:
        raise ValueError(f"{op}: {len(features)} levels; the CUDA kernel takes up to {MOST_LEVELS}")
    missing = MOST_LEVELS - len(features)
    sizes = [feature.shape[2] << 32 | feature.shape[3] for feature in features]
    return [*features, *[features[0]] * missing, *sizes, *[0] * missing, *scales, *[1.0] * missing]


def forward(
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    height: int,
    width: int,
    ratio: int,
    aligned: bool,
) -> Tensor:
    """Regions [M, C, height, width]."""
    levels, last = laid_out(features)
    dtype, channels = levels[0].dtype, levels[0].shape[1]
    regions = levels[0].new_empty(len(boxes), channels, height, width)
    count = len(boxes) * -(-channels // CHANNELS) * height * width
    real = boxes.to(torch.float64 if dtype is torch.float64 else torch.float32).contiguous()
    rest = (regions, real, whole(image), whole(level), channels, count, height, width, ratio, int(aligned), int(last))
    given = (*level_arguments("roi_align", levels, scales), *rest)
    roi_align_forward.launch(dtype, regions.device, blocks_for(count), THREADS, *given)
    return regions


def backward(
    upstream: Tensor,
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    ratio: int,
    aligned: bool,
) -> list[Tensor]:
    """Gradients of the levels."""
    warn_not_deterministic("roi_align")
    dtype, (channels, height, width) = upstream.dtype, upstream.shape[1:]
    accumulated = torch.float64 if dtype is torch.float64 else torch.float32
    gradients, last = zero_gradients(features, accumulated)
    count = len(boxes) * -(-channels // CHANNELS) * height * width
    real = boxes.to(accumulated).contiguous()
    sizes = (channels, count, height, width, ratio, int(aligned), int(last))
    rest = (upstream.contiguous(), real, whole(image), whole(level), *sizes)
    given = (*level_arguments("roi_align", gradients, scales), *rest)
    roi_align_backward.launch(dtype, upstream.device, blocks_for(count), THREADS, *given)
    return [gradient.to(feature.dtype) for gradient, feature in zip(gradients, features, strict=True)]


def zero_gradients(features: Sequence[Tensor], dtype: torch.dtype) -> tuple[list[Tensor], bool]:
    """Zeros in the levels' shapes and common layout; whether it is channels last."""
    layout = layout_of(features)
    return [torch.zeros_like(one, dtype=dtype, memory_format=layout) for one in features], layout is torch.channels_last
