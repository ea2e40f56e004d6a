"""Kernel of the rotated overlap: one pair a thread, one rectangle clipped in the other's frame, in float32.

Corners lie in `room`, thread-local memory of ROOM float32: x, y and the same again for what a cut leaves. Angles are half turns,
so that right angles are exact.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import THREADS, blocks_for, cospi, cuda, device, kernel, sinpi

CORNERS = 16
ROOM = 4 * CORNERS


@device
def _cut(room: Any, count: int, limit: Any) -> int:
    """The part of a convex polygon where x <= limit, turned by a right angle; how many corners it has."""
    left = 0
    for i in range(count):
        j = i + 1
        if j == count:
            j = 0
        xi, yi, xj, yj = room[i], room[CORNERS + i], room[j], room[CORNERS + j]
        if xi <= limit:
            room[2 * CORNERS + left], room[3 * CORNERS + left] = xi, yi
            left += 1
        if (xi <= limit) != (xj <= limit):
            room[2 * CORNERS + left], room[3 * CORNERS + left] = limit, yi + (limit - xi) / (xj - xi) * (yj - yi)
            left += 1
    for i in range(left):
        room[i], room[CORNERS + i] = room[3 * CORNERS + i], -room[2 * CORNERS + i]
    return left


@device
def rotated_iou(a: Any, i: int, b: Any, j: int, room: Any) -> Any:
    """IoU of the box of five numbers at a[i] and that at b[j]."""
    aw, ah, bw, bh = a[i + 2], a[i + 3], b[j + 2], b[j + 3]
    area_a, area_b = aw * ah, bw * bh
    dx, dy = a[i] - b[j], a[i + 1] - b[j + 1]
    reach = math.sqrt(aw * aw + ah * ah) + math.sqrt(bw * bw + bh * bh)
    least = np.float32(1e-14)
    if not (area_a > least and area_b > least and np.float32(4) * (dx * dx + dy * dy) < reach * reach):
        return np.float32(0)
    half, straight = np.float32(0.5), np.float32(180)
    turn, between = b[j + 4] / straight, (a[i + 4] - b[j + 4]) / straight
    cx, cy = dx * cospi(turn) - dy * sinpi(turn), dx * sinpi(turn) + dy * cospi(turn)
    cosine, sine = cospi(between), sinpi(between)
    for corner in range(4):
        u, v = aw * half, ah * half
        if corner >= 2:
            u = -u
        if corner == 0 or corner == 3:
            v = -v
        room[corner] = cx + cosine * u + sine * v
        room[CORNERS + corner] = cy - sine * u + cosine * v
    count = 4
    count = _cut(room, count, bw * half)
    count = _cut(room, count, bh * half)
    count = _cut(room, count, bw * half)
    count = _cut(room, count, bh * half)
    twice = np.float32(0)
    x, y = room[0], room[CORNERS]
    for corner in range(1, count - 1):
        twice += (room[corner] - x) * (room[CORNERS + corner + 1] - y) - (room[corner + 1] - x) * (room[CORNERS + corner] - y)
    inter = min(abs(twice) * half, min(area_a, area_b))
    return inter / (area_a + area_b - inter)


@kernel("f32* a, f32* b, f32* iou, i64 a_count, i64 b_count, i64 a_shared, i64 b_shared, i64 count")
def rotated_box_iou_pairs(a: Any, b: Any, iou: Any, a_count: int, b_count: int, a_shared: int, b_shared: int, count: int) -> None:
    """Every box of a with every box of b, image by image."""
    room = cuda.local.array(ROOM, np.float32)
    i = cuda.grid(1)
    if i < count:
        k, m, image = i % b_count, i // b_count % a_count, i // b_count // a_count
        if a_shared == 0:
            m += image * a_count
        if b_shared == 0:
            k += image * b_count
        iou[i] = rotated_iou(a, m * 5, b, k * 5, room)


# -- launch --


def rotated_box_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU [N, M, K] of boxes [N or 1, M, 5] and [N or 1, K, 5], computed in float32."""
    shape = (max(a.shape[0], b.shape[0]), a.shape[1], b.shape[1])
    iou = torch.empty(shape, dtype=torch.float32, device=a.device)
    shared, count = (int(a.shape[0] == 1), int(b.shape[0] == 1)), iou.numel()
    given = (a.float().contiguous(), b.float().contiguous(), iou, shape[1], shape[2], *shared, count)
    rotated_box_iou_pairs.launch(torch.float32, a.device, blocks_for(count), THREADS, *given)
    return iou.to(a.dtype)
