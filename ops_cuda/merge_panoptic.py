"""Panoptic merging: one map of segments out of overlapping masks and a map of classes.

What: detections by falling score until one is below `score`. Each is pasted at full size (a pixel is in where the mask, bilinear
at the pixel's centre and zero outside its grid, is at least one half) and takes the pixels that are still free; it is left out
when more than `overlap` of it is taken already. Then every class but 0, which stands for all things, takes the free pixels of
its own when they are at least `stuff_area`. Segments are numbered from 1 in that order.
Limits: D + C below 2**31; a mask without a pixel makes no segment. A map that holds another class is a ValueError on the CPU; on
the GPU, which waits for nobody, such pixels are left without a segment. The CPU keeps no picture-sized mask; the GPU keeps all of
them, a bit a pixel.
Source: panoptic segmentation (Kirillov et al. 2019), Panoptic FPN (Kirillov et al. 2019). No gradient. Outside the ONNX graph,
where `pipeline.predict.panoptic` is the numpy form.
CUDA: everything runs over words of 32 rows of a column; a block per picture decides on its detections in turn.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._pasting import paste
from ops_cuda._registration import LIBRARY, on_cuda


def merge_panoptic(
    masks_NDMM: Tensor,
    boxes_ND4: Tensor,
    scores_ND: Tensor,
    count_N: Tensor,
    semantic_NHW: Tensor,
    sizes_N2: Tensor,
    classes: int,
    overlap: float,
    stuff_area: float,
    score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Segments of a batch: ids [N, H, W] (int32, 0 = none), owners [N, D + classes] (int64) and their counts [N] (int64).

    Masks are probabilities in the frames of their boxes, boxes and `semantic` (classes 0..classes-1, whole numbers) in the
    pictures' own pixels, of which `sizes` (height, width) are real. Segment s belongs to owner s - 1: a detection's row, or D + c
    for the class c; -1 is padding. Rows come by falling score; `count` of each image are real.
    """
    ids_NHW, owner_NS, segments_N = torch.ops.detectline.merge_panoptic(
        masks_NDMM.detach(),
        boxes_ND4.detach(),
        scores_ND.detach(),
        count_N,
        semantic_NHW,
        sizes_N2,
        classes,
        overlap,
        stuff_area,
        score,
    )
    return ids_NHW, owner_NS, segments_N


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _merge_image(
    masks: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    count: int,
    semantic: np.ndarray,
    classes: int,
    overlap: float,
    stuff_area: float,
    score: float,
    ids: np.ndarray,
    owner: np.ndarray,
) -> int:
    """Fill one picture's `ids` and `owner`, and return how many segments there are."""
    height, width = ids.shape
    segments = 0
    for d in range(count):
        if np.float64(scores[d]) < score:
            break
        top, left, inside = paste(masks[d], boxes[d], height, width)
        area, taken = 0, 0
        for y in range(inside.shape[0]):
            for x in range(inside.shape[1]):
                if inside[y, x]:
                    area += 1
                    taken += ids[top + y, left + x] > 0
        if area == 0 or taken / area > overlap:
            continue
        segments += 1
        owner[segments - 1] = d
        for y in range(inside.shape[0]):
            for x in range(inside.shape[1]):
                if inside[y, x] and ids[top + y, left + x] == 0:
                    ids[top + y, left + x] = segments
    free = np.zeros(classes, np.int64)
    for y in range(height):
        for x in range(width):
            if ids[y, x] == 0:
                free[semantic[y, x]] += 1
    number = np.zeros(classes, np.int32)
    for c in range(1, classes):
        if free[c] > 0 and free[c] >= stuff_area:
            segments += 1
            owner[segments - 1] = len(masks) + c
            number[c] = segments
    for y in range(height):
        for x in range(width):
            if ids[y, x] == 0:
                ids[y, x] = number[semantic[y, x]]
    return segments


def _merge_panoptic_cpu(
    masks: Tensor,
    boxes: Tensor,
    scores: Tensor,
    count: Tensor,
    semantic: Tensor,
    sizes: Tensor,
    classes: int,
    overlap: float,
    stuff_area: float,
    score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    ids, owner, segments = empty_segments(masks, semantic, classes)
    masks_np, boxes_np, scores_np = (values.float().contiguous().numpy() for values in (masks, boxes, scores))
    semantic_np, ids_np, owner_np = semantic.to(torch.int32).numpy(), ids.numpy(), owner.numpy()
    for n, (real, (height, width)) in enumerate(zip(count.tolist(), sizes.tolist(), strict=True)):
        own = np.ascontiguousarray(semantic_np[n, :height, :width])
        if own.size and not 0 <= own.min() <= own.max() < classes:
            raise ValueError(
                f"the semantic map of image {n} holds classes {own.min()}..{own.max()}; it must hold 0..{classes - 1}"
            )
        picture = np.zeros((height, width), np.int32)
        segments[n] = _merge_image(
            masks_np[n], boxes_np[n], scores_np[n], real, own, classes, overlap, stuff_area, score, picture, owner_np[n]
        )
        ids_np[n, :height, :width] = picture
    return ids, owner, segments


def empty_segments(masks: Tensor, semantic: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Results without a segment."""
    return (
        semantic.new_zeros(semantic.shape, dtype=torch.int32),
        masks.new_full((masks.shape[0], masks.shape[1] + classes), -1, dtype=torch.int64),
        masks.new_zeros((masks.shape[0],), dtype=torch.int64),
    )


# -- registration --


def _merge_panoptic_fake(
    masks: Tensor,
    boxes: Tensor,
    scores: Tensor,
    count: Tensor,
    semantic: Tensor,
    sizes: Tensor,
    classes: int,
    overlap: float,
    stuff_area: float,
    score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_segments(masks, semantic, classes)


LIBRARY.define(
    "merge_panoptic(Tensor masks, Tensor boxes, Tensor scores, Tensor count, Tensor semantic, Tensor sizes, int classes, "
    "float overlap, float stuff_area, float score) -> (Tensor, Tensor, Tensor)"
)
LIBRARY.impl("merge_panoptic", _merge_panoptic_cpu, "CPU")
on_cuda("merge_panoptic", "merge_panoptic", "merge_panoptic")
torch.library.register_fake("detectline::merge_panoptic", _merge_panoptic_fake, lib=LIBRARY)
