"""Kernels of reading features at points: a thread reads a few channels at one point, neighbouring threads neighbouring points."""

import math
from typing import Any

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
    whole,
)

CHANNELS = 4
"""Channels of a thread: the four places and weights are worked out once for all of them."""


def _kernels(real: Any) -> tuple[Any, Any]:
    """Forward and backward in `real` arithmetic."""

    @device
    def placed(at: Any, size: int) -> tuple[int, Any]:
        """The lower of the two pixels that a place lies between, and the upper one's share; -2: far outside."""
        shifted = at - real(0.5)
        if not (shifted > real(-1) and shifted < real(size)):
            return -2, real(0)
        lower = int(math.floor(shifted))
        return int(lower), shifted - real(lower)

    def forward(
        features: Any, points: Any, image: Any, values: Any, rows: int, count: int, channels: int, height: int, width: int
    ) -> None:
        i = cuda.grid(1)
        groups = (channels + CHANNELS - 1) // CHANNELS
        if i < rows * groups * count:
            p, m = i % count, i // count // groups
            first = i // count % groups * CHANNELS
            x, right = placed(points[(m * count + p) * 2], width)
            y, below = placed(points[(m * count + p) * 2 + 1], height)
            inside = x >= -1 and y >= -1 and image[m] >= 0
            for c in range(first, min(first + CHANNELS, channels)):
                value = real(0)
                if inside:
                    plane = (image[m] * channels + c) * height
                    if y >= 0 and x >= 0:
                        value += load(features, (plane + y) * width + x) * (real(1) - below) * (real(1) - right)
                    if y >= 0 and x + 1 < width:
                        value += load(features, (plane + y) * width + x + 1) * (real(1) - below) * right
                    if y + 1 < height and x >= 0:
                        value += load(features, (plane + y + 1) * width + x) * below * (real(1) - right)
                    if y + 1 < height and x + 1 < width:
                        value += load(features, (plane + y + 1) * width + x + 1) * below * right
                store(values, (m * channels + c) * count + p, value)

    def backward(
        upstream: Any, points: Any, image: Any, gradient: Any, rows: int, count: int, channels: int, height: int, width: int
    ) -> None:
        i = cuda.grid(1)
        groups = (channels + CHANNELS - 1) // CHANNELS
        if i < rows * groups * count:
            p, m = i % count, i // count // groups
            first = i // count % groups * CHANNELS
            x, right = placed(points[(m * count + p) * 2], width)
            y, below = placed(points[(m * count + p) * 2 + 1], height)
            if x >= -1 and y >= -1 and image[m] >= 0:
                for c in range(first, min(first + CHANNELS, channels)):
                    slope = load(upstream, (m * channels + c) * count + p)
                    plane = (image[m] * channels + c) * height
                    if y >= 0 and x >= 0:
                        atomic_add(gradient, (plane + y) * width + x, slope * (real(1) - below) * (real(1) - right))
                    if y >= 0 and x + 1 < width:
                        atomic_add(gradient, (plane + y) * width + x + 1, slope * (real(1) - below) * right)
                    if y + 1 < height and x >= 0:
                        atomic_add(gradient, (plane + y + 1) * width + x, slope * below * (real(1) - right))
                    if y + 1 < height and x + 1 < width:
                        atomic_add(gradient, (plane + y + 1) * width + x + 1, slope * below * right)

    return forward, backward


_FORWARD, _BACKWARD = _kernels(np.float32)
_FORWARD_64, _BACKWARD_64 = _kernels(np.float64)
FORWARD = Kernel(
    "point_sample_forward",
    "T* features, R* points, i64* image, T* values, i64 rows, i64 count, i64 channels, i64 height, i64 width",
    {**dict.fromkeys(HALF_TYPES, _FORWARD), torch.float64: _FORWARD_64},
)
BACKWARD = Kernel(
    "point_sample_backward",
    "T* upstream, R* points, i64* image, R* gradient, i64 rows, i64 count, i64 channels, i64 height, i64 width",
    {**dict.fromkeys(HALF_TYPES, _BACKWARD), torch.float64: _BACKWARD_64},
)


# -- launch --


def forward(features: Tensor, points: Tensor, image: Tensor) -> Tensor:
    """Values [M, C, P]."""
    _, channels, height, width = features.shape
    rows, count = points.shape[:2]
    values = features.new_empty(rows, channels, count)
    given = features.contiguous(), points.to(arithmetic(features.dtype)).contiguous(), whole(image)
    blocks = blocks_for(rows * blocks_for(channels, CHANNELS) * count)
    FORWARD.launch(features.dtype, features.device, blocks, THREADS, *given, values, rows, count, channels, height, width)
    return values


def backward(upstream: Tensor, features: Tensor, points: Tensor, image: Tensor) -> Tensor:
    """Gradient of the map, summed in no fixed order."""
    warn_not_deterministic("point_sample")
    _, channels, height, width = features.shape
    rows, count = points.shape[:2]
    real = arithmetic(features.dtype)
    gradient = torch.zeros(features.shape, dtype=real, device=features.device)
    given = upstream.contiguous(), points.to(real).contiguous(), whole(image)
    blocks = blocks_for(rows * blocks_for(channels, CHANNELS) * count)
    BACKWARD.launch(features.dtype, features.device, blocks, THREADS, *given, gradient, rows, count, channels, height, width)
    return gradient.to(features.dtype)
