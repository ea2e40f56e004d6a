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
