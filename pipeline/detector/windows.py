"""TensorMask's sliding windows and the rule that assigns truths to them (Chen et al. 2019, section 5.1)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.structures import Targets

WINDOWS_PER_TRUTH = 5
"""Most windows of one size and level whose centre lies within one unit of a point."""
LEAST_SHARE = 0.5
"""A truth's longer side must be at least this share of its window's."""


class Windows(nn.Module):
    """Square windows of `cells` units a side at every cell of every level; a unit is the level's stride."""

    def __init__(self, cells: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.cells, self.strides = tuple(cells), tuple(strides)
        self.register_buffer("sides", torch.tensor([float(c) for c in cells]), persistent=False)

    sides: Tensor

    def forward(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Per level the windows [A, 4] (x1, y1, x2, y2), by row, column, size, and the least longer side [A] of their truths.

        The smallest windows of the finest level take all smaller truths too: no other window would.
        """
        levels = []
        for level, (x, stride) in enumerate(zip(maps, self.strides, strict=True)):
            height, width = x.shape[-2:]
            side_S = self.sides * stride
            least_S = side_S * LEAST_SHARE
            if level == 0:
                least_S = torch.where(self.sides == self.sides.min(), torch.zeros_like(least_S), least_S)
            y_H, x_W = ((torch.arange(n, device=side_S.device) * stride).to(side_S.dtype) for n in (height, width))
            y_HW, x_HW = torch.meshgrid(y_H, x_W, indexing="ij")
            centre_HW12 = torch.stack([x_HW, y_HW], dim=-1).unsqueeze(2)
            half_S1 = side_S.unsqueeze(1) / 2
            boxes_A4 = torch.cat([centre_HW12 - half_S1, centre_HW12 + half_S1], dim=-1).reshape(-1, 4)
            levels.append((boxes_A4, least_S.expand(height * width, -1).reshape(-1)))
        return levels

    def units(self, levels: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The unit [A] of every window, in pixels."""
        return torch.cat([torch.full_like(least, float(s)) for (_, least), s in zip(levels, self.strides, strict=True)])

    def frames(self, level: int, side: int, height: int, width: int, window_NK: Tensor) -> Tensor:
        """Boxes [N, K, 4] that the masks of a level's windows of `side` units fill: whole cells of the finest level's grid.

        A mask's cell lies around a pixel of the finest map, and a mask of an even number of cells has one more before the centre
        than behind it.
        """
        scale, fine = self.strides[level] // self.strides[0], float(self.strides[0])
        cells = scale * side
        # Looked up, not divided: a remainder by a free width has no ONNX form.
        y_H, x_W = (torch.arange(n, device=window_NK.device).to(self.sides.dtype) for n in (height, width))
        y_HW, x_HW = torch.meshgrid(y_H, x_W, indexing="ij")
        low_NK2 = (torch.stack([x_HW, y_HW], dim=-1).flatten(0, 1)[window_NK] * scale - (cells // 2) - 0.5) * fine
        return torch.cat([low_NK2, low_NK2 + cells * fine], dim=-1)


@torch.no_grad()
def assign(windows_A4: Tensor, least_A: Tensor, unit_A: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
    """Truth index [N, A] and bool [N, A]: the window has exactly one truth, and it is that.

    A truth is a window's when the window contains its box, the box's longer side is at least the window's least, and their
    centres are at most one unit apart. A window with two such truths has none.
    """
    truths_NG14 = targets.boxes_NG4.unsqueeze(2)
    valid_NG1 = (targets.labels_NG >= 0).unsqueeze(2)
    contains_NGA = (truths_NG14[..., :2] >= windows_A4[:, :2]).all(-1) & (truths_NG14[..., 2:] <= windows_A4[:, 2:]).all(-1)
    longer_NG1 = (truths_NG14[..., 2:] - truths_NG14[..., :2]).amax(dim=-1)
    apart_NGA2 = (truths_NG14[..., :2] + truths_NG14[..., 2:] - windows_A4[:, :2] - windows_A4[:, 2:]) / 2
    central_NGA = apart_NGA2.square().sum(dim=-1) <= unit_A.square()
    fits_NGA = contains_NGA & (longer_NG1 >= least_A) & central_NGA & valid_NG1
    return fits_NGA.to(torch.uint8).argmax(dim=1), fits_NGA.sum(dim=1) == 1
