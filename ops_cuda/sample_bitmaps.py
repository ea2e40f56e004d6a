"""Truths' bitmaps at points, without keeping bitmaps: polygons as if rasterised on the grid of their own picture.

What: row r reads owner `owner_R[r]`'s bitmap, filled by COCO's rule on the picture's pixels, at P points: bilinear between pixel
centres, zero outside the picture. One bitmap exists at a time.
Limits: points in the picture's pixels, float32; those that are not finite read zero.
Source: point labels of Kirillov et al. 2020 (PointRend). No gradient.
CUDA: a thread per point follows the owner's edges for the two columns beside it; no bitmap exists.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ops_cuda._registration import LIBRARY, on_cuda
from ops_cuda.rasterise_polygons import fill_bitmap


def sample_bitmaps(
    points_P2: Tensor, polygon_starts: Tensor, owner_starts: Tensor, sizes_R2: Tensor, owner_R: Tensor, at_RS2: Tensor
) -> Tensor:
    """Values [R, S] in 0..1 (float32) at S points (x, y) per row; 0 for owner -1.

    The pools are those of `rasterise_polygons`; `sizes_R2` is (height, width) of each row's picture.
    """
    values_RS: Tensor = torch.ops.detectline.sample_bitmaps(
        points_P2, polygon_starts, owner_starts, sizes_R2, owner_R, at_RS2.detach()
    )
    return values_RS


def each_bitmap(
    points: Tensor,
    polygon_starts: Tensor,
    owner_starts: Tensor,
    sizes: Tensor,
    owner: Tensor,
    read: Callable[[Tensor, Tensor], None],
) -> None:
    """Call `read(rows, bitmap_HW)` once per owner that has rows, on the CPU; the bitmap (float32) is valid during the call."""
    pools = points.double().contiguous().numpy(), polygon_starts.contiguous().numpy()
    starts = owner_starts.tolist()
    order = torch.argsort(owner, stable=True)
    ordered = owner[order].tolist()
    first = 0
    for place in range(1, len(ordered) + 1):
        if place < len(ordered) and ordered[place] == ordered[first]:
            continue
        number, rows = ordered[first], order[first:place]
        first = place
        height, width = sizes[rows[0]].tolist()
        if number < 0 or min(height, width) < 1:
            continue
        bitmap_HW = np.zeros((height, width), np.float32)
        fill_bitmap(*pools, starts[number], starts[number + 1], bitmap_HW, np.zeros(height * width, np.uint8))
        read(rows, torch.from_numpy(bitmap_HW))


# -- CPU twin --


def _sample_bitmaps_cpu(
    points: Tensor, polygon_starts: Tensor, owner_starts: Tensor, sizes: Tensor, owner: Tensor, at: Tensor
) -> Tensor:
    values = torch.zeros(at.shape[:2])

    def read(rows: Tensor, bitmap_HW: Tensor) -> None:
        extent = torch.tensor([bitmap_HW.shape[1], bitmap_HW.shape[0]], dtype=torch.float32)
        grid = torch.nan_to_num(at[rows].float() / extent, nan=-1e6, posinf=1e6, neginf=-1e6).clamp(-1e6, 1e6) * 2 - 1
        sampled = functional.grid_sample(bitmap_HW[None, None], grid.flatten(0, 1)[None, None], align_corners=False)
        values[rows] = sampled.view(len(rows), -1)

    each_bitmap(points, polygon_starts, owner_starts, sizes, owner, read)
    return values


# -- registration --


def _sample_bitmaps_fake(*given: Any) -> Tensor:
    at: Tensor = given[-1]
    return at.new_empty(at.shape[:2], dtype=torch.float32)


LIBRARY.define(
    "sample_bitmaps(Tensor points, Tensor polygon_starts, Tensor owner_starts, Tensor sizes, Tensor owner, Tensor at) -> Tensor"
)
LIBRARY.impl("sample_bitmaps", _sample_bitmaps_cpu, "CPU")
on_cuda("sample_bitmaps", "sample_bitmaps", "sample_bitmaps")
torch.library.register_fake("detectline::sample_bitmaps", _sample_bitmaps_fake, lib=LIBRARY)
