"""Kernels of rotated ROIAlign: as those of `roi_align`, with the samples of a turned rectangle.

Positions are computed in float32 (float64 for float64); gradients are added atomically: their last bits change from run to run.
"""

import math
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
    cospi,
    cuda,
    device,
    load,
    sinpi,
    store,
    warn_not_deterministic,
    whole,
)
from ops_cuda.kernels.roi_align import (
    CHANNELS,
    LEVELS,
    blend,
    cell_of,
    geometry,
    laid_out,
    level_arguments,
    pick,
    plane_of,
    zero_gradients,
)

REST = ", i64* image, i64* level, i64 channels, i64 count, i64 height, i64 width, i64 ratio, i64 last"


@device
def _direction(degrees: Any) -> tuple[Any, Any]:
    """Cosine and sine, exact at right angles."""
    return cospi(degrees / np.float32(180)), sinpi(degrees / np.float32(180))


@device
def _direction_64(degrees: Any) -> tuple[Any, Any]:
    theta = degrees * np.float64(math.pi) / np.float64(180)
    return math.cos(theta), math.sin(theta)


def _kernels(real: Any, direction: Any) -> tuple[Any, Any]:
    samples, taps, _ = geometry(real)

    @device
    def frame(boxes: Any, m: int, scale: Any) -> Any:
        """Centre and sides of a box in its level's pixel indices."""
        center_x, center_y = boxes[5 * m] * scale - real(0.5), boxes[5 * m + 1] * scale - real(0.5)
        return center_x, center_y, boxes[5 * m + 2] * scale, boxes[5 * m + 3] * scale

    @device
    def sample(v: Any, u: Any, cosine: Any, sine: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """Row and column of the point v down and u along a rectangle around (x, y)."""
        return v * cosine - u * sine + y, v * sine + u * cosine + x

    def forward(
        x0: Any, x1: Any, x2: Any, x3: Any, x4: Any, x5: Any,
        size0: int, size1: int, size2: int, size3: int, size4: int, size5: int,
        scale0: Any, scale1: Any, scale2: Any, scale3: Any, scale4: Any, scale5: Any, y: Any, boxes: Any, image: Any, level: Any,
        channels: int, count: int, height: int, width: int, ratio: int, last: int,
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
            center_x, center_y, wide, high = frame(boxes, m, scale)
            cosine, sine = direction(boxes[5 * m + 4])
            step_y, step_x = high / real(height), wide / real(width)
            grid_y, grid_x = samples(step_y, ratio), samples(step_x, ratio)
            o1, o2, o3 = min(1, more - 1) * step_c, min(2, more - 1) * step_c, min(3, more - 1) * step_c
            for iy in range(grid_y):
                v = real(p) * step_y + (real(iy) + real(0.5)) * step_y / real(grid_y) - high * real(0.5)
                for ix in range(grid_x):
                    u = real(q) * step_x + (real(ix) + real(0.5)) * step_x / real(grid_x) - wide * real(0.5)
                    at_y, at_x = sample(v, u, cosine, sine, center_x, center_y)
                    y_low, y_high, wy = taps(at_y, rows)
                    x_low, x_high, wx = taps(at_x, columns)
                    if y_low >= 0 and x_low >= 0:
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
        channels: int, count: int, height: int, width: int, ratio: int, last: int,
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
        center_x, center_y, wide, high = frame(boxes, m, scale)
        cosine, sine = direction(boxes[5 * m + 4])
        step_y, step_x = high / real(height), wide / real(width)
        grid_y, grid_x = samples(step_y, ratio), samples(step_x, ratio)
        part = real(1) / real(max(grid_y * grid_x, 1))
        for iy in range(grid_y):
            v = real(p) * step_y + (real(iy) + real(0.5)) * step_y / real(grid_y) - high * real(0.5)
            for ix in range(grid_x):
                u = real(q) * step_x + (real(ix) + real(0.5)) * step_x / real(grid_x) - wide * real(0.5)
                at_y, at_x = sample(v, u, cosine, sine, center_x, center_y)
                y_low, y_high, wy = taps(at_y, rows)
                x_low, x_high, wx = taps(at_x, columns)
                if y_low >= 0 and x_low >= 0:
                    k00, k01 = base + y_low * down + x_low * across, base + y_low * down + x_high * across
                    k10, k11 = base + y_high * down + x_low * across, base + y_high * down + x_high * across
                    for k in range(more):
                        value = load(y, out + k * plane) * part
                        atomic_add(x, k00 + k * step_c, (real(1) - wy) * (real(1) - wx) * value)
                        atomic_add(x, k01 + k * step_c, (real(1) - wy) * wx * value)
                        atomic_add(x, k10 + k * step_c, wy * (real(1) - wx) * value)
                        atomic_add(x, k11 + k * step_c, wy * wx * value)

    return forward, backward


_FORWARD, _BACKWARD = _kernels(np.float32, _direction)
_FORWARD_64, _BACKWARD_64 = _kernels(np.float64, _direction_64)
_EXEMPT = {"float64 narrow": "a small table inside sin and cos"}
roi_align_rotated_forward = Kernel(
    "rotated_align_forward",
    LEVELS.format(pointer="T") + ", T* y, R* boxes" + REST,
    {**dict.fromkeys(HALF_TYPES, _FORWARD), torch.float64: _FORWARD_64},
    exempt=_EXEMPT,
)
roi_align_rotated_backward = Kernel(
    "rotated_align_backward",
    LEVELS.format(pointer="R") + ", T* y, R* boxes" + REST,
    {**dict.fromkeys(HALF_TYPES, _BACKWARD), torch.float64: _BACKWARD_64},
    exempt=_EXEMPT,
)


# -- launch --


def forward(
    features: list[Tensor],
    boxes: Tensor,
    image: Tensor,
    level: Tensor,
    scales: list[float],
    height: int,
    width: int,
    ratio: int,
) -> Tensor:
    """Regions [M, C, height, width]."""
    levels, last = laid_out(features)
    dtype, channels = levels[0].dtype, levels[0].shape[1]
    regions = levels[0].new_empty(len(boxes), channels, height, width)
    count = len(boxes) * -(-channels // CHANNELS) * height * width
    real = boxes.to(torch.float64 if dtype is torch.float64 else torch.float32).contiguous()
    rest = (regions, real, whole(image), whole(level), channels, count, height, width, ratio, int(last))
    given = (*level_arguments("roi_align_rotated", levels, scales), *rest)
    roi_align_rotated_forward.launch(dtype, regions.device, blocks_for(count), THREADS, *given)
    return regions


def backward(
    upstream: Tensor, features: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: list[float], ratio: int
) -> list[Tensor]:
    """Gradients of the levels."""
    warn_not_deterministic("roi_align_rotated")
    dtype, (channels, height, width) = upstream.dtype, upstream.shape[1:]
    accumulated = torch.float64 if dtype is torch.float64 else torch.float32
    gradients, last = zero_gradients(features, accumulated)
    count = len(boxes) * -(-channels // CHANNELS) * height * width
    real, upstream = boxes.to(accumulated).contiguous(), upstream.contiguous()
    rest = (upstream, real, whole(image), whole(level), channels, count, height, width, ratio, int(last))
    given = (*level_arguments("roi_align_rotated", gradients, scales), *rest)
    roi_align_rotated_backward.launch(dtype, upstream.device, blocks_for(count), THREADS, *given)
    return [gradient.to(feature.dtype) for gradient, feature in zip(gradients, features, strict=True)]
