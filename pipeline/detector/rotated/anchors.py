"""Rotated anchors: sizes, ratios and angles at every cell of every level (Ma et al. 2018, section IV-B)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.detector.anchors import AnchorGenerator


class RotatedAnchorGenerator(AnchorGenerator):
    """Anchors (cx, cy, w, h, degrees) per level, ordered by row, column, size, ratio (height / width), angle."""

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[Sequence[float]],
        angles: Sequence[Sequence[float]],
        strides: Sequence[int],
        offset: float,
    ) -> None:
        nn.Module.__init__(self)
        self.strides, self.offset, self.spacing = tuple(strides), offset, "stride"
        given = [list(values) * (len(strides) if len(values) == 1 else 1) for values in (sizes, ratios, angles)]
        self.per_cell = [len(s) * len(r) * len(a) for s, r, a in zip(*given, strict=True)]
        for level, (level_sizes, level_ratios, level_angles) in enumerate(zip(*given, strict=True)):
            self.register_buffer(f"cell{level}", cell_anchors(level_sizes, level_ratios, level_angles), persistent=False)

    def _grid(self, level: int, height: int, width: int, down: int, right: int) -> Tensor:
        cell_A5 = self.get_buffer(f"cell{level}")
        x_W = (torch.arange(width, device=cell_A5.device) * right).to(cell_A5.dtype) + self.offset * right
        y_H = (torch.arange(height, device=cell_A5.device) * down).to(cell_A5.dtype) + self.offset * down
        y_HW, x_HW = torch.meshgrid(y_H, x_W, indexing="ij")
        zero_HW = torch.zeros_like(x_HW)
        centre_HW5 = torch.stack([x_HW, y_HW, zero_HW, zero_HW, zero_HW], dim=-1)
        return (centre_HW5.unsqueeze(2) + cell_A5).reshape(-1, 5)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float], angles: Sequence[float]) -> Tensor:
    """Anchors [sizes * ratios * angles, 5] around the origin; area size**2, height / width = ratio."""
    boxes = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2 / ratio)
            boxes += [(0.0, 0.0, width, ratio * width, angle) for angle in angles]
    return torch.tensor(boxes)
