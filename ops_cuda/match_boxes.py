"""Assign each box (anchor or proposal) to a truth by IoU thresholds.

What: a box takes the truth of its highest IoU (the first one on ties) and the label of the interval `low <= IoU < high` in which
that IoU falls. With `low_quality`, a box that ties the best IoU of any truth also gets label 1 and keeps its own match; so a
truth that overlaps nothing (best IoU 0) makes every zero-IoU box positive, as in the reference. Truths with valid False match
nothing.
Limits: IoU in float32; boxes (x1, y1, x2, y2) with x2 >= x1. Memory is O(boxes + truths): no matrix.
Source: Ren et al. 2015 (Faster R-CNN), section 3.1.2. No gradient.
CUDA: two kernels (one without `low_quality`), equal to the CPU bit for bit; up to 4 thresholds.
"""

from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda


def match_boxes(
    boxes_NA4: Tensor,
    truths_NG4: Tensor,
    valid_NG: Tensor,
    thresholds: Sequence[float],
    labels: Sequence[int],
    low_quality: bool,
) -> tuple[Tensor, Tensor]:
    """Truth index [N, A] (int64, 0 where nothing matches) and label [N, A] (int8).

    `boxes` is [N, A, 4], or [1, A, 4] for anchors shared by the batch. `labels` has one entry per interval: len(thresholds) + 1.
    """
    match_NA, label_NA = torch.ops.detectline.match_boxes(
        boxes_NA4.detach(), truths_NG4.detach(), valid_NG, list(thresholds), list(labels), low_quality
    )
    return match_NA, label_NA


def match_ious(
    iou_NGA: Tensor, valid_NG: Tensor, thresholds: Sequence[float], labels: Sequence[int], low_quality: bool
) -> tuple[Tensor, Tensor]:
    """The same assignment from a given matrix [N, G, A], for overlaps other than that of upright boxes."""
    iou_NGA = torch.where(valid_NG.unsqueeze(-1), iou_NGA, torch.full_like(iou_NGA, -1.0))
    best_NA, match_NA = iou_NGA.max(dim=1)
    label_NA = torch.full_like(match_NA, labels[0], dtype=torch.int8)
    for threshold, label in zip(thresholds, labels[1:], strict=True):
        label_NA = torch.where(best_NA >= threshold, torch.full_like(label_NA, label), label_NA)
    if low_quality:
        ties_NGA = (iou_NGA == iou_NGA.amax(dim=2, keepdim=True)) & valid_NG.unsqueeze(-1)
        label_NA = torch.where(ties_NGA.any(dim=1), torch.ones_like(label_NA), label_NA)
    return torch.where(best_NA < 0, torch.zeros_like(match_NA), match_NA), label_NA


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _iou(box: np.ndarray, area: np.float32, truth: np.ndarray, truth_area: np.float32) -> np.float32:
    width = min(box[2], truth[2]) - max(box[0], truth[0])
    height = min(box[3], truth[3]) - max(box[1], truth[1])
    if not (width > 0 and height > 0):
        return np.float32(0)
    inter = width * height
    return inter / (area + truth_area - inter)


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _match_image(
    boxes: np.ndarray,
    truths: np.ndarray,
    valid: np.ndarray,
    thresholds: np.ndarray,
    labels: np.ndarray,
    low_quality: bool,
    match: np.ndarray,
    label: np.ndarray,
) -> None:
    areas = (truths[:, 2] - truths[:, 0]) * (truths[:, 3] - truths[:, 1])
    best_of_truth = np.full(len(truths), -1, np.float32)
    for a in range(len(boxes)):
        box = boxes[a]
        area = (box[2] - box[0]) * (box[3] - box[1])
        best = np.float32(-1)
        for g in range(len(truths)):
            if valid[g]:
                overlap = _iou(box, area, truths[g], areas[g])
                if overlap > best:
                    best = overlap
                    match[a] = g
                if overlap > best_of_truth[g]:
                    best_of_truth[g] = overlap
        label[a] = labels[0]
        for t in range(len(thresholds)):
            if best >= thresholds[t]:
                label[a] = labels[t + 1]
    if low_quality:
        for a in range(len(boxes)):
            box = boxes[a]
            area = (box[2] - box[0]) * (box[3] - box[1])
            for g in range(len(truths)):
                if valid[g] and _iou(box, area, truths[g], areas[g]) == best_of_truth[g]:
                    label[a] = 1
                    break


def _match_boxes_cpu(
    boxes: Tensor, truths: Tensor, valid: Tensor, thresholds: list[float], labels: list[int], low_quality: bool
) -> tuple[Tensor, Tensor]:
    images, count = truths.shape[0], boxes.shape[1]
    match, label = torch.zeros(images, count, dtype=torch.int64), torch.zeros(images, count, dtype=torch.int8)
    boxes_np, truths_np = boxes.float().contiguous().numpy(), truths.float().contiguous().numpy()
    # float32, as a float32 IoU is compared with them on every device
    limits, values = np.array(thresholds, np.float32), np.array(labels, np.int8)
    for n in range(images):
        image_boxes = boxes_np[n if len(boxes_np) > 1 else 0]
        _match_image(image_boxes, truths_np[n], valid[n].numpy(), limits, values, low_quality, match[n].numpy(), label[n].numpy())
    return match, label


# -- registration --


def _match_boxes_fake(
    boxes: Tensor, truths: Tensor, valid: Tensor, thresholds: list[float], labels: list[int], low_quality: bool
) -> tuple[Tensor, Tensor]:
    shape = (truths.shape[0], boxes.shape[1])
    return boxes.new_empty(shape, dtype=torch.int64), boxes.new_empty(shape, dtype=torch.int8)


LIBRARY.define(
    "match_boxes(Tensor boxes, Tensor truths, Tensor valid, float[] thresholds, int[] labels, bool low_quality) "
    "-> (Tensor match, Tensor label)"
)
LIBRARY.impl("match_boxes", _match_boxes_cpu, "CPU")
on_cuda("match_boxes", "match_boxes", "match_boxes")
torch.library.register_fake("detectline::match_boxes", _match_boxes_fake, lib=LIBRARY)
