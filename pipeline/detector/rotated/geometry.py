"""Rotated boxes (cx, cy, w, h, degrees): deltas, clipping and scaling (Ma et al. 2018, RRPN).

A box of angle t has its width along (cos t, -sin t) of the picture, whose y points down: counter-clockwise as one sees it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.detector.box_coding import LARGEST_LOG_RATIO

CLIPPED_BELOW = 1.0
"""Boxes turned by at most so many degrees are clipped as upright ones; no other is: what is left of it would be no rectangle."""


@dataclass(frozen=True, slots=True)
class RotatedBoxCoder:
    """(dx, dy, dw, dh, da): as of upright boxes, and the turn in radians, each times its weight."""

    weights: tuple[float, float, float, float, float]

    def encode(self, source_M5: Tensor, target_M5: Tensor) -> Tensor:
        """Deltas [..., 5] that turn source into target by the shorter way; both need positive sides."""
        shift = (target_M5[..., :2] - source_M5[..., :2]) / source_M5[..., 2:4]
        ratio = torch.log(target_M5[..., 2:4] / source_M5[..., 2:4])
        turn = wrapped(target_M5[..., 4:] - source_M5[..., 4:]) * (math.pi / 180)
        deltas = torch.cat([shift, ratio, turn], dim=-1)
        return torch.stack([deltas[..., i] * weight for i, weight in enumerate(self.weights)], dim=-1)

    def decode(self, deltas_M5: Tensor, source_M5: Tensor) -> Tensor:
        """Boxes [..., 5] with angles in [-180, 180); leading axes broadcast."""
        deltas = torch.stack([deltas_M5[..., i] / weight for i, weight in enumerate(self.weights)], dim=-1)
        centre = deltas[..., :2] * source_M5[..., 2:4] + source_M5[..., :2]
        size = torch.exp(deltas[..., 2:4].clamp(max=LARGEST_LOG_RATIO)) * source_M5[..., 2:4]
        return torch.cat([centre, size, wrapped(deltas[..., 4:] * (180 / math.pi) + source_M5[..., 4:])], dim=-1)


def wrapped(degrees: Tensor) -> Tensor:
    """The same directions in [-180, 180)."""
    return torch.remainder(degrees + 180, 360) - 180


def clip_rotated(boxes_NK5: Tensor, sizes_N2: Tensor) -> Tensor:
    """Boxes [N, ..., 5], angles in [-180, 180), nearly upright ones inside their image of (height, width) `sizes`."""
    limits = sizes_N2.flip(1).to(boxes_NK5.dtype)
    limits = limits.view(limits.shape[0], *([1] * (boxes_NK5.dim() - 2)), 2)
    centre, size, angle = boxes_NK5[..., :2], boxes_NK5[..., 2:4], wrapped(boxes_NK5[..., 4:])
    low = torch.minimum((centre - size / 2).clamp(min=0), limits)
    high = torch.minimum((centre + size / 2).clamp(min=0), limits)
    clipped = torch.cat([(low + high) / 2, torch.minimum(size, high - low)], dim=-1)
    return torch.cat([torch.where(angle.abs() <= CLIPPED_BELOW, clipped, boxes_NK5[..., :4]), angle], dim=-1)


def scale_rotated(boxes_NK5: Tensor, scale_N2: Tensor) -> Tensor:
    """Boxes [N, K, 5] in a picture stretched by (x, y) `scale`.

    Unequal factors make a parallelogram of a rectangle; its place is taken by the rectangle along the stretched height, with the
    stretched lengths of both sides.
    """
    sx, sy = scale_N2[:, None, 0], scale_N2[:, None, 1]
    theta = boxes_NK5[..., 4] * (math.pi / 180)
    cosine, sine = torch.cos(theta), torch.sin(theta)
    width = boxes_NK5[..., 2] * torch.sqrt((sx * cosine).square() + (sy * sine).square())
    height = boxes_NK5[..., 3] * torch.sqrt((sx * sine).square() + (sy * cosine).square())
    angle = torch.atan2(sx * sine, sy * cosine) * (180 / math.pi)
    return torch.stack([boxes_NK5[..., 0] * sx, boxes_NK5[..., 1] * sy, width, height, angle], dim=-1)


def has_sides(boxes_NK5: Tensor, side: float) -> Tensor:
    """bool [...]: both sides exceed `side` pixels. False for NaN."""
    return (boxes_NK5[..., 2:4] > side).all(dim=-1)
