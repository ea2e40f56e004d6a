"""Overlap of boxes (x1, y1, x2, y2): IoU and its generalisations.

What: pairwise [M, K] or aligned [M] overlap. `iou` and `ioa` (intersection over b's area) are 0 where nothing overlaps; `giou`,
`diou` and `ciou` lie in [-1, 1] and carry gradients, with 1e-7 against division by zero.
Limits: float32 or float64; x2 >= x1. The pairwise form materialises the matrix: matching of many anchors is `match_boxes`.
Source: Rezatofighi et al. 2019 (GIoU), Zheng et al. 2020 (DIoU, CIoU).
CUDA: one kernel serves both forms, for float32 and half types (computed in float32); where a gradient is wanted, and in float64,
it is the same tensor expression as on the CPU, without synchronisation.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda

Overlap = Literal["iou", "ioa", "giou", "diou", "ciou"]
EPSILON = 1e-7


def box_iou(a_M4: Tensor, b_K4: Tensor, kind: Overlap = "iou") -> Tensor:
    """Overlap [..., M, K] of every box of a [..., M, 4] with every box of b [..., K, 4]; leading axes broadcast."""
    if _has_kernel(a_M4, b_K4):
        outer = torch.broadcast_shapes(a_M4.shape[:-2], b_K4.shape[:-2])
        a_NM4, b_NK4 = (_one_batch_axis(boxes, outer) for boxes in (a_M4, b_K4))
        pairs: Tensor = torch.ops.detectline.box_iou_pairs(a_NM4, b_NK4, kind)
        return pairs.view(*outer, a_M4.shape[-2], b_K4.shape[-2])
    return aligned_box_iou(a_M4.unsqueeze(-2), b_K4.unsqueeze(-3), kind)


def aligned_box_iou(a_M4: Tensor, b_M4: Tensor, kind: Overlap = "iou") -> Tensor:
    """Overlap [..., M] of box m of a with box m of b, both [..., M, 4]."""
    if _has_kernel(a_M4, b_M4):  # as batches of one pair
        a_M4, b_M4 = torch.broadcast_tensors(a_M4, b_M4)
        pairs: Tensor = torch.ops.detectline.box_iou_pairs(a_M4.reshape(-1, 1, 4), b_M4.reshape(-1, 1, 4), kind)
        return pairs.view(a_M4.shape[:-1])
    overlap: Tensor = torch.ops.detectline.box_iou(a_M4, b_M4, kind)
    return overlap


def _has_kernel(a: Tensor, b: Tensor) -> bool:
    differentiable = torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)
    return a.is_cuda and a.dtype == b.dtype != torch.float64 and not differentiable


def _one_batch_axis(boxes: Tensor, outer: torch.Size) -> Tensor:
    """Boxes [..., M, 4] as [N, M, 4], or as [1, M, 4] where they have no batch of their own."""
    if boxes.shape[:-2].numel() == 1:
        return boxes.reshape(1, boxes.shape[-2], 4)
    return boxes.expand(*outer, -1, -1).flatten(0, -3)


# -- CPU twin --


def _area(boxes_M4: Tensor) -> Tensor:
    return (boxes_M4[..., 2] - boxes_M4[..., 0]) * (boxes_M4[..., 3] - boxes_M4[..., 1])


def _intersection(a_M4: Tensor, b_M4: Tensor) -> Tensor:
    size = (torch.minimum(a_M4[..., 2:], b_M4[..., 2:]) - torch.maximum(a_M4[..., :2], b_M4[..., :2])).clamp(min=0)
    return size[..., 0] * size[..., 1]


def _enclosing(a_M4: Tensor, b_M4: Tensor) -> Tensor:
    """Width and height of the smallest box around both."""
    return torch.maximum(a_M4[..., 2:], b_M4[..., 2:]) - torch.minimum(a_M4[..., :2], b_M4[..., :2])


def _iou(a_M4: Tensor, b_M4: Tensor) -> Tensor:
    inter = _intersection(a_M4, b_M4)
    return torch.where(inter > 0, inter / (_area(a_M4) + _area(b_M4) - inter), torch.zeros_like(inter))


def _ioa(a_M4: Tensor, b_M4: Tensor) -> Tensor:
    inter = _intersection(a_M4, b_M4)
    return torch.where(inter > 0, inter / _area(b_M4), torch.zeros_like(inter))


def _giou(a_M4: Tensor, b_M4: Tensor) -> Tensor:
    inter = _intersection(a_M4, b_M4)
    union = _area(a_M4) + _area(b_M4) - inter
    around = _enclosing(a_M4, b_M4).prod(-1)
    return inter / (union + EPSILON) - (around - union) / (around + EPSILON)


def _smooth_iou(a_M4: Tensor, b_M4: Tensor) -> Tensor:
    inter = _intersection(a_M4, b_M4)
    return inter / (_area(a_M4) + _area(b_M4) - inter + EPSILON)


def _diou(a_M4: Tensor, b_M4: Tensor) -> Tensor:
    diagonal = _enclosing(a_M4, b_M4).square().sum(-1) + EPSILON
    apart = ((a_M4[..., :2] + a_M4[..., 2:]) - (b_M4[..., :2] + b_M4[..., 2:])).div(2).square().sum(-1)
    return _smooth_iou(a_M4, b_M4) - apart / diagonal


def _ciou(a_M4: Tensor, b_M4: Tensor) -> Tensor:
    size_a, size_b = a_M4[..., 2:] - a_M4[..., :2], b_M4[..., 2:] - b_M4[..., :2]
    angle = torch.atan(size_b[..., 0] / size_b[..., 1]) - torch.atan(size_a[..., 0] / size_a[..., 1])
    shape = (4 / math.pi**2) * angle.square()
    with torch.no_grad():
        weight = shape / (1 - _smooth_iou(a_M4, b_M4) + shape + EPSILON)
    return _diou(a_M4, b_M4) - weight * shape


_KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"iou": _iou, "ioa": _ioa, "giou": _giou, "diou": _diou, "ciou": _ciou}


# -- registration: the composite form gives the fake, the gradient and the ONNX decomposition --

LIBRARY.define("box_iou(Tensor a, Tensor b, str kind) -> Tensor")
LIBRARY.impl("box_iou", lambda a, b, kind: _KINDS[kind](a, b), "CompositeImplicitAutograd")


# -- the form with a CUDA kernel, without a gradient --


def _pairs(a: Tensor, b: Tensor, kind: str) -> Tensor:
    return _KINDS[kind](a.unsqueeze(-2), b.unsqueeze(-3))


def _pairs_fake(a: Tensor, b: Tensor, kind: str) -> Tensor:
    return a.new_empty(*torch.broadcast_shapes(a.shape[:1], b.shape[:1]), a.shape[1], b.shape[1])


LIBRARY.define("box_iou_pairs(Tensor a, Tensor b, str kind) -> Tensor")
LIBRARY.impl("box_iou_pairs", _pairs, "CPU")
on_cuda("box_iou_pairs", "box_iou", "box_iou")
torch.library.register_fake("detectline::box_iou_pairs", _pairs_fake, lib=LIBRARY)
