"""Anchors: boxes of given sizes and ratios at every cell of every level (Ren et al. 2015)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """Anchors per level, ordered by row, column, size, ratio (height / width); `per_cell` is their number at a cell."""

    def __init__(
        self, sizes: Sequence[Sequence[float]], ratios: Sequence[Sequence[float]], strides: Sequence[int], offset: float
    ) -> None:
        super().__init__()
        self.strides, self.offset = tuple(strides), offset
        sizes = list(sizes) * (len(strides) if len(sizes) == 1 else 1)
        ratios = list(ratios) * (len(strides) if len(ratios) == 1 else 1)
        self.per_cell = [len(s) * len(r) for s, r in zip(sizes, ratios, strict=True)]
        for level, (level_sizes, level_ratios) in enumerate(zip(sizes, ratios, strict=True)):
            self.register_buffer(f"cell{level}", cell_anchors(level_sizes, level_ratios), persistent=False)

    def forward(self, features_NCHW: Sequence[Tensor]) -> list[Tensor]:
        """Anchors [H * W * per_cell, 4] (x1, y1, x2, y2) of each level."""
        return [self._grid(level, *feature.shape[-2:]) for level, feature in enumerate(features_NCHW)]

    def _grid(self, level: int, height: int, width: int) -> Tensor:
        cell_A4, stride = self.get_buffer(f"cell{level}"), self.strides[level]
        x_W = (torch.arange(width, device=cell_A4.device) * stride).to(cell_A4.dtype) + self.offset * stride
        y_H = (torch.arange(height, device=cell_A4.device) * stride).to(cell_A4.dtype) + self.offset * stride
        y_HW, x_HW = torch.meshgrid(y_H, x_W, indexing="ij")
        centre_HW4 = torch.stack([x_HW, y_HW, x_HW, y_HW], dim=-1)
        return (centre_HW4.unsqueeze(2) + cell_A4).reshape(-1, 4)


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors [sizes * ratios, 4] around the origin; area size**2, height / width = ratio."""
    boxes = []
    for size in sizes:
        for ratio in ratios:
            width = math.sqrt(size**2 / ratio)
            height = ratio * width
            boxes.append((-width / 2, -height / 2, width / 2, height / 2))
    return torch.tensor(boxes)
