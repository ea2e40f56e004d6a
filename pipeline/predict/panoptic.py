"""Maps of classes and of segments out of a detector's raw results, for one picture. numpy only: the numpy form of
`pipeline.detector.semantic_maps` and of the op `merge_panoptic`."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.predict.postprocess import paste_mask

ROWS = 128
"""Rows of a picture whose classes are compared at a time: the logits of a whole picture can take gigabytes."""


@dataclass(frozen=True, slots=True)
class Merging:
    """How things and stuff become one map."""

    overlap: float
    """A detection is left out when more than this share of it is taken."""
    stuff_area: float
    """Least pixels of a stuff segment."""
    score: float
    """Least score of a thing."""
    stuff_ids: tuple[int, ...]
    """Category of semantic class 1, 2, ...; class 0 stands for things."""


class Segment(NamedTuple):
    """One segment; its number is its place in the list, counted from 1."""

    thing: bool
    label: int
    """Class of a thing 0..K-1, or semantic class of stuff."""
    score: float
    """Of a thing; 1 for stuff."""


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of one picture."""

    ids_HW: NDArray[np.int32]
    """Number of each pixel's segment; 0 where there is none."""
    listed: list[Segment]


def semantic_map(
    logits_Chw: NDArray[np.float32], stride: int, size: tuple[int, int], out_size: tuple[int, int]
) -> NDArray[np.uint8]:
    """The best class of each pixel [H, W] of a picture.

    The logits are upsampled by `stride`, cut to `size` (height, width of the picture inside the network's input), then brought to
    `out_size`, bilinear each time; both at once here, as products with one matrix per side.
    """
    rows_Hh = _resampling(logits_Chw.shape[1], stride, size[0], out_size[0])
    columns_wW = _resampling(logits_Chw.shape[2], stride, size[1], out_size[1]).T.copy()
    classes_HW = np.empty(out_size, np.uint8)
    for top in range(0, out_size[0], ROWS):
        band_hw = rows_Hh[top : top + ROWS]
        best_HW = np.full((len(band_hw), out_size[1]), -np.inf, np.float32)
        best_class_HW = np.zeros(best_HW.shape, np.uint8)
        for number, logits_hw in enumerate(logits_Chw):
            value_HW = band_hw @ logits_hw @ columns_wW
            better_HW = value_HW > best_HW
            best_HW[better_HW] = value_HW[better_HW]
            best_class_HW[better_HW] = number
        classes_HW[top : top + ROWS] = best_class_HW
    return classes_HW


def merged(
    masks_DMM: NDArray[np.float32],
    boxes_D4: NDArray[np.floating],
    scores_D: NDArray[np.floating],
    labels_D: NDArray[np.int64],
    semantic_HW: NDArray[np.uint8],
    rule: Merging,
) -> Segments:
    """The picture's segments: things by falling score where they are free, then stuff (class 0 of `semantic` stands for things).

    Masks are probabilities in the frames of their boxes, which are in the picture's pixels and come by falling score.
    """
    ids_HW = np.zeros(semantic_HW.shape, np.int32)
    listed: list[Segment] = []
    for mask_MM, box_4, score, label in zip(masks_DMM, boxes_D4, scores_D.tolist(), labels_D.tolist(), strict=True):
        if score < rule.score:
            break
        mask_HW = paste_mask(mask_MM, box_4, *semantic_HW.shape)
        free_HW = mask_HW & (ids_HW == 0)
        area = int(mask_HW.sum())
        if area == 0 or (area - int(free_HW.sum())) / area > rule.overlap:
            continue
        listed.append(Segment(True, label, score))
        ids_HW[free_HW] = len(listed)
    free_HW = ids_HW == 0
    pixels_C = np.bincount(semantic_HW[free_HW], minlength=1)
    for number in (np.flatnonzero(pixels_C[1:] >= max(1.0, rule.stuff_area)) + 1).tolist():
        listed.append(Segment(False, number, 1.0))
        ids_HW[free_HW & (semantic_HW == number)] = len(listed)
    return Segments(ids_HW, listed)


def _resampling(cells: int, stride: int, pixels: int, out: int) -> NDArray[np.float32]:
    """Weights [out, cells]: `cells` upsampled by `stride`, cut to `pixels`, brought to `out`."""
    weights: NDArray[np.float32] = (_bilinear(pixels, out) @ _bilinear(cells, cells * stride)[:pixels]).astype(np.float32)
    return weights


def _bilinear(given: int, wanted: int) -> NDArray[np.float64]:
    """Weights [wanted, given] of a bilinear resize: between the centres of cells, the outer cells continued to the border."""
    at = np.clip((np.arange(wanted) + 0.5) * (given / wanted) - 0.5, 0, given - 1)
    weights: NDArray[np.float64] = np.maximum(1 - np.abs(at[:, None] - np.arange(given)), 0)
    return weights
