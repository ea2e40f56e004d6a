"""Geometry of all polygons and run lengths of a split at once, compiled. Imported by what looks at masks: numba starts slowly.

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
LONGEST_RUN = 2**40
"""A longer run of pixels is a damaged number: no picture has so many."""

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


@jit
def unpack_runs(codes: NDArray[np.uint8], starts: Whole) -> tuple[Whole, Whole, Flags]:
    """COCO's packed run lengths of all texts, one behind the other: the runs, their offsets, and which texts are damaged."""
    numbers = 0
    for code in codes:
        numbers += (code - 48) & 32 == 0
    runs, ends, damaged = np.zeros(numbers, np.int64), np.zeros(len(starts), np.int64), np.zeros(len(starts) - 1, np.bool_)
    place = 0
    for text in range(len(starts) - 1):
        first, value, shift = place, np.int64(0), np.int64(0)
        for k in range(starts[text], starts[text + 1]):
            bits = np.int64(codes[k]) - 48
            if not 0 <= bits < 64 or shift > 50:
                damaged[text] = True
                break
            value |= (bits & 31) << shift
            shift += 5
            if bits & 32 == 0:
                if bits & 16:
                    value -= 1 << shift
                if place - first > 2:
                    value += runs[place - 2]
                if abs(value) > LONGEST_RUN:
                    damaged[text] = True
                    break
                runs[place] = value
                place += 1
                value, shift = np.int64(0), np.int64(0)
        damaged[text] |= shift > 0
        ends[text + 1] = place
    return runs[:place], ends, damaged


@jit
def measure_runs(runs: Whole, starts: Whole, heights: Whole) -> tuple[Whole, Whole, Real, Flags]:
    """Of each mask in run lengths (outside first, down columns of `heights` pixels): sum of the runs, pixels, extent [M, 4] (NaN
    for an empty one), and whether a run is negative or beyond any picture."""
    count = len(starts) - 1
    total, pixels, box, wrong = (
        np.zeros(count, np.int64),
        np.zeros(count, np.int64),
        np.full((count, 4), np.nan),
        np.zeros(count, np.bool_),
    )
    for m in range(count):
        height = max(heights[m], 1)
        for k in range(starts[m], starts[m + 1]):
            run = runs[k]
            if run < 0 or run > LONGEST_RUN:
                wrong[m] = True
                break
            if (k - starts[m]) % 2 and run:
                left, top = total[m] // height, total[m] % height
                last = total[m] + run - 1
                right, bottom = last // height, last % height
                if right > left:
                    top, bottom = 0, height - 1
                if not pixels[m]:
                    box[m] = left, top, right + 1, bottom + 1
                else:
                    box[m] = min(box[m, 0], left), min(box[m, 1], top), max(box[m, 2], right + 1), max(box[m, 3], bottom + 1)
                pixels[m] += run
            total[m] += run
            if total[m] > LONGEST_RUN:
                wrong[m] = True
                break
    return total, pixels, box, wrong


@jit
def _columns_of(runs: Whole, height: int, inside: bool) -> Whole:
    """The stretches [S, 3] (column, first and last row) of one mask's pixels, or of those around them, column by column."""
    count, place = 0, 0
    for k in range(len(runs)):
        if (k % 2 == 1) == inside and runs[k]:
            count += (place + runs[k] - 1) // height - place // height + 1
        place += runs[k]
    found = np.empty((count, 3), np.int64)
    count, place = 0, 0
    for k in range(len(runs)):
        if (k % 2 == 1) == inside:
            start, end = place, place + runs[k]
            while start < end:
                column = start // height
                last = min(end, (column + 1) * height) - 1
                found[count] = column, start % height, last % height
                start = last + 1
                count += 1
        place += runs[k]
    return found


@jit
def _root(parent: Whole, one: int) -> int:
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    return one


@jit
def _joined(found: Whole, reach: int) -> Whole:
    """For each stretch the first one of its piece. Stretches of neighbouring columns belong together where they share a row, with
    `reach` 1 also where they touch at a corner; those of one column where they meet (a run of no pixels lies between)."""
    parent = np.arange(len(found))
    behind = 0
    for one in range(len(found)):
        column, top, bottom = found[one]
        if one and found[one - 1, 0] == column and found[one - 1, 2] + 1 == top:
            parent[_root(parent, one)] = _root(parent, one - 1)
        while behind < one and (
            found[behind, 0] < column - 1 or (found[behind, 0] == column - 1 and found[behind, 2] < top - reach)
        ):
            behind += 1
        other = behind
        while other < one and found[other, 0] == column - 1 and found[other, 1] <= bottom + reach:
            low, high = _root(parent, one), _root(parent, other)
            parent[max(low, high)] = min(low, high)
            other += 1
    for one in range(len(found)):
        parent[one] = _root(parent, one)
    return parent


@jit
def measure_pieces(runs: Whole, starts: Whole, heights: Whole, widths: Whole, sound: Flags) -> tuple[Whole, Whole]:
    """Of each mask in run lengths that is `sound`: its pieces, whose pixels touch at a side or a corner, and its holes, pieces of
    the rest that touch no border of the picture and are joined by sides."""
    pieces, holes = np.zeros(len(starts) - 1, np.int64), np.zeros(len(starts) - 1, np.int64)
    for m in range(len(starts) - 1):
        own = runs[starts[m] : starts[m + 1]]
        if not sound[m]:
            continue
        first = _joined(_columns_of(own, heights[m], True), 1)
        for one in range(len(first)):
            pieces[m] += first[one] == one
        around = _columns_of(own, heights[m], False)
        first = _joined(around, 0)
        open_ = np.zeros(len(first), np.bool_)
        for one in range(len(first)):
            column, top, bottom = around[one]
            if column == 0 or column == widths[m] - 1 or top == 0 or bottom == heights[m] - 1:
                open_[first[one]] = True
        for one in range(len(first)):
            holes[m] += first[one] == one and not open_[one]
    return pieces, holes
