"""Kernels of matching: each thread keeps one box's best truth, truths pass by in shared memory; no matrix.

The best IoU of a truth is an atomic maximum over the bits of a float32 that is not negative: first within the block, and only
where a value exceeds what is there, so that few updates are made. The low-quality pass computes the overlaps again.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import THREADS, atomic_max, blocks_for, cuda, device, float_bits, kernel, product

MOST_THRESHOLDS = 4


@device
def _iou(x1: Any, y1: Any, x2: Any, y2: Any, u1: Any, v1: Any, u2: Any, v2: Any) -> Any:
    """Rounded as on the CPU, operation by operation: thresholds and ties decide alike."""
    width = min(x2, u2) - max(x1, u1)
    height = min(y2, v2) - max(y1, v1)
    if not (width > np.float32(0) and height > np.float32(0)):
        return np.float32(0)
    inter = product(width, height)
    return inter / (product(x2 - x1, y2 - y1) + product(u2 - u1, v2 - v1) - inter)


@kernel(
    "f32* boxes, f32* truths, u8* valid, i32* best_bits, i64* match, i8* label, i64 per_image, i64 shared_boxes, i64 count, "
    "i64 truth_count, f32 limit_0, f32 limit_1, f32 limit_2, f32 limit_3, i64 labels"
)
def match_boxes_best(
    boxes: Any, truths: Any, valid: Any, best_bits: Any, match: Any, label: Any, per_image: int, shared_boxes: int, count: int,
    truth_count: int, limit_0: Any, limit_1: Any, limit_2: Any, limit_3: Any, labels: int,
) -> None:  # fmt: skip
    """Best truth and label of each box, and the best IoU of each truth."""
    corner = cuda.shared.array((4, THREADS), np.float32)
    usable = cuda.shared.array(THREADS, np.int32)
    most = cuda.shared.array(THREADS, np.int32)
    t = cuda.threadIdx.x
    image = cuda.blockIdx.x // per_image
    a = (cuda.blockIdx.x % per_image) * THREADS + t
    x1, y1, x2, y2 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    if a < count:
        at = a * 4
        if shared_boxes == 0:
            at += image * count * 4
        x1, y1, x2, y2 = boxes[at], boxes[at + 1], boxes[at + 2], boxes[at + 3]
    best, chosen = np.float32(-1), 0
    for start in range(0, truth_count, THREADS):
        tile = min(THREADS, truth_count - start)
        cuda.syncthreads()
        if t < tile:
            g = image * truth_count + start + t
            for side in range(4):
                corner[side, t] = truths[g * 4 + side]
            usable[t] = valid[g]
            most[t] = 0
        cuda.syncthreads()
        if a < count:
            for g in range(tile):
                if usable[g] != 0:
                    overlap = _iou(x1, y1, x2, y2, corner[0, g], corner[1, g], corner[2, g], corner[3, g])
                    if overlap > best:
                        best, chosen = overlap, start + g
                    if overlap > np.float32(0) and float_bits(overlap) > most[g]:
                        atomic_max(most, g, float_bits(overlap))
        cuda.syncthreads()
        if t < tile and most[t] > 0:
            atomic_max(best_bits, image * truth_count + start + t, most[t])
    if a < count:
        interval = 0
        if best >= limit_0:
            interval = 1
        if best >= limit_1:
            interval = 2
        if best >= limit_2:
            interval = 3
        if best >= limit_3:
            interval = 4
        value = (labels >> (8 * interval)) & 255
        if value > 127:
            value -= 256
        match[image * count + a] = chosen
        label[image * count + a] = np.int8(value)


@kernel(
    "f32* boxes, f32* truths, u8* valid, i32* best_bits, i8* label, i64 per_image, i64 shared_boxes, i64 count, i64 truth_count"
)
def match_boxes_low_quality(
    boxes: Any, truths: Any, valid: Any, best_bits: Any, label: Any, per_image: int, shared_boxes: int, count: int,
    truth_count: int,
) -> None:  # fmt: skip
    """Label 1 for each box that ties the best IoU of any truth."""
    corner = cuda.shared.array((4, THREADS), np.float32)
    usable = cuda.shared.array(THREADS, np.int32)
    most = cuda.shared.array(THREADS, np.int32)
    t = cuda.threadIdx.x
    image = cuda.blockIdx.x // per_image
    a = (cuda.blockIdx.x % per_image) * THREADS + t
    x1, y1, x2, y2 = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
    if a < count:
        at = a * 4
        if shared_boxes == 0:
            at += image * count * 4
        x1, y1, x2, y2 = boxes[at], boxes[at + 1], boxes[at + 2], boxes[at + 3]
    tied = False
    for start in range(0, truth_count, THREADS):
        tile = min(THREADS, truth_count - start)
        cuda.syncthreads()
        if t < tile:
            g = image * truth_count + start + t
            for side in range(4):
                corner[side, t] = truths[g * 4 + side]
            usable[t] = valid[g]
            most[t] = best_bits[g]
        cuda.syncthreads()
        if a < count:
            for g in range(tile):
                if usable[g] != 0:
                    overlap = _iou(x1, y1, x2, y2, corner[0, g], corner[1, g], corner[2, g], corner[3, g])
                    if float_bits(overlap) == most[g]:
                        tied = True
    if tied:
        label[image * count + a] = np.int8(1)


# -- launch --


def match_boxes(
    boxes: Tensor, truths: Tensor, valid: Tensor, thresholds: list[float], labels: list[int], low_quality: bool
) -> tuple[Tensor, Tensor]:
    """Truth index [N, A] (int64) and label [N, A] (int8)."""
    if len(thresholds) > MOST_THRESHOLDS:
        raise ValueError(f"match_boxes: {len(thresholds)} thresholds; the CUDA kernel takes up to {MOST_THRESHOLDS}")
    images, truth_count, count = truths.shape[0], truths.shape[1], boxes.shape[1]
    boxes, truths, valid = boxes.float().contiguous(), truths.float().contiguous(), valid.bool().contiguous()
    match = torch.empty(images, count, dtype=torch.int64, device=boxes.device)
    label = torch.empty(images, count, dtype=torch.int8, device=boxes.device)
    best_bits = torch.zeros(images, truth_count, dtype=torch.int32, device=boxes.device)
    limits = [*thresholds, *[math.inf] * (MOST_THRESHOLDS - len(thresholds))]
    packed = sum((value & 255) << (8 * place) for place, value in enumerate(labels))
    per_image = blocks_for(count)
    where = (per_image, int(boxes.shape[0] == 1), count, truth_count)
    launch = (torch.float32, boxes.device, images * per_image, THREADS)
    match_boxes_best.launch(*launch, boxes, truths, valid, best_bits, match, label, *where, *limits, packed)
    if low_quality:
        match_boxes_low_quality.launch(*launch, boxes, truths, valid, best_bits, label, *where)
    return match, label
