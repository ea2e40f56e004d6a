"""Kernels of the focal loss: loss and gradient from one exponential and one logarithm per element."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import HALF_TYPES, SIMULATED, THREADS, Kernel, blocks_for, cuda, device, kernel, load, store

BLOCKS = 3 if SIMULATED else 1024
"""Blocks of the summing kernel, a fixed number: the sum has one order on every device."""

SUM_TYPES = (torch.float32, torch.bfloat16)


def _parts_in(real: Any) -> Any:
    @device
    def parts(z: Any, gamma: Any) -> tuple[Any, Any, Any, Any]:
        """Of a truth with logit z: the chances of being right and wrong, the latter to the power gamma, and -log(right)."""
        small = math.exp(-abs(z))
        likely = real(1) / (real(1) + small)
        right, wrong = likely, small * likely  # not as one's complement: of a sure truth nothing would be left
        if z < real(0):
            right, wrong = wrong, right
        rest = math.log1p(small)
        cost = rest + max(-z, real(0))
        return right, wrong, math.exp(-gamma * (rest + max(z, real(0)))), cost

    return parts


def _kernels(real: Any, parts: Any) -> tuple[Any, Any]:
    """Forward and backward, element by element, in `real` arithmetic."""

    def forward(logits: Any, targets: Any, loss: Any, count: int, alpha: Any, gamma: Any) -> None:
        i = cuda.grid(1)
        if i < count:
            target = load(targets, i)
            _, _, power, cost = parts(load(logits, i) * (real(2) * target - real(1)), gamma)
            weight = real(1)
            if alpha >= real(0):
                weight = target * (real(2) * alpha - real(1)) + (real(1) - alpha)
            store(loss, i, weight * power * cost)

    def backward(upstream: Any, logits: Any, targets: Any, gradient: Any, count: int, alpha: Any, gamma: Any) -> None:
        i = cuda.grid(1)
        if i < count:
            target = load(targets, i)
            sign = real(2) * target - real(1)
            right, wrong, power, cost = parts(load(logits, i) * sign, gamma)
            weight = real(1)
            if alpha >= real(0):
                weight = target * (real(2) * alpha - real(1)) + (real(1) - alpha)
            slope = power * (gamma * right * cost + wrong)
            store(gradient, i, -load(upstream, i) * sign * weight * slope)

    return forward, backward


_parts = _parts_in(np.float32)
_FORWARD, _BACKWARD = _kernels(np.float32, _parts)
_FORWARD_64, _BACKWARD_64 = _kernels(np.float64, _parts_in(np.float64))
FORWARD = Kernel(
    "focal_forward",
    "T* logits, T* targets, T* loss, i64 count, R alpha, R gamma",
    {**dict.fromkeys(HALF_TYPES, _FORWARD), torch.float64: _FORWARD_64},
)
BACKWARD = Kernel(
    "focal_backward",
    "T* upstream, T* logits, T* targets, T* gradient, i64 count, R alpha, R gamma",
    {**dict.fromkeys(HALF_TYPES, _BACKWARD), torch.float64: _BACKWARD_64},
)


@kernel("T* logits, i64* classes, T* gradient, f32* sums, i64 rows, i64 columns, f32 alpha, f32 gamma", SUM_TYPES)
def focal_of_classes(
    logits: Any, classes: Any, gradient: Any, sums: Any, rows: int, columns: int, alpha: Any, gamma: Any
) -> None:
    """Loss summed per block and the gradient of that sum, in one pass; a row of class -2 is left out, -1 is all background."""
    shared = cuda.shared.array(THREADS, np.float32)
    t = cuda.threadIdx.x
    i, stride, count = cuda.grid(1), cuda.gridsize(1), rows * columns
    row, column = i // columns, i % columns
    rows_on, columns_on = stride // columns, stride % columns
    positive, negative = alpha, np.float32(1) - alpha
    if alpha < np.float32(0):
        positive, negative = np.float32(1), np.float32(1)
    total = np.float32(0)
    while i < count:
        wanted = classes[row]
        if wanted == -2:
            store(gradient, i, np.float32(0))
        else:
            z = load(logits, i)
            sign, weight = np.float32(-1), negative
            if wanted == column:
                sign, weight = np.float32(1), positive
            right, wrong, power, cost = _parts(z * sign, gamma)
            total += weight * power * cost
            store(gradient, i, -sign * weight * power * (gamma * right * cost + wrong))
        i, row, column = i + stride, row + rows_on, column + columns_on
        if column >= columns:
            row, column = row + 1, column - columns
    shared[t] = total
    half = THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            shared[t] += shared[t + half]
        half //= 2
    if t == 0:
        sums[cuda.blockIdx.x] = shared[0]


# -- launch --


def forward(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Loss per element."""
    logits, targets = logits.contiguous(), targets.to(logits.dtype).expand_as(logits).contiguous()
    loss = torch.empty_like(logits)
    count = logits.numel()
    FORWARD.launch(logits.dtype, logits.device, blocks_for(count), THREADS, logits, targets, loss, count, alpha, gamma)
    return loss


def backward(upstream: Tensor, logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Gradient of the logits."""
    upstream, logits = upstream.to(logits.dtype).contiguous(), logits.contiguous()
    targets = targets.to(logits.dtype).expand_as(logits).contiguous()
    gradient = torch.empty_like(logits)
    count = logits.numel()
    given = (upstream, logits, targets, gradient, count, alpha, gamma)
    BACKWARD.launch(logits.dtype, logits.device, blocks_for(count), THREADS, *given)
    return gradient


def of_classes(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """Sum (float32) over logits [..., C] and its gradient, of classes [...] (int64)."""
    logits, classes = logits.contiguous(), classes.to(torch.int64).contiguous()
    gradient, sums = torch.empty_like(logits), logits.new_zeros(BLOCKS, dtype=torch.float32)
    rows, columns = classes.numel(), logits.shape[-1]
    given = (logits, classes, gradient, sums, rows, columns, alpha, gamma)
    focal_of_classes.launch(logits.dtype, logits.device, BLOCKS if logits.numel() else 0, THREADS, *given)
    return sums.sum(), gradient
