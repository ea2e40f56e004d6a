"""Non-maximum suppression of padded batches.

What: greedy NMS within each (row of the batch, group); groups are classes or FPN levels, told apart by number and not by shifting
coordinates. A box goes when `intersection / union > threshold` with a kept box of its group. Equal scores keep the earlier box,
as torch's stable sort.
Limits: IoU in float32; boxes (x1, y1, x2, y2) with x2 >= x1; scores of real rows are finite (mark others as padding).
Source: the greedy method of Faster R-CNN (Ren et al. 2015). No gradient.
CUDA: one block per (row, group) after a sort by torch; equal to the CPU bit for bit.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda


def nms(
    boxes_NK4: Tensor, scores_NK: Tensor, groups_NK: Tensor, group_count: int, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Kept indices [N, limit] (int64, by falling score over all groups, -1 = padding) and their counts [N] (int64).

    `groups` (int64) are 0..group_count-1; -1 marks a padded row, which is neither kept nor suppresses.
    """
    index_NL, count_N = torch.ops.detectline.nms(boxes_NK4.detach(), scores_NK.detach(), groups_NK, group_count, threshold, limit)
    return index_NL, count_N


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _nms_row(
    boxes: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    group_count: int,
    threshold: float,
    index: np.ndarray,
) -> int:
    """Fill `index` with the kept rows and return how many. Kept boxes of a group form a chain: only they are compared."""
    real = np.nonzero(groups >= 0)[0]
    order = real[np.argsort(-scores[real], kind="mergesort")]
    newest = np.full(group_count, -1, np.int64)
    chain = np.empty(len(index), np.int64)
    kept = 0
    for position in range(len(order)):
        if kept == len(index):
            break
        i = order[position]
        x1, y1, x2, y2 = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
        area = (x2 - x1) * (y2 - y1)
        suppressed = False
        k = newest[groups[i]]
        while k >= 0:
            other = boxes[index[k]]
            width = max(np.float32(0), min(x2, other[2]) - max(x1, other[0]))
            height = max(np.float32(0), min(y2, other[3]) - max(y1, other[1]))
            inter = width * height
            union = area + (other[2] - other[0]) * (other[3] - other[1]) - inter
            if inter / union > threshold:
                suppressed = True
                break
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


# -- registration: schema, fake, ONNX --


def _nms_fake(
    boxes: Tensor, scores: Tensor, groups: Tensor, group_count: int, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    rows = boxes.shape[0]
    return boxes.new_empty((rows, limit), dtype=torch.int64), boxes.new_empty((rows,), dtype=torch.int64)


LIBRARY.define("nms(Tensor boxes, Tensor scores, Tensor groups, int group_count, float threshold, int limit) -> (Tensor, Tensor)")
LIBRARY.impl("nms", _nms_cpu, "CPU")
on_cuda("nms", "nms", "nms")
torch.library.register_fake("detectline::nms", _nms_fake, lib=LIBRARY)


def onnx_translation() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The op and its form in standard ONNX operators: one NonMaxSuppression over scores [N, groups, K], then the best `limit`."""
    from onnxscript import opset20

    op: Any = opset20  # its own types say that a constant may be of any type, and refuse it as an index
    lowest = float(np.finfo(np.float32).min)

    # Untyped tensor arguments: onnxscript reads annotations as attributes.
    def nms_onnx(boxes, scores, groups, group_count: int, threshold: float, limit: int):  # type: ignore[no-untyped-def]
        outside = op.Constant(value_floats=[float("-inf")])
        numbers = op.Constant(value_ints=list(range(group_count)))
        mine = op.Equal(op.Unsqueeze(groups, op.Constant(value_ints=[1])), op.Unsqueeze(numbers, op.Constant(value_ints=[0, 2])))
        scores_NGK = op.Where(mine, op.Unsqueeze(scores, op.Constant(value_ints=[1])), outside)
        kept_S3 = op.NonMaxSuppression(
            boxes,
            scores_NGK,
            op.Constant(value_ints=[limit]),
            op.Constant(value_floats=[threshold]),
            op.Constant(value_floats=[lowest]),
        )
        row_and_box = op.Gather(kept_S3, op.Constant(value_ints=[0, 2]), axis=1)
        best = op.ScatterND(op.Expand(outside, op.Shape(scores)), row_and_box, op.GatherND(scores, row_and_box))
        padding = op.Expand(outside, op.Concat(op.Shape(scores, start=0, end=1), op.Constant(value_ints=[limit]), axis=0))
        value_NL, index_NL = op.TopK(op.Concat(best, padding, axis=1), op.Constant(value_ints=[limit]), axis=1)
        is_kept = op.Greater(value_NL, outside)
        count = op.ReduceSum(op.Cast(is_kept, to=7), op.Constant(value_ints=[1]), keepdims=0)
        return op.Where(is_kept, index_NL, op.Constant(value_ints=[-1])), count

    return torch.ops.detectline.nms.default, nms_onnx
