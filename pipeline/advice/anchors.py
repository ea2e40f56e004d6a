"""Anchors for a dataset: sizes and ratios by clustering, and the share of truths that they reach. numpy only.

Source: k-means of box shapes under IoU distance (Redmon and Farhadi 2017), here on sizes and on ratios by themselves, since every
size of a level is taken with every ratio.
"""

import numpy as np
from numpy.typing import NDArray

Sizes = tuple[tuple[float, ...], ...]


def cluster(values_A: NDArray[np.float64], count: int, rounds: int = 50) -> NDArray[np.float64]:
    """`count` centres, rising, of positive values under the IoU of nested intervals.

    Intervals of lengths a <= b have IoU a / b (squares its square), so the nearest centre is the nearest in logarithm, and a
    cluster's centre is its median logarithm. Starts at quantiles: no chance is involved.
    """
    logs_A = np.log(values_A)
    centres = np.quantile(logs_A, (np.arange(count) + 0.5) / count)
    for _ in range(rounds):
        nearest_A = np.abs(logs_A[:, None] - centres[None]).argmin(axis=1)
        moved = np.array([np.median(logs_A[nearest_A == k]) if (nearest_A == k).any() else centres[k] for k in range(count)])
        if np.allclose(moved, centres):
            break
        centres = moved
    return np.asarray(np.exp(np.sort(centres)))


def propose_anchors(boxes_A4: NDArray[np.float64], levels: int, per_level: int, ratios: int) -> tuple[Sizes, tuple[float, ...]]:
    """`per_level` sizes for each level, finest first, and ratios (height / width) for all, for truths in the network's pixels."""
    width_A, height_A = (boxes_A4[:, 2:] - boxes_A4[:, :2]).T
    sizes = cluster(np.sqrt(width_A * height_A), levels * per_level)
    for place in range(1, len(sizes)):  # anchors that share a size would be of no use
        sizes[place] = max(sizes[place], sizes[place - 1] * 1.2)
    rounded = [float(round(size, 1)) for size in sizes]
    by_level = tuple(tuple(rounded[first : first + per_level]) for first in range(0, len(rounded), per_level))
    return by_level, tuple(float(round(r, 2)) for r in cluster(height_A / width_A, ratios))


def best_ious(
    boxes_A4: NDArray[np.float64],
    extent_A2: NDArray[np.float64],
    sizes: Sizes,
    ratios: tuple[tuple[float, ...], ...],
    strides: tuple[int, ...],
    offset: float,
    divisor: int,
    rounding: bool = False,
    spread: bool = False,
) -> NDArray[np.float64]:
    """Best IoU [A] of each truth with any anchor of its picture of (height, width) `extent`, padded to multiples of `divisor`.

    `rounding` and `spread` are `AnchorConfig`'s rounding and spacing "grid". Exact without trying every place: for one shape of
    anchor the overlap in x depends on its column alone, the overlap in y on its row, and each is largest at the nearest centre.
    """
    best_A = np.zeros(len(boxes_A4))
    centre_A2 = (boxes_A4[:, :2] + boxes_A4[:, 2:]) / 2
    area_A = np.prod(boxes_A4[:, 2:] - boxes_A4[:, :2], axis=1)
    padded_A2 = np.ceil(extent_A2[:, ::-1] / divisor) * divisor  # width, height
    whole_A2 = np.ceil(padded_A2 / strides[0]) * strides[0]
    for level, stride in enumerate(strides):
        cells_A2 = np.ceil(padded_A2 / stride)
        step_A2 = whole_A2 // cells_A2 if spread else np.full_like(cells_A2, stride)
        index_A2 = np.clip(np.round(centre_A2 / step_A2 - offset), 0, cells_A2 - 1)
        anchor_A2 = (index_A2 + offset) * step_A2
        for size in sizes[level if len(sizes) > 1 else 0]:
            for ratio in ratios[level if len(ratios) > 1 else 0]:
                half = np.array([size / ratio**0.5, size * ratio**0.5]) / 2
                half = np.round(half) if rounding else half
                low = np.maximum(anchor_A2 - half, boxes_A4[:, :2])
                high = np.minimum(anchor_A2 + half, boxes_A4[:, 2:])
                inter_A = np.prod(np.clip(high - low, 0, None), axis=1)
                best_A = np.maximum(best_A, inter_A / (area_A + np.prod(2 * half) - inter_A))
    return best_A
