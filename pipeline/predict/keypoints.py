"""Keypoints from an exported detector's heatmaps: the numpy twin of `ops_cuda.decode_keypoints`."""

import numpy as np
from numpy.typing import NDArray

SHARPNESS = np.float32(-0.75)
"""Parameter of Keys' bicubic kernel, as torch's interpolation has it."""
Real = NDArray[np.float32]


def decode_keypoints(heatmaps_DKMM: Real, boxes_D4: Real) -> Real:
    """Points (x, y, score) [D, K, 3] in the boxes' pixels: each map's best point, bicubic at its box's resolution.

    The score is exp(value) over the sum of exp of the map's own cells. Rows whose box or map is not finite are zero.
    """
    points_DK3 = np.zeros((*heatmaps_DKMM.shape[:2], 3), np.float32)
    for maps_KMM, box_4, points_K3 in zip(heatmaps_DKMM, np.asarray(boxes_D4, np.float32), points_DK3, strict=True):
        if not np.isfinite(box_4).all():
            continue
        width, height = np.maximum(box_4[2:] - box_4[:2], np.float32(1))
        columns, rows = int(np.ceil(width)), int(np.ceil(height))
        row_at, row_by = _taps(maps_KMM.shape[1], rows)
        column_at, column_by = _taps(maps_KMM.shape[2], columns)
        for map_MM, point in zip(maps_KMM, points_K3, strict=True):  # one map at full size at a time
            if not np.isfinite(map_MM).all():
                continue
            wide_MW = sum(map_MM[:, column_at[:, tap]] * column_by[:, tap] for tap in range(4))
            full_HW = sum(wide_MW[row_at[:, tap]] * row_by[:, tap, None] for tap in range(4))
            y, x = divmod(int(np.argmax(full_HW)), columns)
            point[0] = (np.float32(x) + np.float32(0.5)) * (width / np.float32(columns)) + box_4[0]
            point[1] = (np.float32(y) + np.float32(0.5)) * (height / np.float32(rows)) + box_4[1]
            point[2] = 1 / np.exp(map_MM - np.max(full_HW)).sum()
    return points_DK3


def to_picture_points(points_DK3: Real, size: tuple[int, int], out_size: tuple[int, int]) -> Real:
    """Points of the network's frame in the picture's own, not clipped; sizes as for `postprocess.to_picture`."""
    return points_DK3 * np.array([out_size[1] / size[1], out_size[0] / size[0], 1], np.float32)


def _taps(cells: int, pixels: int) -> tuple[NDArray[np.int64], Real]:
    """Per pixel of a side: four cells (clamped into the map) and what each contributes."""
    at = np.float32(cells) / np.float32(pixels) * (np.arange(pixels, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    first = np.floor(at)
    t = (at - first).astype(np.float32)
    taps = np.stack([_far(t + 1), _near(t), _near(1 - t), _far(2 - t)], axis=1)
    places = first.astype(np.int64)[:, None] + np.arange(-1, 3)
    return np.clip(places, 0, cells - 1), taps.astype(np.float32)


def _near(x: Real) -> Real:
    """Keys' kernel for distances up to one cell."""
    return ((SHARPNESS + 2) * x - (SHARPNESS + 3)) * x * x + 1


def _far(x: Real) -> Real:
    """Keys' kernel for distances from one to two cells."""
    return ((SHARPNESS * x - 5 * SHARPNESS) * x + 8 * SHARPNESS) * x - 4 * SHARPNESS
