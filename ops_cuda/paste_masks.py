"""Masks in the frames of their boxes brought to a picture's full size: as pixels, or straight as COCO's run lengths.

What: a pixel is in where the mask, bilinear at the pixel's centre and zero outside its grid, is at least one half. Of a mask of
probabilities that is never outside the box, so only the pixels that the box touches are looked at. Boxes without area, or not
finite, give empty masks.
Limits: pictures below 2**24 on a side; float32 arithmetic, the same on CPU and GPU bit for bit. No gradient.
Source: Mask R-CNN (He et al. 2017), section 3.1: masks are resized to their boxes and cut at 0.5.
CUDA: a thread for 32 rows of a column, which are bits of a word; run lengths are found in the words.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._pasting import paste
from ops_cuda._registration import LIBRARY, on_cuda


def paste_masks(masks_RMM: Tensor, boxes_R4: Tensor, height: int, width: int) -> Tensor:
    """Masks [R, height, width] (bool) from probabilities in the frames of boxes (x1, y1, x2, y2) in the picture's pixels."""
    masks_RHW: Tensor = torch.ops.detectline.paste_masks(masks_RMM.detach(), boxes_R4.detach(), height, width)
    return masks_RHW


def paste_rle(masks_RMM: Tensor, boxes_R4: Tensor, height: int, width: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Counts [capacity] (int64) and starts [R + 1] (int64), as `encode_rle` gives them, of `paste_masks` of the same."""
    counts_L, starts = torch.ops.detectline.paste_rle(masks_RMM.detach(), boxes_R4.detach(), height, width, capacity)
    return counts_L, starts


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _paste_all(masks: np.ndarray, boxes: np.ndarray, out: np.ndarray) -> None:
    for r in range(len(masks)):
        top, left, inside = paste(masks[r], boxes[r], out.shape[1], out.shape[2])
        out[r, top : top + inside.shape[0], left : left + inside.shape[1]] = inside


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _count_all(masks: np.ndarray, boxes: np.ndarray, height: int, width: int, counts: np.ndarray, starts: np.ndarray) -> None:
    """Fill `counts` as far as it goes, and `starts`."""
    place = 0
    for r in range(len(masks)):
        top, left, inside = paste(masks[r], boxes[r], height, width)
        changed, stop = 0, 0  # the last change of side, and the pixel behind the last one that is in
        for x in range(inside.shape[1]):
            for y in range(inside.shape[0]):
                if inside[y, x]:
                    pixel = (left + x) * height + top + y
                    if pixel != stop or pixel == 0:
                        if stop > 0:
                            place, changed = _change(counts, place, changed, stop)
                        place, changed = _change(counts, place, changed, pixel)
                    stop = pixel + 1
        if 0 < stop < height * width:
            place, changed = _change(counts, place, changed, stop)
        place, changed = _change(counts, place, changed, height * width)
        starts[r + 1] = place


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _change(counts: np.ndarray, place: int, before: int, pixel: int) -> tuple[int, int]:
    """Keep the run that ends before `pixel`: the next one's place and first pixel."""
    if place < len(counts):
        counts[place] = pixel - before
    return place + 1, pixel


def _arrays(masks: Tensor, boxes: Tensor) -> tuple[np.ndarray, np.ndarray]:
    return masks.float().contiguous().numpy(), boxes.float().contiguous().numpy()


def _paste_masks_cpu(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    full = torch.zeros(len(masks), height, width, dtype=torch.bool)
    _paste_all(*_arrays(masks, boxes), full.numpy())
    return full


def _paste_rle_cpu(masks: Tensor, boxes: Tensor, height: int, width: int, capacity: int) -> tuple[Tensor, Tensor]:
    counts = torch.zeros(capacity, dtype=torch.int64)
    starts = torch.zeros(len(masks) + 1, dtype=torch.int64)
    _count_all(*_arrays(masks, boxes), height, width, counts.numpy(), starts.numpy())
    return counts, starts


# -- registration --


def _paste_masks_fake(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    return masks.new_empty((masks.shape[0], height, width), dtype=torch.bool)


def _paste_rle_fake(masks: Tensor, boxes: Tensor, height: int, width: int, capacity: int) -> tuple[Tensor, Tensor]:
    return masks.new_empty((capacity,), dtype=torch.int64), masks.new_empty((masks.shape[0] + 1,), dtype=torch.int64)


LIBRARY.define("paste_masks(Tensor masks, Tensor boxes, SymInt height, SymInt width) -> Tensor")
LIBRARY.define("paste_rle(Tensor masks, Tensor boxes, SymInt height, SymInt width, SymInt capacity) -> (Tensor, Tensor)")
LIBRARY.impl("paste_masks", _paste_masks_cpu, "CPU")
LIBRARY.impl("paste_rle", _paste_rle_cpu, "CPU")
on_cuda("paste_masks", "paste_masks", "paste_masks")
on_cuda("paste_rle", "paste_masks", "paste_rle")
torch.library.register_fake("detectline::paste_masks", _paste_masks_fake, lib=LIBRARY)
torch.library.register_fake("detectline::paste_rle", _paste_rle_fake, lib=LIBRARY)
