"""Kernels of Soft-NMS (a block per image and group, one box a round) and Matrix NMS (a thread per box).

Boxes and scores come sorted: groups stand together, by falling score. `current` holds the scores as they are lowered, minus
infinity for a box that was taken; `final` those that are returned, in the same order.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import THREADS, blocks_for, cuda, device, kernel, product
from ops_cuda.kernels.nms import float32_at_least, grouped
from ops_cuda.soft_nms import Decay, best_of

TAKEN = np.float32(-math.inf)


@device
def _iou(boxes: Any, i: int, j: int) -> Any:
    """Overlap of two rows, rounded as on the CPU."""
    width = min(boxes[4 * i + 2], boxes[4 * j + 2]) - max(boxes[4 * i], boxes[4 * j])
    height = min(boxes[4 * i + 3], boxes[4 * j + 3]) - max(boxes[4 * i + 1], boxes[4 * j + 1])
    if not (width > np.float32(0) and height > np.float32(0)):
        return np.float32(0)
    inter = product(width, height)
    area_i = product(boxes[4 * i + 2] - boxes[4 * i], boxes[4 * i + 3] - boxes[4 * i + 1])
    area_j = product(boxes[4 * j + 2] - boxes[4 * j], boxes[4 * j + 3] - boxes[4 * j + 1])
    return inter / (area_i + area_j - inter)


@kernel("f32* boxes, i64* starts, f32* current, f32* final, i64 rows, i64 groups, i64 most, i64 gaussian, f32 width, f32 floor")
def soft_nms_rounds(
    boxes: Any, starts: Any, current: Any, final: Any, rows: int, groups: int, most: int, gaussian: int, width: Any, floor: Any
) -> None:
    """Take the best, lower the others, until the best is below the floor, or enough are taken and it is worse than the last."""
    score = cuda.shared.array(THREADS, np.float32)
    place = cuda.shared.array(THREADS, np.int64)
    t = cuda.threadIdx.x
    image, group = cuda.blockIdx.x // groups, cuda.blockIdx.x % groups
    begin = image * rows + starts[image * (groups + 1) + group]
    end = image * rows + starts[image * (groups + 1) + group + 1]
    taken, last = 0, np.float32(math.inf)
    for _ in range(end - begin):
        best, at = TAKEN, end
        for i in range(begin + t, end, THREADS):
            if current[i] > best:
                best, at = current[i], i
        score[t], place[t] = best, at
        half = THREADS // 2
        while half > 0:
            cuda.syncthreads()
            if t < half:
                other, there = score[t + half], place[t + half]
                if other > score[t] or (other == score[t] and there < place[t]):
                    score[t], place[t] = other, there
            half //= 2
        cuda.syncthreads()
        best, at = score[0], place[0]
        cuda.syncthreads()
        if not best >= floor or (taken >= most and best < last):  # of equal scores the first rows are returned: all are found
            break
        taken, last = taken + 1, best
        for i in range(begin + t, end, THREADS):
            if i == at:
                final[i], current[i] = best, TAKEN
            elif current[i] > TAKEN:
                overlap = _iou(boxes, at, i)
                if gaussian != 0:
                    current[i] *= math.exp(-overlap * overlap / width)
                elif overlap > width:
                    current[i] *= np.float32(1) - overlap


@kernel("f32* boxes, i64* starts, i64* group, f32* most, i64 rows, i64 groups, i64 count")
def matrix_nms_most(boxes: Any, starts: Any, group: Any, most: Any, rows: int, groups: int, count: int) -> None:
    """Each box's greatest overlap with a better one of its group."""
    i = cuda.grid(1)
    if i < count and group[i] >= 0:
        image = i // rows
        found = np.float32(0)
        for other in range(image * rows + starts[image * (groups + 1) + group[i]], i):
            found = max(found, _iou(boxes, other, i))
        most[i] = found


@kernel(
    "f32* boxes, i64* starts, i64* group, f32* most, f32* current, f32* final, i64 rows, i64 groups, i64 count, i64 gaussian, "
    "f32 width, f32 floor"
)
def matrix_nms_lower(
    boxes: Any, starts: Any, group: Any, most: Any, current: Any, final: Any, rows: int, groups: int, count: int,
    gaussian: int, width: Any, floor: Any,
) -> None:  # fmt: skip
    """Each box's score by the strongest decay over the better ones of its group."""
    i = cuda.grid(1)
    if i < count and group[i] >= 0:
        image, one = i // rows, np.float32(1)
        lowest = one
        for other in range(image * rows + starts[image * (groups + 1) + group[i]], i):
            overlap, own = _iou(boxes, other, i), most[other]
            if gaussian != 0:
                lowest = min(lowest, np.float32(math.exp((product(own, own) - product(overlap, overlap)) / width)))
            elif own < one:
                lowest = min(lowest, (one - overlap) / (one - own))
        if current[i] * lowest >= floor:
            final[i] = current[i] * lowest


# -- launch --


def soft_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, group_count: int, decay: int, width: float, floor: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, lowered scores and counts."""
    images, rows = scores.shape
    if rows == 0:
        return best_of(scores.float(), limit)
    order, rank, starts, group = grouped(scores, groups, group_count)
    row = order.gather(1, rank)
    sorted_boxes = boxes.float().gather(1, row.unsqueeze(2).expand(-1, -1, 4)).contiguous()
    current = scores.float().gather(1, row)
    final = torch.full_like(current, -math.inf)
    floor = float32_at_least(floor)
    gaussian, count = int(decay in (Decay.GAUSSIAN, Decay.MATRIX_GAUSSIAN)), images * rows
    if decay in (Decay.MATRIX_LINEAR, Decay.MATRIX_GAUSSIAN):
        most, launch = torch.zeros_like(current), (torch.float32, boxes.device, blocks_for(count), THREADS)
        given = (sorted_boxes, starts, group, most)
        matrix_nms_most.launch(*launch, *given, rows, group_count, count)
        matrix_nms_lower.launch(*launch, *given, current, final, rows, group_count, count, gaussian, width, floor)
    else:
        rest = (sorted_boxes, starts, current, final, rows, group_count, limit, gaussian, width, floor)
        soft_nms_rounds.launch(torch.float32, boxes.device, images * group_count, THREADS, *rest)
    return best_of(torch.full_like(final, -math.inf).scatter(1, row, final), limit)
