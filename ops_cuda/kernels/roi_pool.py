"""Kernels of max-pooling regions: one launch per level, in which a thread pools one cell of one channel of its level's boxes."""

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

LOWEST = -3.4028234663852886e38
"""Below which no feature is taken for the largest: float32's least."""


def _kernels(real: Any) -> tuple[Any, Any]:
    """Forward and backward in `real` arithmetic."""

    @device
    def rounded(value: Any) -> int:
        """The nearest whole number, halves away from zero."""
        size = min(abs(value), real(1e9))
        whole = int(math.floor(size))
        if size - real(whole) >= real(0.5):
            whole += 1
        if value < real(0):
            return -whole
        return whole

    @device
    def cells(start: int, end: int, cell: int, pooled: int, limit: int) -> tuple[int, int]:
        """First and last + 1 of the features of a pooled cell along one side."""
        step = real(max(end - start + 1, 1)) / real(pooled)
        first = int(math.floor(real(cell) * step)) + start
        last = int(math.ceil(real(cell + 1) * step)) + start
        return min(max(first, 0), limit), min(max(last, 0), limit)

    def forward(
        feature: Any, boxes: Any, image: Any, level: Any, regions: Any, places: Any,
        count: int, number: int, scale: Any, channels: int, height: int, width: int, rows: int, columns: int,
    ) -> None:  # fmt: skip
        i = cuda.grid(1)
        m = i // columns // rows // channels
        if i < count and level[m] == number:
            x, y, c = i % columns, i // columns % rows, i // columns // rows % channels
            top, bottom = cells(rounded(boxes[m * 4 + 1] * scale), rounded(boxes[m * 4 + 3] * scale), y, rows, height)
            left, right = cells(rounded(boxes[m * 4] * scale), rounded(boxes[m * 4 + 2] * scale), x, columns, width)
            plane = (image[m] * channels + c) * height * width
            best, chosen = real(LOWEST), -1
            if top >= bottom or left >= right:
                best = real(0)
            for row in range(top, bottom):
                for column in range(left, right):
                    value = load(feature, plane + row * width + column)
                    if value > best:
                        best, chosen = value, row * width + column
            store(regions, i, best)
            places[i] = chosen

    def backward(
        upstream: Any, image: Any, level: Any, places: Any, gradient: Any,
        count: int, number: int, channels: int, plane: int, cells: int,
    ) -> None:  # fmt: skip
        i = cuda.grid(1)
        m = i // cells // channels
        if i < count and level[m] == number and places[i] >= 0:
            c = i // cells % channels
            atomic_add(gradient, (image[m] * channels + c) * plane + places[i], load(upstream, i))

    return forward, backward


_FORWARD, _BACKWARD = _kernels(np.float32)
_FORWARD_64, _BACKWARD_64 = _kernels(np.float64)
FORWARD = Kernel(
    "roi_pool_forward",
    "T* feature, R* boxes, i64* image, i64* level, T* regions, i32* places, i64 count, i64 number, R scale, i64 channels, "
    "i64 height, i64 width, i64 rows, i64 columns",
    {**dict.fromkeys(HALF_TYPES, _FORWARD), torch.float64: _FORWARD_64},
)
BACKWARD = Kernel(
    "roi_pool_backward",
    "T* upstream, i64* image, i64* level, i32* places, R* gradient, i64 count, i64 number, i64 channels, i64 plane, i64 cells",
    {**dict.fromkeys(HALF_TYPES, _BACKWARD), torch.float64: _BACKWARD_64},
)


# -- launch --


def forward(
    features: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor, scales: list[float], height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Regions [M, C, height, width], and which feature of its plane each cell took (int32; -1 none)."""
    channels, dtype, device = features[0].shape[1], features[0].dtype, features[0].device
    regions = features[0].new_zeros(boxes.shape[0], channels, height, width)
    places = torch.full_like(regions, -1, dtype=torch.int32)
    given = boxes.to(arithmetic(dtype)).contiguous(), whole(image), whole(level), regions, places
    count = regions.numel()
    for number, (feature, scale) in enumerate(zip(features, scales, strict=True)):
        rest = count, number, scale, channels, feature.shape[2], feature.shape[3], height, width
        FORWARD.launch(dtype, device, blocks_for(count), THREADS, feature.to(dtype).contiguous(), *given, *rest)
    return regions, places


def backward(
    upstream: Tensor, features: list[Tensor], boxes: Tensor, image: Tensor, level: Tensor, places: Tensor, scales: list[float]
) -> list[Tensor]:
    """Gradients of the levels, summed in no fixed order."""
    warn_not_deterministic("roi_pool")
    dtype, count, channels = upstream.dtype, upstream.numel(), upstream.shape[1]
    given = upstream.contiguous(), whole(image), whole(level), places.contiguous()
    gradients = []
    for number, feature in enumerate(features):
        gradient = torch.zeros(feature.shape, dtype=arithmetic(dtype), device=feature.device)
        sizes = channels, feature.shape[2] * feature.shape[3], upstream.shape[2] * upstream.shape[3]
        BACKWARD.launch(dtype, upstream.device, blocks_for(count), THREADS, *given, gradient, count, number, *sizes)
        gradients.append(gradient.to(feature.dtype))
    return gradients
