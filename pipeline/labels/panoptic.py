"""Checks of panoptic maps: the numbers in the PNG file against the list of segments."""

from collections.abc import Callable

import numpy as np

from pipeline.labels.check import Check
from pipeline.labels.columns import Columns, Findings


class SegmentWithoutPixels(Check):
    """A panoptic segment that no pixel of the map has: it can never be found, and counts as missed."""

    code = "panoptic-segment-without-pixels"

    def find(self, data: Columns) -> Findings:
        return _compared(self, data, "segments {numbers} have no pixel in the map", lambda listed, drawn: listed - drawn)


class PixelsWithoutSegment(Check):
    """Pixels of a panoptic map whose number is no listed segment: nobody knows what they are, and they teach nothing."""

    code = "panoptic-pixels-without-segment"

    def find(self, data: Columns) -> Findings:
        return _compared(self, data, "numbers {numbers} of the map are no listed segment", lambda listed, drawn: drawn - listed)


class UnreadableMap(Check):
    """A panoptic map that is missing, damaged, or of another size than its picture."""

    code = "panoptic-map-unreadable"

    def find(self, data: Columns) -> Findings:
        found = []
        for row, drawn in enumerate(data.maps):
            if drawn is not None and drawn.fault:
                found.append((row, drawn.fault))
            elif drawn is not None and data.readable_I[row]:
                width, height = int(data.real_widths_I[row]), int(data.real_heights_I[row])
                if (drawn.width, drawn.height) != (width, height):
                    found.append((row, f"its map is {drawn.width} x {drawn.height}, the picture {width} x {height}"))
        rows, said = np.array([row for row, _ in found], np.int64), [fault for _, fault in found]
        return data.on_pictures(self, rows, "{said}", said=said)


def _compared(
    check: Check, data: Columns, reason: str, odd: Callable[[frozenset[int], frozenset[int]], frozenset[int]]
) -> Findings:
    """One finding for each picture where `odd` of the listed and the drawn numbers is not empty."""
    rows, numbers = [], []
    for row, drawn in enumerate(data.maps):
        if drawn is None or drawn.fault:
            continue
        split = data.dataset.splits[data.names[data.split_I[row]]]
        assert split.maps is not None and split.maps.segments is not None
        own = split.maps.segments.rows_of(row - int(data.image_start[data.split_I[row]]))
        if found := sorted(odd(frozenset(split.maps.segments.number_S[own].tolist()), drawn.numbers)):
            rows.append(row)
            numbers.append(", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else ""))
    return data.on_pictures(check, np.array(rows, np.int64), reason, numbers=numbers)
