"""Rotated boxes (cx, cy, w, h, degrees counter-clockwise as one sees it) as their four corners, and back."""

import math
from collections.abc import Sequence

Point = tuple[float, float]
Rotated = tuple[float, float, float, float, float]


def corners_of(box: Rotated) -> list[Point]:
    """Top left, top right, bottom right, bottom left of the box before it was turned."""
    x, y, w, h, degrees = box
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    sides = ((-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2))
    return [(x + right * cosine + down * sine, y - right * sine + down * cosine) for right, down in sides]


def box_of(points: Sequence[Point]) -> Rotated:
    """The rotated box of four corners in `corners_of`'s order; of four that are no rectangle, by the means of opposite sides.

    The first corner decides the angle: a box and the same turned by 90 degrees with its sides exchanged cover the same.
    """
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = points
    along, across = (bx - ax + cx - dx) / 2, (by - ay + cy - dy) / 2
    height = (math.hypot(dx - ax, dy - ay) + math.hypot(cx - bx, cy - by)) / 2
    degrees = -math.degrees(math.atan2(across, along)) + 0.0
    return (ax + bx + cx + dx) / 4, (ay + by + cy + dy) / 4, math.hypot(along, across), height, degrees
