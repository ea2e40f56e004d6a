"""Kernels of greedy NMS: one block per (image, group), whose boxes stand together by falling score. No matrix, no host.

A block takes CHUNK boxes at a time. All threads compare them with the group's kept boxes, then with one another; one thread walks
the CHUNK x CHUNK bits; survivors join the kept ones. A group stops at `limit` kept boxes: no more of it can be returned.
Work is boxes x kept boxes of a group. Many groups or images fill the device; a single group of many boxes has one block.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ops_cuda._numba import SIMULATED, THREADS, Kernel, blocks_for, cuda, device, kernel, product

CHUNK = 8 if SIMULATED else 64


def keep_kernel(name: str, sides: int, room_size: int, lanes: int, exceeds: Callable[..., Any]) -> Kernel:
    """NMS of boxes with `sides` numbers; each box of a chunk has `lanes` threads, which share its comparisons.

    `exceeds(a, i, b, j, limit, room)` says whether boxes a[i] and b[j] overlap too much, with `room_size` float32 to work in.
    """
    lanes = 2 if SIMULATED else lanes
    chunk_sides, columns = CHUNK * sides, CHUNK // lanes

    def keep(
        boxes: Any, order: Any, rank: Any, starts: Any, kept: Any, flags: Any, rows: int, groups: int, most: int, limit: Any
    ) -> None:
        box = cuda.shared.array(chunk_sides, np.float32)
        room = cuda.local.array(room_size, np.float32)
        alive = cuda.shared.array(CHUNK, np.int32)
        part = cuda.shared.array((CHUNK, lanes), np.int64)
        slot = cuda.shared.array(CHUNK, np.int64)
        total = cuda.shared.array(1, np.int64)
        t = cuda.threadIdx.x
        mine, lane = t // lanes, t % lanes
        image, group = cuda.blockIdx.x // groups, cuda.blockIdx.x % groups
        begin, end = starts[image * (groups + 1) + group], starts[image * (groups + 1) + group + 1]
        base = image * rows  # of this image's rows
        own = (base + begin) * sides  # of this group's kept boxes
        count, at = 0, begin
        while at < end and count < most:
            size = min(CHUNK, end - at)
            cuda.syncthreads()
            if t < CHUNK:
                alive[t] = 0
                if t < size:
                    alive[t] = 1
                    row = base + order[base + rank[base + at + t]]
                    for side in range(sides):
                        box[t * sides + side] = boxes[row * sides + side]
            cuda.syncthreads()
            if mine < size:
                k = lane
                while k < count:
                    if exceeds(box, mine * sides, kept, own + k * sides, limit, room):
                        alive[mine] = 0
                        break
                    k += lanes
                bits = 0
                for column in range(lane * columns, lane * columns + columns):
                    if mine < column and column < size and exceeds(box, mine * sides, box, column * sides, limit, room):
                        bits |= 1 << column
                part[mine, lane] = bits
            cuda.syncthreads()
            if lane == 0 and mine < size:
                bits = 0
                for other in range(lanes):
                    bits |= part[mine, other]
                part[mine, 0] = bits
            cuda.syncthreads()
            if t == 0:
                gone, found = 0, count
                for i in range(size):
                    bits = part[i, 0]
                    slot[i] = -1
                    if alive[i] != 0 and (gone >> i) & 1 == 0:
                        gone |= bits
                        slot[i] = found
                        found += 1
                total[0] = found
            cuda.syncthreads()
            if t < size and slot[t] >= 0:
                for side in range(sides):
                    kept[own + slot[t] * sides + side] = box[t * sides + side]
                flags[base + rank[base + at + t]] = np.uint8(1)
            count = total[0]
            at += CHUNK

    parameters = "f32* boxes, i64* order, i64* rank, i64* starts, f32* kept, u8* flags, i64 rows, i64 groups, i64 most, f32 limit"
    return Kernel(name, parameters, {torch.float32: keep}, CHUNK * lanes)


@device
def _exceeds(a: Any, i: int, b: Any, j: int, limit: Any, _: Any) -> Any:
    """Intersection over union above the limit, rounded as on the CPU."""
    x1, y1, x2, y2 = a[i], a[i + 1], a[i + 2], a[i + 3]
    u1, v1, u2, v2 = b[j], b[j + 1], b[j + 2], b[j + 3]
    width = max(np.float32(0), min(x2, u2) - max(x1, u1))
    height = max(np.float32(0), min(y2, v2) - max(y1, v1))
    inter = product(width, height)
    union = product(x2 - x1, y2 - y1) + product(u2 - u1, v2 - v1) - inter
    return inter / union > limit


nms_keep = keep_kernel("nms_keep", 4, 1, 16, _exceeds)


@kernel("u8* flags, i64* place, i64* order, i64* index, i64 rows, i64 limit, i64 count")
def nms_gather(flags: Any, place: Any, order: Any, index: Any, rows: int, limit: int, count: int) -> None:
    """Kept rows to their place among the kept, by falling score."""
    i = cuda.grid(1)
    if i < count and flags[i] != 0 and place[i] <= limit:
        index[i // rows * limit + place[i] - 1] = order[i]


# -- launch --


def float32_below(threshold: float) -> float:
    """The largest float32 that is no larger: a float32 exceeds both or neither, so the CPU's comparison in float64 is met."""
    rounded = np.float32(threshold)
    return float(rounded if rounded <= threshold else np.nextafter(rounded, np.float32(-math.inf)))


def float32_at_least(score: float) -> float:
    """The smallest float32 that is not below a float64: a float32 is not below both or neither."""
    rounded = np.float32(score)
    return float(rounded if float(rounded) >= score else np.nextafter(rounded, np.float32(math.inf)))


def grouped(scores: Tensor, groups: Tensor, group_count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows by falling score, padding last; places in that order, groups together; each group's first place; places' groups."""
    keys = scores.float().masked_fill(groups < 0, -math.inf)
    order = torch.sort(keys, dim=1, descending=True, stable=True).indices
    sorted_groups = groups.to(torch.int64).gather(1, order)
    if group_count == 1:  # padding stands last already
        rank = torch.arange(order.shape[1], device=order.device).expand_as(order).contiguous()
        return order, rank, functional.pad((sorted_groups >= 0).sum(1, keepdim=True), (1, 0)), sorted_groups
    sorted_groups, rank = torch.sort(sorted_groups, dim=1, stable=True)
    numbers = torch.arange(group_count + 1, device=scores.device).expand(len(scores), -1).contiguous()
    return order, rank, torch.searchsorted(sorted_groups, numbers), sorted_groups


def greedy(
    keep: Kernel, boxes: Tensor, scores: Tensor, groups: Tensor, group_count: int, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Sort, keep and gather, for any kind of boxes [N, K, sides]."""
    images, rows = scores.shape
    index = torch.full((images, limit), -1, dtype=torch.int64, device=boxes.device)
    if images == 0 or rows == 0 or limit == 0:
        return index, torch.zeros(images, dtype=torch.int64, device=boxes.device)
    boxes = boxes.float().contiguous()
    order, rank, starts, _ = grouped(scores, groups, group_count)
    kept, flags = torch.empty_like(boxes), torch.zeros(images, rows, dtype=torch.uint8, device=boxes.device)
    given = (boxes, order, rank, starts, kept, flags, rows, group_count, limit, float32_below(threshold))
    keep.launch(torch.float32, boxes.device, images * group_count, keep.threads, *given)
    place = flags.cumsum(1, dtype=torch.int64)
    gathered = (flags, place, order, index, rows, limit, images * rows)
    nms_gather.launch(torch.float32, boxes.device, blocks_for(images * rows), THREADS, *gathered)
    return index, place[:, -1].clamp(max=limit)


def nms(boxes: Tensor, scores: Tensor, groups: Tensor, group_count: int, threshold: float, limit: int) -> tuple[Tensor, Tensor]:
    """Kept indices [N, limit] and counts [N]."""
    return greedy(nms_keep, boxes, scores, groups, group_count, threshold, limit)
