"""Non-maximum suppression of padded batches of rotated boxes (cx, cy, w, h, degrees).

What: as `nms`, with the IoU of turned rectangles: greedy within each (row of the batch, group), a box goes when its IoU with a
kept box of its group exceeds the threshold, equal scores keep the earlier box.
Limits: IoU in float64; finite boxes and scores in real rows (mark others as padding). Boxes without area suppress nothing.
Source: Ma et al. 2018 (RRPN), section IV-C. No gradient, and no ONNX form: rotated detectors export what comes before it.
CUDA: the kernel of `nms` with this overlap in float32: an IoU within its rounding of the threshold may decide otherwise.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda
from ops_cuda.rotated_box_iou import MOST_CORNERS, rotated_iou


def nms_rotated(
    boxes_NK5: Tensor, scores_NK: Tensor, groups_NK: Tensor, group_count: int, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Kept indices [N, limit] (int64, by falling score over all groups, -1 = padding) and their counts [N] (int64).

    `groups` (int64) are 0..group_count-1; -1 marks a padded row, which is neither kept nor suppresses.
    """
    index_NL, count_N = torch.ops.detectline.nms_rotated(
        boxes_NK5.detach(), scores_NK.detach(), groups_NK, group_count, threshold, limit
    )
    return index_NL, count_N


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _nms_row(
    boxes: np.ndarray, scores: np.ndarray, groups: np.ndarray, group_count: int, threshold: float, index: np.ndarray
) -> int:
    """Fill `index` with the kept rows and return how many. Kept boxes of a group form a chain: only they are compared."""
    room = np.empty((4, MOST_CORNERS))
    real = np.nonzero(groups >= 0)[0]
    order = real[np.argsort(-scores[real], kind="mergesort")]
    newest = np.full(group_count, -1, np.int64)
    chain = np.empty(len(index), np.int64)
    kept = 0
    for position in range(len(order)):
        if kept == len(index):
            break
        i = order[position]
        suppressed = False
        k = newest[groups[i]]
        while k >= 0 and not suppressed:
            suppressed = rotated_iou(boxes[i], boxes[index[k]], room) > threshold
            k = chain[k]
        if not suppressed:
            index[kept] = i
            chain[kept] = newest[groups[i]]
            newest[groups[i]] = kept
            kept += 1
    return kept


def _nms_cpu(
    boxes: Tensor, scores: Tensor, groups: Tensor, group_count: int, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    index = torch.full((boxes.shape[0], limit), -1, dtype=torch.int64)
    count = torch.zeros(boxes.shape[0], dtype=torch.int64)
    boxes_np, scores_np = boxes.float().contiguous().numpy(), scores.float().contiguous().numpy()
    groups_np, index_np = groups.contiguous().numpy(), index.numpy()
    for n in range(len(boxes_np)):
        count[n] = _nms_row(boxes_np[n], scores_np[n], groups_np[n], group_count, threshold, index_np[n])
    return index, count


def _nms_fake(
    boxes: Tensor, scores: Tensor, groups: Tensor, group_count: int, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    rows = boxes.shape[0]
    return boxes.new_empty((rows, limit), dtype=torch.int64), boxes.new_empty((rows,), dtype=torch.int64)


# -- registration: schema, fake --

LIBRARY.define(
    "nms_rotated(Tensor boxes, Tensor scores, Tensor groups, int group_count, float threshold, int limit) -> (Tensor, Tensor)"
)
LIBRARY.impl("nms_rotated", _nms_cpu, "CPU")
on_cuda("nms_rotated", "nms_rotated", "nms_rotated")
torch.library.register_fake("detectline::nms_rotated", _nms_fake, lib=LIBRARY)
