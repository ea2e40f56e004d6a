"""Run lengths of all masks of a split at once, compiled. Imported by what looks at masks: numba starts slowly."""

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.outlines import Flags, Real, Whole, jit

LONGEST_RUN = 2**40
"""A longer run of pixels is a damaged number: no picture has so many."""


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
