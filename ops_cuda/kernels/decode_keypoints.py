"""Kernel of keypoint decoding: a block walks down one map's columns at the box's resolution, four interpolated rows at a time.

A thread has a column of pixels; the rows of cells that a pixel lies between are interpolated sideways once, as they come into
reach. Every product rounds as on the CPU, so that points and values are the twin's bit for bit; scores add up in another order.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import HALF_TYPES, THREADS, cuda, device, kernel, load, product
from ops_cuda.decode_keypoints import SHARPNESS

A5, A8, A4 = np.float32(5) * SHARPNESS, np.float32(8) * SHARPNESS, np.float32(4) * SHARPNESS
A2, A3 = SHARPNESS + np.float32(2), SHARPNESS + np.float32(3)


@device
def _outer(distance: Any) -> Any:
    """Keys' weight of a cell one to two away."""
    return product(product(product(SHARPNESS, distance) - A5, distance) + A8, distance) - A4


@device
def _inner(distance: Any) -> Any:
    """Keys' weight of a cell within one."""
    return product(product(product(A2, distance) - A3, distance), distance) + np.float32(1)


@device
def _taps(cells: int, pixels: int, pixel: int) -> tuple[int, Any, Any, Any, Any]:
    """The first of the four cells around a pixel of a side, and what each contributes."""
    step = np.float32(cells) / np.float32(pixels)
    at = product(step, np.float32(pixel) + np.float32(0.5)) - np.float32(0.5)
    lower = int(math.floor(at))
    t = at - np.float32(lower)
    u = np.float32(1) - t
    return lower - 1, _outer(t + np.float32(1)), _inner(t), _inner(u), _outer(u + np.float32(1))


@device
def _sideways(maps: Any, first: int, cells: int, row: int, column: int, a: Any, b: Any, c: Any, d: Any) -> Any:
    """A row of cells, interpolated between four columns from `column` on; both are held inside the map."""
    start, last = first + min(max(row, 0), cells - 1) * cells, cells - 1
    value = product(load(maps, start + min(max(column, 0), last)), a) + product(
        load(maps, start + min(max(column + 1, 0), last)), b
    )
    value += product(load(maps, start + min(max(column + 2, 0), last)), c)
    return value + product(load(maps, start + min(max(column + 3, 0), last)), d)


@kernel("T* maps, f32* boxes, f32* points, i64 keypoints, i64 cells", HALF_TYPES)
def decode_points(maps: Any, boxes: Any, points: Any, keypoints: int, cells: int) -> None:
    """One point [4] per block; the points come as zeros and stay so where a box or a map is not finite."""
    row_at = cuda.shared.array(THREADS, np.int32)
    row_by = cuda.shared.array((4, THREADS), np.float32)
    values = cuda.shared.array(THREADS, np.float32)
    places = cuda.shared.array(THREADS, np.int64)
    t, i = cuda.threadIdx.x, cuda.blockIdx.x
    first, r = i * cells * cells, i // keypoints
    x1, y1 = boxes[r * 4], boxes[r * 4 + 1]
    width, height = max(boxes[r * 4 + 2] - x1, np.float32(1)), max(boxes[r * 4 + 3] - y1, np.float32(1))
    finite = math.isfinite(x1) and math.isfinite(y1) and math.isfinite(boxes[r * 4 + 2]) and math.isfinite(boxes[r * 4 + 3])
    for cell in range(t, cells * cells, THREADS):
        finite = finite and math.isfinite(load(maps, first + cell))
    places[t] = 0
    if not (finite and math.isfinite(width) and math.isfinite(height)):
        places[t] = 1
    cuda.syncthreads()
    broken = 0
    for other in range(THREADS):
        broken += places[other]
    if broken > 0:
        return

    columns, rows = int(math.ceil(width)), int(math.ceil(height))
    best, place = np.float32(-np.inf), 0
    for start in range(0, columns, THREADS):
        x = start + t
        column, a, b, c, d = _taps(cells, columns, x)
        known = -9
        w0, w1, w2, w3 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
        for tile in range(0, rows, THREADS):
            cuda.syncthreads()
            row, u0, u1, u2, u3 = _taps(cells, rows, tile + t)
            row_at[t], row_by[0, t], row_by[1, t], row_by[2, t], row_by[3, t] = row, u0, u1, u2, u3
            cuda.syncthreads()
            if x < columns:
                for y in range(min(THREADS, rows - tile)):
                    row = row_at[y]
                    if row == known + 1:
                        w0, w1, w2 = w1, w2, w3
                        w3 = _sideways(maps, first, cells, row + 3, column, a, b, c, d)
                    elif row != known:
                        w0 = _sideways(maps, first, cells, row, column, a, b, c, d)
                        w1 = _sideways(maps, first, cells, row + 1, column, a, b, c, d)
                        w2 = _sideways(maps, first, cells, row + 2, column, a, b, c, d)
                        w3 = _sideways(maps, first, cells, row + 3, column, a, b, c, d)
                    known = row
                    value = product(w0, row_by[0, y]) + product(w1, row_by[1, y])
                    value = value + product(w2, row_by[2, y]) + product(w3, row_by[3, y])
                    at = (tile + y) * columns + x
                    if value > best or (value == best and at < place):
                        best, place = value, at

    cuda.syncthreads()
    values[t], places[t] = best, place
    half = THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            other, at = values[t + half], places[t + half]
            if other > values[t] or (other == values[t] and at < places[t]):
                values[t], places[t] = other, at
        half //= 2
    cuda.syncthreads()
    best, place = values[0], places[0]
    cuda.syncthreads()
    total = np.float32(0)
    for cell in range(t, cells * cells, THREADS):
        total += math.exp(load(maps, first + cell) - best)
    values[t] = total
    half = THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            values[t] += values[t + half]
        half //= 2
    if t == 0:
        x, y = place % columns, place // columns
        points[i * 4] = product(np.float32(x) + np.float32(0.5), width / np.float32(columns)) + x1
        points[i * 4 + 1] = product(np.float32(y) + np.float32(0.5), height / np.float32(rows)) + y1
        points[i * 4 + 2] = best
        points[i * 4 + 3] = np.float32(1) / values[0]


# -- launch --


def decode_keypoints(heatmaps: Tensor, boxes: Tensor) -> Tensor:
    """Points [R, K, 4] (float32)."""
    regions, keypoints, cells = heatmaps.shape[:3]
    points = torch.zeros(regions, keypoints, 4, dtype=torch.float32, device=heatmaps.device)
    if heatmaps.dtype not in HALF_TYPES:
        heatmaps = heatmaps.float()
    given = heatmaps.contiguous(), boxes.float().contiguous(), points, keypoints, cells
    decode_points.launch(heatmaps.dtype, heatmaps.device, regions * keypoints, THREADS, *given)
    return points
