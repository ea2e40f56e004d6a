"""Region features: what every head of the second stage starts from."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from ops_cuda import pyramid_level, roi_align, roi_pool
from pipeline.detector.compact import Rows


class Pooler(nn.Module):
    """ROIAlign (or ROIPool) from the pyramid levels of the given strides; a larger box reads a coarser level."""

    def __init__(
        self,
        strides: Sequence[int],
        size: int,
        sampling_ratio: int,
        aligned: bool,
        canonical_size: float,
        canonical_level: int,
        method: Literal["align", "pool"] = "align",
    ) -> None:
        super().__init__()
        self.method = method
        self.scales = [1 / stride for stride in strides]
        self.lowest = strides[0].bit_length() - 1
        self.size, self.sampling_ratio, self.aligned = size, sampling_ratio, aligned
        self.canonical_size, self.canonical_level = canonical_size, canonical_level

    def forward(self, features: Sequence[Tensor], boxes_NS4: Tensor, rows: Rows) -> Tensor:
        """[M, C, size, size] of the rows; padded rows give zeros."""
        boxes_M4 = rows.take(boxes_NS4)
        level_M = pyramid_level(boxes_M4, len(self.scales), self.lowest, self.canonical_size, self.canonical_level)
        level_M = torch.where(rows.valid(), level_M, torch.full_like(level_M, -1))
        size = (self.size, self.size)
        if self.method == "pool":
            return roi_pool(features, boxes_M4, rows.image(), level_M, self.scales, size)
        return roi_align(features, boxes_M4, rows.image(), level_M, self.scales, size, self.sampling_ratio, self.aligned)


class Given(nn.Module):
    """Stands where a pooler does when the regions' features are made already: the only map is [N, S, C, size, size] itself."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Sequence[Tensor], boxes_NS4: Tensor, rows: Rows) -> Tensor:
        """[M, C, size, size] of the rows."""
        return rows.take(features[0])
