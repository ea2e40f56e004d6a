"""The kernel of rotated NMS: that of upright boxes with the overlap of turned rectangles, in float32."""

from typing import Any

from torch import Tensor

from ops_cuda._numba import device
from ops_cuda.kernels.nms import greedy, keep_kernel
from ops_cuda.kernels.rotated_box_iou import ROOM, rotated_iou


@device
def _exceeds(a: Any, i: int, b: Any, j: int, limit: Any, room: Any) -> Any:
    return rotated_iou(a, i, b, j, room) > limit


nms_rotated_keep = keep_kernel("nms_rotated_keep", 5, ROOM, 8, _exceeds)


def nms_rotated(
    boxes: Tensor, scores: Tensor, groups: Tensor, group_count: int, threshold: float, limit: int
) -> tuple[Tensor, Tensor]:
    """Kept indices [N, limit] and counts [N]."""
    return greedy(nms_rotated_keep, boxes, scores, groups, group_count, threshold, limit)
