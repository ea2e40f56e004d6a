"""Suppression that lowers scores instead of dropping boxes: Soft-NMS and Matrix NMS of padded batches.

What: within each (row of the batch, group) a box's score is multiplied by a decay for the better boxes it overlaps.
Soft-NMS takes the best box, lowers all others by their IoU with it, and goes on: linear, 1 - IoU from IoU `width` on; Gaussian,
exp(-IoU^2 / width). Matrix NMS does it at once, by the strongest decay over better boxes, each relative to what that box suffers
itself: linear, (1 - IoU) / (1 - its greatest IoU with a better one), where copies of better boxes count for nothing; Gaussian,
exp((its greatest^2 - IoU^2) / width). Boxes whose score ends below `floor` are dropped.
Limits: IoU and scores in float32; boxes (x1, y1, x2, y2) with x2 >= x1; finite scores of real rows; `floor` >= 0. Equal scores
keep the order of their rows. Work is quadratic in a group's boxes.
Source: Bodla et al. 2017 (Soft-NMS), algorithm 1; Wang et al. 2020 (SOLOv2), section 3.3. No gradient.
CUDA: a block per (row, group) for Soft-NMS, a thread per box for Matrix NMS; near the CPU to the last bits of exp.
"""

import enum
import math

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda


class Decay(enum.IntEnum):
    """How an overlap lowers a score."""

    LINEAR = 0
    GAUSSIAN = 1
    MATRIX_LINEAR = 2
    MATRIX_GAUSSIAN = 3


def soft_nms(
    boxes_NK4: Tensor,
    scores_NK: Tensor,
    groups_NK: Tensor,
    group_count: int,
    decay: Decay,
    width: float,
    floor: float,
    limit: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Rows [N, limit] (by falling lowered score, -1 = padding), those scores (float32, 0 in padding) and counts [N].

    Rows and counts are int64. `groups` (int64) are 0..group_count-1; -1 marks a padded row. `MATRIX_LINEAR` has no `width`.
    """
    index_NL, score_NL, count_N = torch.ops.detectline.soft_nms(
        boxes_NK4.detach(), scores_NK.detach(), groups_NK, group_count, int(decay), width, floor, limit
    )
    return index_NL, score_NL, count_N


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _iou(a: np.ndarray, b: np.ndarray) -> np.float32:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if not (width > 0 and height > 0):
        return np.float32(0)
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _soft(
    boxes: np.ndarray, scores: np.ndarray, rows: np.ndarray, gaussian: bool, width: float, floor: float, final: np.ndarray
) -> None:
    """One group, by falling score: the lowered scores of the boxes taken."""
    one, wide = np.float32(1), np.float32(width)
    current, taken = scores[rows], np.zeros(len(rows), np.bool_)
    for _ in range(len(rows)):
        best = -1
        for j in range(len(rows)):
            if not taken[j] and (best < 0 or current[j] > current[best]):
                best = j
        if not current[best] >= floor:
            return
        taken[best] = True
        final[rows[best]] = current[best]
        for j in range(len(rows)):
            if not taken[j]:
                iou = _iou(boxes[rows[best]], boxes[rows[j]])
                if gaussian:
                    current[j] *= math.exp(-iou * iou / wide)
                elif iou > wide:
                    current[j] *= one - iou


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _matrix(
    boxes: np.ndarray, scores: np.ndarray, rows: np.ndarray, gaussian: bool, width: float, floor: float, final: np.ndarray
) -> None:
    """One group, by falling score."""
    one, wide = np.float32(1), np.float32(width)
    most = np.zeros(len(rows), np.float32)
    for j in range(len(rows)):
        lowest = one
        for i in range(j):
            iou = _iou(boxes[rows[i]], boxes[rows[j]])
            most[j] = max(most[j], iou)
            if gaussian:
                lowest = min(lowest, np.float32(math.exp((most[i] * most[i] - iou * iou) / wide)))
            elif most[i] < one:
                lowest = min(lowest, (one - iou) / (one - most[i]))
        if scores[rows[j]] * lowest >= floor:
            final[rows[j]] = scores[rows[j]] * lowest


def _soft_nms_cpu(
    boxes: Tensor, scores: Tensor, groups: Tensor, group_count: int, decay: int, width: float, floor: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    lower = _matrix if decay in (Decay.MATRIX_LINEAR, Decay.MATRIX_GAUSSIAN) else _soft
    gaussian = decay in (Decay.GAUSSIAN, Decay.MATRIX_GAUSSIAN)
    boxes_np, scores_np = boxes.float().contiguous().numpy(), scores.float().contiguous().numpy()
    final = torch.full(scores.shape, -math.inf)
    for n, (group, image_final) in enumerate(zip(groups.numpy(), final.numpy(), strict=True)):
        order = np.argsort(-scores_np[n], kind="stable")
        for number in range(group_count):
            lower(boxes_np[n], scores_np[n], order[group[order] == number], gaussian, width, floor, image_final)
    return best_of(final, limit)


def best_of(final: Tensor, limit: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, scores and counts of the best `limit`; minus infinity marks rows that were dropped."""
    score, index = torch.sort(final, dim=1, descending=True, stable=True)
    missing = max(0, limit - final.shape[1])
    score = torch.nn.functional.pad(score[:, :limit], (0, missing), value=-math.inf)
    index = torch.nn.functional.pad(index[:, :limit], (0, missing))
    kept = score > -math.inf
    return index.masked_fill(~kept, -1), score.masked_fill(~kept, 0), kept.sum(1)


# -- registration: schema, fake --


def _soft_nms_fake(
    boxes: Tensor, scores: Tensor, groups: Tensor, group_count: int, decay: int, width: float, floor: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    rows = boxes.shape[0]
    index, score = boxes.new_empty((rows, limit), dtype=torch.int64), boxes.new_empty((rows, limit), dtype=torch.float32)
    return index, score, boxes.new_empty((rows,), dtype=torch.int64)


LIBRARY.define(
    "soft_nms(Tensor boxes, Tensor scores, Tensor groups, int group_count, int decay, float width, float floor, int limit) "
    "-> (Tensor index, Tensor score, Tensor count)"
)
LIBRARY.impl("soft_nms", _soft_nms_cpu, "CPU")
on_cuda("soft_nms", "soft_nms", "soft_nms")
torch.library.register_fake("detectline::soft_nms", _soft_nms_fake, lib=LIBRARY)
