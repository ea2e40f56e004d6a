"""Boxes as deltas from a source box (Girshick et al. 2014), and clipping."""

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

LARGEST_LOG_RATIO = math.log(1000 / 16)
"""Decoding clamps dw and dh from above here, so that exp() stays finite; not from below."""


class Coder(Protocol):
    """Boxes of a kind as deltas from a source box."""

    def encode(self, source_M4: Tensor, target_M4: Tensor) -> Tensor:
        """Deltas that turn source into target; both need positive sides."""

    def decode(self, deltas_M4: Tensor, source_M4: Tensor) -> Tensor:
        """The boxes that the deltas make of the source; leading axes broadcast."""


@dataclass(frozen=True, slots=True)
class BoxCoder:
    """(dx, dy, dw, dh): shift of the centre in source sizes and log ratio of the sides, each times its weight."""

    weights: tuple[float, float, float, float]

    def encode(self, source_M4: Tensor, target_M4: Tensor) -> Tensor:
        """Deltas [..., 4] that turn source into target; both need positive sides."""
        centre, size = centre_and_size(source_M4)
        target_centre, target_size = centre_and_size(target_M4)
        shift, ratio = (target_centre - centre) / size, torch.log(target_size / size)
        deltas = torch.cat([shift, ratio], dim=-1)
        return torch.stack([deltas[..., i] * weight for i, weight in enumerate(self.weights)], dim=-1)

    def decode(self, deltas_M4: Tensor, source_M4: Tensor) -> Tensor:
        """Boxes [..., 4]; leading axes broadcast."""
        centre, size = centre_and_size(source_M4)
        # Scalars, not a tensor of weights: making one on a GPU would wait for the host.
        deltas = torch.stack([deltas_M4[..., i] / weight for i, weight in enumerate(self.weights)], dim=-1)
        new_centre = deltas[..., :2] * size + centre
        new_size = torch.exp(deltas[..., 2:].clamp(max=LARGEST_LOG_RATIO)) * size
        return torch.cat([new_centre - 0.5 * new_size, new_centre + 0.5 * new_size], dim=-1)


def centre_and_size(boxes_M4: Tensor) -> tuple[Tensor, Tensor]:
    """(x, y) of the centre and (width, height), each [..., 2]."""
    size = boxes_M4[..., 2:] - boxes_M4[..., :2]
    return boxes_M4[..., :2] + 0.5 * size, size


def clip_boxes(boxes_NK4: Tensor, sizes_N2: Tensor) -> Tensor:
    """Boxes [N, ..., 4] inside their image of (height, width) `sizes`."""
    limits = sizes_N2.flip(1).repeat(1, 2).to(boxes_NK4.dtype)
    limits = limits.view(limits.shape[0], *([1] * (boxes_NK4.dim() - 2)), 4)
    return torch.minimum(boxes_NK4.clamp(min=0), limits)


def is_larger(boxes_NK4: Tensor, side: float) -> Tensor:
    """bool [...]: both sides exceed `side` pixels. False for NaN."""
    size = boxes_NK4[..., 2:] - boxes_NK4[..., :2]
    return (size > side).all(dim=-1)
