"""Rotated boxes (cx, cy, w, h, degrees counter-clockwise as one sees it) on the way to the picture. The detector's numpy twin."""

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def corners(boxes_D5: NDArray[np.floating]) -> NDArray[np.float64]:
    """The corners [D, 4, 2] of the boxes, clockwise as one sees them, from the upper left one of the box unturned."""
    x, y, w, h, degrees = np.asarray(boxes_D5, np.float64).reshape(-1, 5).T
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    across_D2, down_D2 = np.stack([cosine, -sine], 1) * w[:, None] / 2, np.stack([sine, cosine], 1) * h[:, None] / 2
    centre_D2 = np.stack([x, y], axis=1)
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return np.stack([centre_D2 + u * across_D2 + v * down_D2 for u, v in signs], axis=1)


def enclosing(boxes_D5: NDArray[np.floating]) -> NDArray[np.float64]:
    """The upright boxes [D, 4] (x1, y1, x2, y2) around rotated ones."""
    corners_D42 = corners(boxes_D5)
    return np.concatenate([corners_D42.min(axis=1), corners_D42.max(axis=1)], axis=1)


def wrapped(degrees: Boxes) -> Boxes:
    """The same directions in [-180, 180), in float32."""
    turned: Boxes = np.remainder(degrees + np.float32(180), np.float32(360)) - np.float32(180)
    return turned


def clipped(boxes_D5: Boxes, size: tuple[int, int]) -> Boxes:
    """Boxes with angles in [-180, 180), those turned by at most one degree inside a picture of (height, width) `size`."""
    limit = np.array([size[1], size[0]], np.float32)
    centre, side, angle = boxes_D5[..., :2], boxes_D5[..., 2:4], wrapped(boxes_D5[..., 4:])
    low, high = (np.clip(edge, np.float32(0), limit) for edge in (centre - side / 2, centre + side / 2))
    inside = np.concatenate([(low + high) / 2, np.minimum(side, high - low)], axis=-1)
    return np.concatenate([np.where(np.abs(angle) <= 1, inside, boxes_D5[..., :4]), angle], axis=-1, dtype=np.float32)


def rotated_to_picture(boxes_D5: Boxes, size: tuple[int, int], out_size: tuple[int, int]) -> tuple[Boxes, NDArray[np.int64]]:
    """Boxes of one picture in its own pixels, and the rows of `boxes_D5` that they come from; `to_picture` of rotated boxes."""
    sx, sy = np.float32(out_size[1] / size[1]), np.float32(out_size[0] / size[0])
    theta = boxes_D5[:, 4] * np.float32(np.pi / 180)
    cosine, sine = np.cos(theta), np.sin(theta)
    width = boxes_D5[:, 2] * np.sqrt((sx * cosine) ** 2 + (sy * sine) ** 2)
    height = boxes_D5[:, 3] * np.sqrt((sx * sine) ** 2 + (sy * cosine) ** 2)
    angle = np.arctan2(sx * sine, sy * cosine) * np.float32(180 / np.pi)
    scaled_D5 = clipped(np.stack([boxes_D5[:, 0] * sx, boxes_D5[:, 1] * sy, width, height, angle], axis=1), out_size)
    kept = np.flatnonzero((scaled_D5[:, 2:4] > 0).all(axis=1))
    return scaled_D5[kept], kept


def rotated_iou(box_5: NDArray[np.floating], others_D5: NDArray[np.floating]) -> NDArray[np.float64]:
    """IoU [D] of one box with others, in float64; 0 where one has no area.

    The others are cut by the box's four sides in its own frame. What lies beyond a side is moved onto it instead of dropped: such
    points enclose nothing, so that all polygons keep one number of corners (Green's theorem gives their areas).
    """
    box, others = np.asarray(box_5, np.float64), np.asarray(others_D5, np.float64).reshape(-1, 5)
    iou = np.zeros(len(others))
    area, area_D = box[2] * box[3], others[:, 2] * others[:, 3]
    apart_D = np.hypot(others[:, 0] - box[0], others[:, 1] - box[1])
    reach_D = (np.hypot(box[2], box[3]) + np.hypot(others[:, 2], others[:, 3])) / 2
    near = np.flatnonzero((apart_D < reach_D) & (area_D > 1e-14) & (area > 1e-14))
    if not len(near):
        return iou
    points_D42 = corners(others[near]) - box[:2]
    cosine, sine = np.cos(np.radians(box[4])), np.sin(np.radians(box[4]))
    x = points_D42[..., 0] * cosine - points_D42[..., 1] * sine
    y = points_D42[..., 0] * sine + points_D42[..., 1] * cosine
    for side in (box[2] / 2, box[3] / 2) * 2:
        x, y = _cut(x, y, side)
        x, y = y, -x  # the next side, seen as this one
    inter_D = np.abs((x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1)) / 2
    inter_D = np.minimum(inter_D, np.minimum(area, area_D[near]))
    iou[near] = inter_D / (area + area_D[near] - inter_D)
    return iou


def _cut(x: NDArray[np.float64], y: NDArray[np.float64], limit: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Polygons [D, P] where x <= limit, as [D, 2 P] corners: each one's own, then where its edge crosses, else the same again."""
    next_x, next_y = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    crosses = (x <= limit) != (next_x <= limit)
    share = np.divide(limit - x, next_x - x, out=np.zeros_like(x), where=crosses)
    inside = np.minimum(x, limit)
    between_x, between_y = np.where(crosses, limit, inside), np.where(crosses, y + share * (next_y - y), y)
    shape = (len(x), 2 * x.shape[1])
    return np.stack([inside, between_x], axis=2).reshape(shape), np.stack([y, between_y], axis=2).reshape(shape)
