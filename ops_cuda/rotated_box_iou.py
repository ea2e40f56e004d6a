"""IoU of rotated boxes (cx, cy, w, h, degrees).

What: pairwise intersection over union of turned rectangles. A box of angle t has its width along (cos t, -sin t):
counter-clockwise as one sees it, because y points down. Boxes of the same points have the same IoU, whatever their angles.
Boxes without area overlap nothing.
Limits: boxes in float32 or float64, finite; sides >= 0. Computed in float64 by clipping one rectangle against the other's sides
in the other's own frame; result in the boxes' type. No gradient.
Source: Sutherland and Hodgman 1974 (polygon clipping); skew IoU of Ma et al. 2018 (RRPN), section IV-C.
CUDA: one kernel, computed in float32 (about 1e-5 from the CPU), whatever the boxes' type.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda

MOST_CORNERS = 16
"""Room for a clipped rectangle's corners: it has at most 8, and every side may add two while one is worked on."""


def rotated_box_iou(a_M5: Tensor, b_K5: Tensor) -> Tensor:
    """IoU [N, M, K] of every box of a [N or 1, M, 5] with every box of b [N or 1, K, 5]; [M, K] of boxes without a batch axis."""
    if a_M5.dim() == 2 and b_K5.dim() == 2:
        return rotated_box_iou(a_M5.unsqueeze(0), b_K5.unsqueeze(0)).squeeze(0)
    iou: Tensor = torch.ops.detectline.rotated_box_iou(a_M5.detach(), b_K5.detach())
    return iou


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _cut(x: np.ndarray, y: np.ndarray, count: int, limit: float, out_x: np.ndarray, out_y: np.ndarray) -> int:
    """The part of a convex polygon where x <= limit, written to `out`; how many corners it has."""
    left = 0
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        inside, next_inside = x[i] <= limit, x[j] <= limit
        if inside:
            out_x[left], out_y[left] = x[i], y[i]
            left += 1
        if inside != next_inside:
            out_x[left], out_y[left] = limit, y[i] + (limit - x[i]) / (x[j] - x[i]) * (y[j] - y[i])
            left += 1
    return left


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def rotated_iou(a: np.ndarray, b: np.ndarray, room: np.ndarray) -> float:
    """IoU of two boxes [5] in float64; `room` is float64 [4, MOST_CORNERS] to work in. For other CPU twins."""
    # np.float64: in numba float() of a float32 stays one.
    aw, ah, bw, bh = np.float64(a[2]), np.float64(a[3]), np.float64(b[2]), np.float64(b[3])
    area = aw * ah + bw * bh
    dx, dy = np.float64(a[0]) - np.float64(b[0]), np.float64(a[1]) - np.float64(b[1])
    reach = math.sqrt(aw * aw + ah * ah) + math.sqrt(bw * bw + bh * bh)
    if not (aw * ah > 1e-14 and bw * bh > 1e-14 and 4 * (dx * dx + dy * dy) < reach * reach):
        return 0.0
    # Into b's frame: its axes are (cos, -sin) and (sin, cos).
    turn, between = np.float64(b[4]) * math.pi / 180, (np.float64(a[4]) - np.float64(b[4])) * math.pi / 180
    cx, cy = dx * math.cos(turn) - dy * math.sin(turn), dx * math.sin(turn) + dy * math.cos(turn)
    cosine, sine = math.cos(between), math.sin(between)
    x, y, other_x, other_y = room[0], room[1], room[2], room[3]
    for corner in range(4):
        u = aw / 2 if corner in (0, 1) else -aw / 2
        v = ah / 2 if corner in (1, 2) else -ah / 2
        x[corner], y[corner] = cx + cosine * u + sine * v, cy - sine * u + cosine * v
    count = 4
    for side in range(4):  # each pass cuts x <= limit and turns the polygon by a right angle
        count = _cut(x, y, count, bw / 2 if side % 2 == 0 else bh / 2, other_x, other_y)
        for i in range(count):
            x[i], y[i] = other_y[i], -other_x[i]
    twice = 0.0
    for i in range(1, count - 1):
        twice += (x[i] - x[0]) * (y[i + 1] - y[0]) - (x[i + 1] - x[0]) * (y[i] - y[0])
    inter = min(abs(twice) / 2, min(aw * ah, bw * bh))
    return inter / (area - inter)


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _pairwise(a: np.ndarray, b: np.ndarray, iou: np.ndarray) -> None:
    room = np.empty((4, MOST_CORNERS))
    for m in range(len(a)):
        for k in range(len(b)):
            iou[m, k] = rotated_iou(a[m], b[k], room)


def _iou_cpu(a: Tensor, b: Tensor) -> Tensor:
    iou = torch.empty(max(a.shape[0], b.shape[0]), a.shape[1], b.shape[1], dtype=a.dtype)
    a_np, b_np, iou_np = a.contiguous().numpy(), b.contiguous().numpy(), iou.numpy()
    for n in range(len(iou_np)):
        _pairwise(a_np[n if len(a_np) > 1 else 0], b_np[n if len(b_np) > 1 else 0], iou_np[n])
    return iou


def _iou_fake(a: Tensor, b: Tensor) -> Tensor:
    return a.new_empty(*torch.broadcast_shapes(a.shape[:1], b.shape[:1]), a.shape[1], b.shape[1])


# -- registration: schema, fake --

LIBRARY.define("rotated_box_iou(Tensor a, Tensor b) -> Tensor")
LIBRARY.impl("rotated_box_iou", _iou_cpu, "CPU")
on_cuda("rotated_box_iou", "rotated_box_iou", "rotated_box_iou")
torch.library.register_fake("detectline::rotated_box_iou", _iou_fake, lib=LIBRARY)
