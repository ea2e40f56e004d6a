"""Findings as pictures: the part of the picture around the faulty boxes, those in red, the others in blue."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DataError
from pipeline.labels.columns import Columns, Findings
from pipeline.predict.draw import draw_boxes
from pipeline.predict.preprocess import Pixels, read_image, resize

SIDE = 640
"""Longer side of a drawn picture, in pixels."""
SMALLEST = 0.02
"""A faulty box is drawn at least this large, as a share of the view's longer side, so that one without area can be seen."""
CONTEXT = 3.0
"""The view is this many times as large as the faulty boxes together ..."""
LEAST = 0.4
"""... and at least this share of the picture's sides."""
STROKE = np.outer([1, 2], [-1, -1, 1, 1])
"""Lines around a faulty box's own thin one, in drawn pixels: together a thick one."""
OUTSIDE = 70
"""Grey value of what lies beyond the picture."""
FAULTY, OTHER = (230, 25, 75), (0, 130, 200)


class Drawn(NamedTuple):
    """One picture of findings."""

    pixels_HW3: Pixels
    caption: str


def pictures_of(data: Columns, findings: Findings, limit: int) -> Iterator[Drawn]:
    """Up to `limit` pictures that hold `findings`, all of one picture's together. Pictures that do not decode are skipped."""
    of_picture: dict[int, list[int]] = defaultdict(list)
    for number, row in enumerate(findings.image_F.tolist()):
        if row >= 0 and data.readable_I[row]:
            of_picture[row].append(number)
    rows_I = np.argsort(data.image_A, kind="stable")
    starts = np.searchsorted(data.image_A[rows_I], np.arange(len(data.file_names) + 1))
    for row, numbers in list(of_picture.items())[:limit]:
        try:
            image = read_image(data.path(row))
        except DataError:  # it went between the inspection and now
            continue
        annotations = findings.annotation_F[numbers]
        lines = [_line(data, a, findings.reasons[number]) for a, number in zip(annotations.tolist(), numbers, strict=True)]
        more = [f"+ {len(lines) - 3} more"] if len(lines) > 3 else []
        drawn = _draw(data, image, rows_I[starts[row] : starts[row + 1]], annotations[annotations >= 0])
        yield Drawn(drawn, "\n".join([f"{data.names[data.split_I[row]]} / {data.file_names[row]}", *lines[:3], *more]))


def drawable(data: Columns, findings: Findings) -> int:
    """How many pictures `pictures_of` could show."""
    rows = np.unique(findings.image_F[findings.image_F >= 0])
    return int(data.readable_I[rows].sum())


def _line(data: Columns, annotation: int, reason: str) -> str:
    return f"annotation {data.ids_A[annotation]}: {reason}" if annotation >= 0 else reason


def _draw(data: Columns, image_HW3: Pixels, rows: NDArray[np.int64], faulty: NDArray[np.int64]) -> Pixels:
    others = rows[~np.isin(rows, faulty)]
    boxes_D4 = np.concatenate([data.boxes_A4[others], data.boxes_A4[faulty]])
    left, top, right, bottom = view(data.boxes_A4[faulty], *image_HW3.shape[:2])
    image_HW3 = cut(image_HW3, left, top, right, bottom)
    height, width = image_HW3.shape[:2]
    boxes_D4 -= [left, top, left, top]
    boxes_D4[len(others) :] = _visible(boxes_D4[len(others) :].clip(0, [width, height] * 2), SMALLEST * max(height, width))
    touching = (np.minimum(boxes_D4[:, 2:], [width, height]) > np.maximum(boxes_D4[:, :2], 0)).all(axis=1)
    shown = touching | (np.arange(len(boxes_D4)) >= len(others))
    boxes_D4, faulty_D = boxes_D4[shown], np.flatnonzero(shown) >= len(others)
    scale = SIDE / max(height, width)
    image_HW3 = resize(image_HW3, max(1, round(height * scale)), max(1, round(width * scale)))
    boxes_D4 = np.concatenate([boxes_D4 * scale, *(boxes_D4[faulty_D] * scale + STROKE[:, None])])
    colours = [FAULTY if bad else OTHER for bad in faulty_D.tolist()] + [FAULTY] * (len(boxes_D4) - len(faulty_D))
    return draw_boxes(image_HW3, boxes_D4, [""] * len(boxes_D4), colours)


def view(boxes_D4: NDArray[np.float64], height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what to show: `boxes_D4` with what is around them, or the whole picture for none.

    It reaches beyond the picture where a box does, by at most half of the picture.
    """
    whole = np.array([width, height])
    boxes_D4 = boxes_D4[np.isfinite(boxes_D4).all(axis=1)].clip(np.tile(-0.45 * whole, 2), np.tile(1.45 * whole, 2))
    if not len(boxes_D4):
        return 0, 0, width, height
    corners_2D = np.concatenate([boxes_D4[:, :2], boxes_D4[:, 2:]])
    first, last = corners_2D.min(axis=0), corners_2D.max(axis=0)
    low = np.where(first < 0, first - 0.05 * whole, 0)
    high = np.where(last > whole, last + 0.05 * whole, whole)
    side = np.minimum(np.maximum((last - first).max() * CONTEXT, LEAST * whole), high - low)
    start = np.floor(np.clip((first + last) / 2 - side / 2, low, high - side)).astype(int)
    stop = np.minimum(start + np.ceil(side).astype(int) + 1, np.ceil(high).astype(int))
    return int(start[0]), int(start[1]), int(stop[0]), int(stop[1])


def cut(image_HW3: Pixels, left: int, top: int, right: int, bottom: int) -> Pixels:
    """That part of the picture; OUTSIDE where there is none."""
    height, width = image_HW3.shape[:2]
    part_HW3 = np.full((bottom - top, right - left, 3), OUTSIDE, np.uint8)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if x2 > x1 and y2 > y1:
        part_HW3[y1 - top : y2 - top, x1 - left : x2 - left] = image_HW3[y1:y2, x1:x2]
    return part_HW3


def _visible(boxes_D4: NDArray[np.float64], smallest: float) -> NDArray[np.float64]:
    """The boxes, grown about their centre where a side is shorter than `smallest` pixels."""
    centre_D2, size_D2 = (boxes_D4[:, :2] + boxes_D4[:, 2:]) / 2, np.abs(boxes_D4[:, 2:] - boxes_D4[:, :2])
    half_D2 = np.maximum(size_D2, smallest) / 2
    return np.concatenate([centre_D2 - half_D2, centre_D2 + half_D2], axis=1)
