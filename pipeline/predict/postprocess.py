"""From the network's frame back to the picture: rescale, clip, drop what became empty, paste masks. The detector's numpy twin."""

from typing import NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray


class RawDetections(TypedDict):
    """What a backend gives for a batch, in the network's frame; row d of image n is real when d < count[n]."""

    boxes: NotRequired[NDArray[np.float32]]
    """[N, D, 4] (x1, y1, x2, y2), where the detector finds upright boxes."""
    rotated: NotRequired[NDArray[np.float32]]
    """[N, D, 5] (cx, cy, w, h, degrees), where it finds rotated ones."""
    scores: NDArray[np.float32]
    """[N, D], falling."""
    labels: NDArray[np.int64]
    """[N, D] class 0..K-1; -1 in padded rows."""
    count: NDArray[np.int64]
    """[N]."""
    masks: NotRequired[NDArray[np.float32]]
    """[N, D, M, M] probabilities in the frames of the boxes, where the detector finds masks."""
    heatmaps: NotRequired[NDArray[np.float32]]
    """[N, D, K, M, M] logits in the frames of the boxes, where the detector finds keypoints."""
    semantic: NotRequired[NDArray[np.float32]]
    """[N, C, h, w] logits of the semantic classes at a coarser stride, where the detector finds them."""
    dense_coarse: NotRequired[NDArray[np.float32]]
    """[N, D, C, M, M] logits of the coarse segmentation, where the detector finds dense poses."""
    dense_fine: NotRequired[NDArray[np.float32]]
    """[N, D, P + 1, M, M] logits of the surface's parts."""
    dense_u: NotRequired[NDArray[np.float32]]
    dense_v: NotRequired[NDArray[np.float32]]
    """[N, D, P + 1, M, M] surface coordinates of the parts."""


DENSE = ("dense_coarse", "dense_fine", "dense_u", "dense_v")
"""Outputs of a detector of dense poses."""


class Rle(TypedDict):
    """A mask of a picture as COCO's run lengths."""

    size: list[int]
    """Height and width of the picture."""
    counts: bytes
    """Packed."""


def to_picture(
    boxes_D4: NDArray[np.float32], size: tuple[int, int], out_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Boxes of one picture in its own pixels, and the rows of `boxes_D4` that they come from.

    `size` is (height, width) of the picture inside the network's input, `out_size` its own. Arithmetic in float32, as the torch
    twin's; rows without area after clipping are dropped.
    """
    scale = np.array([out_size[1] / size[1], out_size[0] / size[0]] * 2, np.float32)
    limit = np.array([out_size[1], out_size[0]] * 2, np.float32)
    scaled_D4 = np.clip(boxes_D4 * scale, np.float32(0), limit)
    kept = np.flatnonzero((scaled_D4[:, 2] > scaled_D4[:, 0]) & (scaled_D4[:, 3] > scaled_D4[:, 1]))
    return scaled_D4[kept], kept


def paste_mask(mask_MM: NDArray[np.float32], box_4: NDArray[np.floating], height: int, width: int) -> NDArray[np.bool_]:
    """One mask at full size [height, width], from probabilities in the frame of a box with area.

    A pixel is in where the mask, bilinear at the pixel's centre and zero outside the grid, is at least one half; that is never
    outside the box.
    """
    x1, y1, x2, y2 = np.asarray(box_4, np.float32)
    rows, columns = _touched(y1, y2, height), _touched(x1, x2, width)
    values = _weights(y1, y2, rows, mask_MM.shape[0]) @ mask_MM @ _weights(x1, x2, columns, mask_MM.shape[1]).T
    full_HW = np.zeros((height, width), np.bool_)
    full_HW[rows, columns] = values >= 0.5
    return full_HW


def encode_mask(mask_HW: NDArray[np.bool_]) -> Rle:
    """A mask of a picture as run lengths."""
    from pycocotools import mask as coco_mask

    packed: Rle = coco_mask.encode(np.asfortranarray(mask_HW, np.uint8))
    return packed


def _touched(start: np.float32, end: np.float32, pixels: int) -> slice:
    """Rows (or columns) of the picture that an interval touches."""
    return slice(max(0, int(np.floor(start))), min(pixels, int(np.ceil(end)) + 1))


def _weights(start: np.float32, end: np.float32, pixels: slice, cells: int) -> NDArray[np.float32]:
    """Bilinear weights [pixels, cells] of a mask's cells at the pixels' centres, in float32 as the torch twin's."""
    centre = np.arange(pixels.start, pixels.stop, dtype=np.float32) + np.float32(0.5)
    at = (centre - start) / (end - start) * np.float32(cells) - np.float32(0.5)
    weights: NDArray[np.float32] = np.maximum(1 - np.abs(at[:, None] - np.arange(cells, dtype=np.float32)), np.float32(0))
    return weights
