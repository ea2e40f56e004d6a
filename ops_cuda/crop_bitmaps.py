"""Mask targets from bitmaps, without keeping bitmaps: polygons as if rasterised on the grid of their own picture, then cropped.

What: row r is owner `owner_R[r]`'s bitmap, filled by COCO's rule on the picture's pixels, averaged by ROIAlign (aligned,
adaptive) into size x size cells of box r; a cell is in where the average is at least one half. One bitmap exists at a time.
Limits: as `rasterise_polygons`.
Source: mask targets of Detectron2 with INPUT.MASK_FORMAT bitmask; ROIAlign of He et al. 2017. No gradient.
CUDA: a thread per cell follows the owner's edges for each column of its samples; no bitmap exists. Sums of samples are taken in
another order, which may decide about a cell whose average is one half.
"""

import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda
from ops_cuda.sample_bitmaps import each_bitmap


def crop_bitmaps(
    points_P2: Tensor,
    polygon_starts: Tensor,
    owner_starts: Tensor,
    sizes_R2: Tensor,
    boxes_R4: Tensor,
    owner_R: Tensor,
    size: int,
) -> Tensor:
    """Masks [R, size, size] (bool) in the boxes' frames; empty for owner -1.

    The pools are those of `rasterise_polygons`; `sizes_R2` is (height, width) of each row's picture.
    """
    masks_RSS: Tensor = torch.ops.detectline.crop_bitmaps(
        points_P2, polygon_starts, owner_starts, sizes_R2, boxes_R4.detach(), owner_R, size
    )
    return masks_RSS


# -- CPU twin --


def _crop_bitmaps_cpu(
    points: Tensor, polygon_starts: Tensor, owner_starts: Tensor, sizes: Tensor, boxes: Tensor, owner: Tensor, size: int
) -> Tensor:
    from torchvision.ops import roi_align  # torchvision takes seconds to import

    masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)

    def read(rows: Tensor, bitmap_HW: Tensor) -> None:
        rois = torch.cat([torch.zeros(len(rows), 1), boxes[rows].float()], dim=1)
        masks[rows] = roi_align(bitmap_HW[None, None], rois, (size, size), 1.0, 0, True)[:, 0] >= 0.5

    sound = torch.isfinite(boxes).all(dim=1)
    each_bitmap(points, polygon_starts, owner_starts, sizes, torch.where(sound, owner, torch.full_like(owner, -1)), read)
    return masks


# -- registration --


def _crop_bitmaps_fake(
    points: Tensor, polygon_starts: Tensor, owner_starts: Tensor, sizes: Tensor, boxes: Tensor, owner: Tensor, size: int
) -> Tensor:
    return boxes.new_empty((boxes.shape[0], size, size), dtype=torch.bool)


LIBRARY.define(
    "crop_bitmaps(Tensor points, Tensor polygon_starts, Tensor owner_starts, Tensor sizes, Tensor boxes, Tensor owner, int size) "
    "-> Tensor"
)
LIBRARY.impl("crop_bitmaps", _crop_bitmaps_cpu, "CPU")
on_cuda("crop_bitmaps", "crop_bitmaps", "crop_bitmaps")
torch.library.register_fake("detectline::crop_bitmaps", _crop_bitmaps_fake, lib=LIBRARY)
