"""Slow plain references of rotated boxes, in float64 Python: nothing shared with the ops."""

import math

Point = tuple[float, float]


def corners(box: list[float]) -> list[Point]:
    """Corners in one turning direction: width along (cos, -sin), height along (sin, cos)."""
    x, y, w, h, degrees = box
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    signs = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    return [(x + i * w / 2 * c + j * h / 2 * s, y - i * w / 2 * s + j * h / 2 * c) for i, j in signs]


def side(point: Point, start: Point, end: Point) -> float:
    return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])


def clip(subject: list[Point], window: list[Point]) -> list[Point]:
    """Sutherland and Hodgman, edge by edge of a convex window, in the picture's own frame."""
    for start, end in zip(window, window[1:] + window[:1], strict=True):
        kept: list[Point] = []
        for before, point in zip(subject[-1:] + subject[:-1], subject, strict=True):
            d0, d1 = side(before, start, end), side(point, start, end)
            if (d0 >= 0) != (d1 >= 0):
                t = d0 / (d0 - d1)
                kept.append((before[0] + t * (point[0] - before[0]), before[1] + t * (point[1] - before[1])))
            if d1 >= 0:
                kept.append(point)
        subject = kept
    return subject


def area(polygon: list[Point]) -> float:
    if len(polygon) < 3:
        return 0.0
    x0, y0 = polygon[0]
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return abs(sum((ax - x0) * (by - y0) - (bx - x0) * (ay - y0) for (ax, ay), (bx, by) in pairs)) / 2


def iou(a: list[float], b: list[float]) -> float:
    area_a, area_b = a[2] * a[3], b[2] * b[3]
    if area_a <= 1e-14 or area_b <= 1e-14:
        return 0.0
    inter = area(clip(corners(a), corners(b)))
    return inter / (area_a + area_b - inter)
