"""Kernel of the overlap of boxes: one pair a thread, every kind, in float32."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import HALF_TYPES, THREADS, blocks_for, cuda, kernel, load, product, store

KINDS = ("iou", "ioa", "giou", "diou", "ciou")


@kernel("T* a, T* b, T* overlap, i64 a_count, i64 b_count, i64 a_shared, i64 b_shared, i64 count, i64 kind", HALF_TYPES)
def box_iou_pairs(
    a: Any, b: Any, overlap: Any, a_count: int, b_count: int, a_shared: int, b_shared: int, count: int, kind: int
) -> None:
    """Every box of a with every box of b, image by image; `kind` is the place in KINDS."""
    i = cuda.grid(1)
    if i >= count:
        return
    k, m, image = i % b_count, i // b_count % a_count, i // b_count // a_count
    if a_shared == 0:
        m += image * a_count
    if b_shared == 0:
        k += image * b_count
    x1, y1, x2, y2 = load(a, 4 * m), load(a, 4 * m + 1), load(a, 4 * m + 2), load(a, 4 * m + 3)
    u1, v1, u2, v2 = load(b, 4 * k), load(b, 4 * k + 1), load(b, 4 * k + 2), load(b, 4 * k + 3)
    zero, one, epsilon = np.float32(0), np.float32(1), np.float32(1e-7)
    inter = product(max(min(x2, u2) - max(x1, u1), zero), max(min(y2, v2) - max(y1, v1), zero))
    area_b = product(u2 - u1, v2 - v1)
    union = product(x2 - x1, y2 - y1) + area_b - inter
    wide, high = max(x2, u2) - min(x1, u1), max(y2, v2) - min(y1, v1)  # of the box around both
    if kind == 0:  # a coordinate that is no number leaves min and max on a GPU, but not the union
        value = zero
        if inter > zero and union == union:
            value = inter / union
    elif kind == 1:
        value = zero
        if inter > zero and union == union:
            value = inter / area_b
    elif kind == 2:
        around = product(wide, high)
        value = inter / (union + epsilon) - (around - union) / (around + epsilon)
    else:
        right, down = ((x1 + x2) - (u1 + u2)) * np.float32(0.5), ((y1 + y2) - (v1 + v2)) * np.float32(0.5)
        smooth = inter / (union + epsilon)
        value = smooth - (right * right + down * down) / (wide * wide + high * high + epsilon)
        if kind == 4:
            angle = math.atan((u2 - u1) / (v2 - v1)) - math.atan((x2 - x1) / (y2 - y1))
            shape = np.float32(4 / math.pi**2) * angle * angle
            value -= shape / (one - smooth + shape + epsilon) * shape
    store(overlap, i, value)


# -- launch --


def box_iou(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """Overlap [N, M, K] of boxes [N or 1, M, 4] and [N or 1, K, 4] of one dtype."""
    shape = (*torch.broadcast_shapes(a.shape[:1], b.shape[:1]), a.shape[1], b.shape[1])
    overlap, count = a.new_empty(shape), math.prod(shape)
    shared = (int(a.shape[0] == 1), int(b.shape[0] == 1))
    given = (a.contiguous(), b.contiguous(), overlap, shape[1], shape[2], *shared, count, KINDS.index(kind))
    box_iou_pairs.launch(a.dtype, a.device, blocks_for(count), THREADS, *given)
    return overlap
