"""Geometry of all polygons of a split at once, compiled. Imported by what looks at masks: numba starts slowly.

Crossings are proper ones (two edges cut each other inside); touching and shared points are no fault. A polygon is compared edge
by edge along x, with at most `BUDGET` comparisons, so that a hostile one with a million points costs seconds, not hours.
"""

from typing import TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

BUDGET = 20_000_000
"""Edges that are compared or measured in one polygon; crossings beyond are not looked for."""
LARGEST_SHARE = 0.5
"""No loop is more than half of the two that a crossing makes."""
FLAT = 1e-9
"""A polygon is flat when no point is further from one line than this share of its size and place: what rounding leaves."""
FEW = 64
"""Polygons with at most so many points are compared edge by edge without sorting."""

Whole: TypeAlias = NDArray[np.int64]
Real: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
jit = numba.njit(cache=True, error_model="numpy", nogil=True)


@jit
def _turn(a_2: Real, b_2: Real, c_2: Real) -> float:
    return (b_2[0] - a_2[0]) * (c_2[1] - a_2[1]) - (b_2[1] - a_2[1]) * (c_2[0] - a_2[0])  # type: ignore[no-any-return]


@jit
def _cut(points_P2: Real, i: int, j: int) -> bool:
    """Whether the edges from points i and j cut each other inside."""
    count = len(points_P2)
    a, b, c, d = points_P2[i], points_P2[(i + 1) % count], points_P2[j], points_P2[(j + 1) % count]
    if max(a[1], b[1]) <= min(c[1], d[1]) or max(c[1], d[1]) <= min(a[1], b[1]):
        return False
    one, two, three, four = _turn(a, b, c), _turn(a, b, d), _turn(c, d, a), _turn(c, d, b)
    return ((one > 0) != (two > 0)) and one != 0 and two != 0 and ((three > 0) != (four > 0)) and three != 0 and four != 0


@jit
def _loop(points_P2: Real, i: int, j: int) -> float:
    """Of a polygon whose edges i < j cut each other: the smaller of the two loops' areas, as a share of both."""
    count = len(points_P2)
    a, b, c, d = points_P2[i], points_P2[i + 1], points_P2[j], points_P2[(j + 1) % count]
    along = _turn(c, d, a) / (_turn(c, d, a) - _turn(c, d, b))
    x, y = a[0] + along * (b[0] - a[0]), a[1] + along * (b[1] - a[1])
    total = inner = 0.0
    for k in range(count):
        p, q = points_P2[k], points_P2[(k + 1) % count]
        total += (p[0] - x) * (q[1] - y) - (q[0] - x) * (p[1] - y)
        if i < k < j:
            inner += (p[0] - x) * (q[1] - y) - (q[0] - x) * (p[1] - y)
    rest = abs(total - inner)
    inner = abs(inner)
    return min(inner, rest) / (inner + rest) if inner + rest > 0 else 0.0


@jit
def _neighbours(points_P2: Real, i: int, j: int) -> bool:
    """Whether the edges i < j are neighbours."""
    return j == i + 1 or (i == 0 and j == len(points_P2) - 1)


@jit
def first_crossing(points_P2: Real, least: float) -> tuple[int, int, float]:
    """(i, j, share of the loop) of the first two edges i < j that cut off more than the share `least`; (-1, -1, 0) for none."""
    return _crossing(points_P2, least, least)


@jit
def greatest_loop(points_P2: Real, least: float) -> float:
    """The greatest share above `least` that two edges cut off; 0 for none."""
    return _crossing(points_P2, least, LARGEST_SHARE)[2]


@jit
def _crossing(points_P2: Real, least: float, enough: float) -> tuple[int, int, float]:
    """Of the crossings that cut off more than `least`: the first above `enough`, or else the one with the greatest loop."""
    count = len(points_P2)
    if count > FEW:
        return _crossing_of_many(points_P2, least, enough)
    best, share_of_best = (-1, -1), least
    for i in range(count - 2):
        low, high = points_P2[i, 0], points_P2[i + 1, 0]
        if low > high:
            low, high = high, low
        for j in range(i + 2, count):
            x, after = points_P2[j, 0], points_P2[j + 1 if j + 1 < count else 0, 0]
            if (x < low and after < low) or (x > high and after > high) or _neighbours(points_P2, i, j):
                continue
            if _cut(points_P2, i, j):
                share = _loop(points_P2, i, j)
                if share > share_of_best:
                    best, share_of_best = (i, j), share
                    if share > enough:
                        return i, j, share
    return best[0], best[1], share_of_best if best[0] >= 0 else 0.0


@jit
def _crossing_of_many(points_P2: Real, least: float, enough: float) -> tuple[int, int, float]:
    """The same, with the edges sorted along x: no edge is compared with one that begins behind its end."""
    count = len(points_P2)
    low, high = np.empty(count), np.empty(count)
    for k in range(count):
        x, after = points_P2[k, 0], points_P2[(k + 1) % count, 0]
        low[k], high[k] = min(x, after), max(x, after)
    order = np.argsort(low)
    compared, best, share_of_best = 0, (-1, -1), least
    for place in range(count):
        one = order[place]
        for later in range(place + 1, count):
            other = order[later]
            compared += 1
            if low[other] > high[one] or compared > BUDGET:
                break
            i, j = min(one, other), max(one, other)
            if not _neighbours(points_P2, i, j) and _cut(points_P2, i, j):
                compared += count  # measuring a loop looks at every edge
                share = _loop(points_P2, i, j)
                if share > share_of_best:
                    best, share_of_best = (i, j), share
                    if share > enough:
                        return i, j, share
        if compared > BUDGET:
            break
    return best[0], best[1], share_of_best if best[0] >= 0 else 0.0


@jit
def uncrossed(points_P2: Real) -> Real:
    """The same points in an order without crossings: the stretch between two edges that cross is turned round, until none do.

    Each turn makes the outline shorter, so it ends (the 2-opt move; Croes 1958). Unchanged where that takes more than ten turns a
    point.
    """
    turned_P2 = points_P2.copy()
    for _ in range(10 * len(points_P2)):
        i, j, _ = first_crossing(turned_P2, -1.0)
        if i < 0:
            return turned_P2
        turned_P2[i + 1 : j + 1] = turned_P2[i + 1 : j + 1][::-1].copy()
    return points_P2


@jit
def _holds(points_P2: Real, x: float, y: float) -> bool:
    inside = False
    before = len(points_P2) - 1
    for k in range(len(points_P2)):
        (x1, y1), (x2, y2) = points_P2[before], points_P2[k]
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            inside = not inside
        before = k
    return inside


@jit
def flat(points_P2: Real) -> bool:
    """Whether all points lie on one line, but for rounding: such a polygon has no inside, whatever its formula's last digits."""
    far, length = 0.0, 0.0
    end = points_P2[0]
    for k in range(len(points_P2)):
        away = np.sqrt((points_P2[k, 0] - points_P2[0, 0]) ** 2 + (points_P2[k, 1] - points_P2[0, 1]) ** 2)
        if away > far:
            far, end = away, points_P2[k]
        length = max(length, abs(points_P2[k, 0]), abs(points_P2[k, 1]))
    for k in range(len(points_P2)):  # noqa: SIM110
        if abs(_turn(points_P2[0], end, points_P2[k])) > FLAT * far * max(far, length):
            return False
    return True


@jit
def _finite(points_P2: Real) -> bool:
    for k in range(len(points_P2)):  # noqa: SIM110
        if not (np.isfinite(points_P2[k, 0]) and np.isfinite(points_P2[k, 1])):
            return False
    return True


@jit
def measure_polygons(
    points_P2: Real, polygon_starts: Whole, annotation_starts: Whole, least: float
) -> tuple[Whole, Whole, Real, Real, Real, Real, Flags]:
    """Per annotation: parts with fewer than three points, parts with a number that is not finite, area of the sound parts (their
    sum), their outline's length, their extent [A, 4] (NaN for none), the greatest loop above the share `least` that a crossing
    cuts off (0 for none), and whether one part lies inside another."""
    count = len(annotation_starts) - 1
    short, wild = np.zeros(count, np.int64), np.zeros(count, np.int64)
    area, length, box, loop, hole = (
        np.zeros(count),
        np.zeros(count),
        np.full((count, 4), np.nan),
        np.zeros(count),
        np.zeros(count, np.bool_),
    )
    parts = len(polygon_starts) - 1
    part_box = np.full((parts, 4), np.nan)
    for a in range(count):
        compared = 0
        for q in range(annotation_starts[a], annotation_starts[a + 1]):
            points = points_P2[polygon_starts[q] : polygon_starts[q + 1]]
            if len(points) < 3:
                short[a] += 1
                continue
            if not _finite(points):
                wild[a] += 1
                continue
            x1 = x2 = points[0, 0]
            y1 = y2 = points[0, 1]
            twice = around = 0.0
            before = len(points) - 1
            for k in range(len(points)):
                px, py, x, y = points[before, 0], points[before, 1], points[k, 0], points[k, 1]
                twice += (px - points[0, 0]) * (y - points[0, 1]) - (x - points[0, 0]) * (py - points[0, 1])
                around += np.sqrt((x - px) ** 2 + (y - py) ** 2)
                x1, y1, x2, y2 = min(x1, x), min(y1, y), max(x2, x), max(y2, y)
                before = k
            solid = not flat(points)
            area[a] += abs(twice) / 2 if solid else 0.0
            length[a] += around
            part_box[q] = x1, y1, x2, y2
            if box[a, 0] != box[a, 0]:
                box[a] = part_box[q]
            else:
                box[a] = min(box[a, 0], x1), min(box[a, 1], y1), max(box[a, 2], x2), max(box[a, 3], y2)
            if solid:
                loop[a] = max(loop[a], greatest_loop(points, least))
            for p in range(annotation_starts[a], q):
                compared += len(points)
                if compared > BUDGET or hole[a]:
                    break
                hole[a] = _inside(points_P2, polygon_starts, part_box, p, q) or _inside(points_P2, polygon_starts, part_box, q, p)
    return short, wild, area, length, box, loop, hole


@jit
def _inside(points_P2: Real, polygon_starts: Whole, part_box: Real, inner: int, outer: int) -> bool:
    """Whether every point of part `inner` lies in part `outer`."""
    if not (
        part_box[inner, 0] >= part_box[outer, 0]
        and part_box[inner, 1] >= part_box[outer, 1]
        and part_box[inner, 2] <= part_box[outer, 2]
        and part_box[inner, 3] <= part_box[outer, 3]
    ):
        return False
    around = points_P2[polygon_starts[outer] : polygon_starts[outer + 1]]
    for k in range(polygon_starts[inner], polygon_starts[inner + 1]):  # noqa: SIM110
        if not _holds(around, points_P2[k, 0], points_P2[k, 1]):
            return False
    return True
