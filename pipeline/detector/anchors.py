"""Anchors: boxes of given sizes and ratios at every cell of every level (Ren et al. 2015)."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn


class AnchorGenerator(nn.Module):
    """Anchors per level, ordered by row, column, size, ratio (height / width); `per_cell` is their number at a cell.

    `rounding` and `spacing` "grid" are torchvision's: whole pixels around the origin, and cells that divide the padded picture.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[Sequence[float]],
        strides: Sequence[int],
        offset: float,
        rounding: bool = False,
        spacing: Literal["stride", "grid"] = "stride",
    ) -> None:
        super().__init__()
        self.strides, self.offset, self.spacing = tuple(strides), offset, spacing
        sizes = list(sizes) * (len(strides) if len(sizes) == 1 else 1)
        ratios = list(ratios) * (len(strides) if len(ratios) == 1 else 1)
        self.per_cell = [len(s) * len(r) for s, r in zip(sizes, ratios, strict=True)]
        for level, (level_sizes, level_ratios) in enumerate(zip(sizes, ratios, strict=True)):
            cell_A4 = cell_anchors(level_sizes, level_ratios)
            self.register_buffer(f"cell{level}", cell_A4.round() if rounding else cell_A4, persistent=False)

    def forward(self, features_NCHW: Sequence[Tensor]) -> list[Tensor]:
        """Anchors [H * W * per_cell, 4] (x1, y1, x2, y2) of each level."""
        picture = [side * self.strides[0] for side in features_NCHW[0].shape[-2:]]  # padded: the finest level divides it
        grids = []
        for level, feature in enumerate(features_NCHW):
            height, width = feature.shape[-2:]
            stride = self.strides[level]
            across = (stride, stride) if self.spacing == "stride" else (picture[0] // height, picture[1] // width)
            grids.append(self._grid(level, height, width, *across))
        return grids

    def _grid(self, level: int, height: int, width: int, down: int, right: int) -> Tensor:
        cell_A4 = self.get_buffer(f"cell{level}")
        x_W = (torch.arange(width, device=cell_A4.device) * right).to(cell_A4.dtype) + self.offset * right
        y_H = (torch.arange(height, device=cell_A4.device) * down).to(cell_A4.dtype) + self.offset * down
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
