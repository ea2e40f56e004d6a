"""Keypoints from heatmaps: the best point of each map, bicubic at the resolution of its box.

What: map k of region r is thought of as stretched over ceil(width) x ceil(height) pixels by bicubic interpolation (a = -0.75,
samples at pixel centres, edges repeated); the largest value's pixel (index + 0.5), shrunk by side / ceil(side) and moved to the
box, is the point. Its score is exp(value) over the sum of exp of the map's own cells. Equal values keep the first row, then the
first column.
Limits: float32; sides below one pixel count as one. A region whose box or map is not finite gives zeros. Of a stretched map only
one map's columns are kept: 100 regions of 17 maps at full size would take gigabytes.
Source: He et al. 2017 (Mask R-CNN), section 5; bicubic kernel of Keys 1981. No gradient. ONNX: the op stays outside graphs; a
file gives heatmaps, and `pipeline.predict.keypoints` is the numpy twin that decodes them.
CUDA: a block per map; a thread keeps four interpolated values of its column. Half types are read as they are.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda

SHARPNESS = np.float32(-0.75)
"""Keys' parameter a, as torch's bicubic interpolation has it."""


def decode_keypoints(heatmaps_RKMM: Tensor, boxes_R4: Tensor) -> Tensor:
    """Points [R, K, 4] of the regions' maps: x and y in the boxes' pixels, the map's value there, and its score."""
    points_RK4: Tensor = torch.ops.detectline.decode_keypoints(heatmaps_RKMM.detach(), boxes_R4.detach())
    return points_RK4


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _taps(cells: int, pixels: int, first: np.ndarray, weights: np.ndarray) -> None:
    """Per pixel of a side: four cells (clamped into the map) and what each contributes."""
    step = np.float32(cells) / np.float32(pixels)
    one, two, a = np.float32(1), np.float32(2), SHARPNESS
    for pixel in range(pixels):
        at = step * (np.float32(pixel) + np.float32(0.5)) - np.float32(0.5)
        floor = math.floor(at)
        t = np.float32(at - np.float32(floor))
        u, near, mirrored = one - t, t, one - t
        far, mirrored_far = near + one, mirrored + one
        weights[pixel, 0] = ((a * far - np.float32(5) * a) * far + np.float32(8) * a) * far - np.float32(4) * a
        weights[pixel, 1] = ((a + two) * near - (a + np.float32(3))) * near * near + one
        weights[pixel, 2] = ((a + two) * u - (a + np.float32(3))) * u * u + one
        weights[pixel, 3] = (
            (a * mirrored_far - np.float32(5) * a) * mirrored_far + np.float32(8) * a
        ) * mirrored_far - np.float32(4) * a
        for tap in range(4):
            first[pixel, tap] = min(max(int(floor) - 1 + tap, 0), cells - 1)


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _best(
    map_MM: np.ndarray, row_at: np.ndarray, row_by: np.ndarray, column_at: np.ndarray, column_by: np.ndarray, wide: np.ndarray
) -> tuple[int, int, np.float32]:
    """Row, column and value of the stretched map's first maximum; `wide` [cells, columns] is working space."""
    cells, rows, columns = map_MM.shape[0], len(row_at), len(column_at)
    for cell in range(cells):
        for x in range(columns):
            at, by = column_at[x], column_by[x]
            wide[cell, x] = (
                map_MM[cell, at[0]] * by[0]
                + map_MM[cell, at[1]] * by[1]
                + map_MM[cell, at[2]] * by[2]
                + map_MM[cell, at[3]] * by[3]
            )
    best, best_y, best_x = np.float32(-np.inf), 0, 0
    line = np.empty(columns, np.float32)
    for y in range(rows):
        a, b, c, d = row_by[y, 0], row_by[y, 1], row_by[y, 2], row_by[y, 3]
        r0, r1, r2, r3 = wide[row_at[y, 0]], wide[row_at[y, 1]], wide[row_at[y, 2]], wide[row_at[y, 3]]
        for x in range(columns):
            line[x] = r0[x] * a + r1[x] * b + r2[x] * c + r3[x] * d
        for x in range(columns):
            if line[x] > best:
                best, best_y, best_x = line[x], y, x
    return best_y, best_x, best


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _decode(maps: np.ndarray, boxes: np.ndarray, points: np.ndarray) -> None:
    regions, keypoints, cells = maps.shape[0], maps.shape[1], maps.shape[2]
    for r in range(regions):
        width, height = max(boxes[r, 2] - boxes[r, 0], np.float32(1)), max(boxes[r, 3] - boxes[r, 1], np.float32(1))
        if not (np.isfinite(boxes[r]).all() and np.isfinite(width) and np.isfinite(height)):
            continue
        columns, rows = math.ceil(width), math.ceil(height)
        row_at, row_by = np.empty((rows, 4), np.int64), np.empty((rows, 4), np.float32)
        column_at, column_by = np.empty((columns, 4), np.int64), np.empty((columns, 4), np.float32)
        _taps(cells, rows, row_at, row_by)
        _taps(cells, columns, column_at, column_by)
        wide = np.empty((cells, columns), np.float32)
        for k in range(keypoints):
            if not np.isfinite(maps[r, k]).all():
                continue
            y, x, value = _best(maps[r, k], row_at, row_by, column_at, column_by, wide)
            total = np.float32(0)
            for cell in range(cells):
                for other in range(cells):
                    total += np.float32(math.exp(maps[r, k, cell, other] - value))
            points[r, k, 0] = (np.float32(x) + np.float32(0.5)) * (width / np.float32(columns)) + boxes[r, 0]
            points[r, k, 1] = (np.float32(y) + np.float32(0.5)) * (height / np.float32(rows)) + boxes[r, 1]
            points[r, k, 2] = value
            points[r, k, 3] = np.float32(1) / total


def _decode_keypoints_cpu(heatmaps: Tensor, boxes: Tensor) -> Tensor:
    points = torch.zeros(*heatmaps.shape[:2], 4)
    _decode(heatmaps.float().contiguous().numpy(), boxes.float().contiguous().numpy(), points.numpy())
    return points


# -- registration --


def _decode_keypoints_fake(heatmaps: Tensor, boxes: Tensor) -> Tensor:
    return heatmaps.new_empty((*heatmaps.shape[:2], 4), dtype=torch.float32)


LIBRARY.define("decode_keypoints(Tensor heatmaps, Tensor boxes) -> Tensor")
LIBRARY.impl("decode_keypoints", _decode_keypoints_cpu, "CPU")
on_cuda("decode_keypoints", "decode_keypoints", "decode_keypoints")
torch.library.register_fake("detectline::decode_keypoints", _decode_keypoints_fake, lib=LIBRARY)
