"""Dense poses on a picture: found parts tinted, annotated points as dots, both in the part's colour."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dense import FRAME, DensePool
from pipeline.predict.dense import DensePose
from pipeline.predict.draw import TINT, class_colour
from pipeline.predict.preprocess import Pixels

DOT = 1 / 160
"""Side of a dot as a share of the picture's longer side; at least a pixel."""


def part_colours(parts_P: NDArray[np.integer]) -> NDArray[np.float64]:
    """RGB colours [P, 3] of parts 1, 2, ...; the same for truth and detections."""
    return np.array([class_colour(part - 1) for part in parts_P.tolist()], np.float64).reshape(-1, 3)


def tint_parts(image_HW3: Pixels, poses: Sequence[DensePose]) -> Pixels:
    """A copy of the RGB picture with each pose's parts tinted, one pose after the other."""
    tinted = image_HW3.copy()
    for pose in poses:
        parts_HW, _ = pose.grids()
        shown = tinted[pose.top : pose.top + pose.shape[0], pose.left : pose.left + pose.shape[1]]
        parts_hw = parts_HW[: shown.shape[0], : shown.shape[1]]
        on = parts_hw > 0
        shown[on] = np.round(shown[on] * (1 - TINT) + part_colours(parts_hw[on]) * TINT)
    return tinted


def dot_points(image_HW3: Pixels, pool: DensePool, boxes_A4: NDArray[np.floating]) -> Pixels:
    """A copy of the RGB picture with a dot at every point of the pool's objects, whose boxes (x1, y1, x2, y2) these are."""
    dotted = image_HW3.copy()
    height, width = image_HW3.shape[:2]
    owner_P = np.repeat(np.arange(len(boxes_A4)), np.diff(pool.starts))
    own_P4 = np.asarray(boxes_A4, np.float64).reshape(-1, 4)[owner_P]
    at_P2 = own_P4[:, :2] + pool.points_P2 / FRAME * (own_P4[:, 2:] - own_P4[:, :2])
    side = max(1, round(DOT * max(height, width)))
    corner_P2 = np.floor(at_P2 - (side - 1) / 2).astype(int)
    on_P = pool.parts_P > 0
    colours_P3 = part_colours(pool.parts_P[on_P])
    for step in range(side * side):
        column_P, row_P = (corner_P2[on_P] + [step % side, step // side]).T
        inside_P = (column_P >= 0) & (column_P < width) & (row_P >= 0) & (row_P < height)
        dotted[row_P[inside_P], column_P[inside_P]] = colours_P3[inside_P]
    return dotted
