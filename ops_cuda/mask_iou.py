"""IoU of masks of the same picture, every one with every other.

What: pixels in both over pixels in either; over the first mask's own pixels where the second marks a crowd. 0 where nothing is
shared.
Limits: pictures below 2**31 pixels; float64, equal to pycocotools' bit for bit. No gradient.
Source: rleIou of the COCO API (Lin, Dollar 2014).
How: masks are packed, 64 pixels to a word on the CPU and 32 on the GPU, and shared pixels counted as bits.
CUDA: a block per pair.
"""

import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda


def mask_iou(first_AHW: Tensor, second_BHW: Tensor, crowd_B: Tensor) -> Tensor:
    """IoU [A, B] (float64) of masks (bool); `crowd` (bool) is of the second."""
    iou_AB: Tensor = torch.ops.detectline.mask_iou(first_AHW, second_BHW, crowd_B)
    return iou_AB


def ratio(shared_AB: Tensor, area_A: Tensor, area_B: Tensor, crowd_B: Tensor) -> Tensor:
    """IoU from counts of pixels (int64)."""
    union_AB = torch.where(crowd_B.bool(), area_A.unsqueeze(1), area_A.unsqueeze(1) + area_B - shared_AB)
    return shared_AB.double() / union_AB.clamp(min=1).double()  # what shares nothing may have no pixels


# -- CPU twin --


def _words(masks: Tensor) -> np.ndarray:
    """uint64 [R, words]."""
    bytes_RB = np.packbits(masks.flatten(1).numpy(), axis=1)
    return np.pad(bytes_RB, ((0, 0), (0, -bytes_RB.shape[1] % 8))).view(np.uint64)


def _areas(words: np.ndarray) -> Tensor:
    return torch.from_numpy(np.bitwise_count(words).sum(axis=1).astype(np.int64))


def _mask_iou_cpu(first: Tensor, second: Tensor, crowd: Tensor) -> Tensor:
    ones, others = _words(first), _words(second)
    shared = torch.empty(len(first), len(second), dtype=torch.int64)
    for row, one in zip(shared.numpy(), ones, strict=True):
        row[:] = np.bitwise_count(others & one).sum(axis=1)
    return ratio(shared, _areas(ones), _areas(others), crowd)


# -- registration --


def _mask_iou_fake(first: Tensor, second: Tensor, crowd: Tensor) -> Tensor:
    return first.new_empty((first.shape[0], second.shape[0]), dtype=torch.float64)


LIBRARY.define("mask_iou(Tensor first, Tensor second, Tensor crowd) -> Tensor")
LIBRARY.impl("mask_iou", _mask_iou_cpu, "CPU")
on_cuda("mask_iou", "mask_iou", "mask_iou")
torch.library.register_fake("detectline::mask_iou", _mask_iou_fake, lib=LIBRARY)
