"""Masks of pixels as outlines along the pixels' edges: what they enclose is exactly the mask."""

import numpy as np
from numpy.typing import NDArray

Ring = list[tuple[int, int]]


def outlines_of(mask_HW: NDArray[np.bool_]) -> tuple[list[Ring], int]:
    """The outer outlines, clockwise as one sees them, corners only; and the number of holes, which are left out.

    Pixels that touch at a corner alone belong to different outlines.
    """
    padded = np.pad(mask_HW.astype(bool), 1)
    inside = padded[1:-1, 1:-1]
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # each edge runs with the mask on its right: top edges go right, right ones down, bottom ones left, left ones up
    for beside, (x0, y0), (x1, y1) in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inside & ~beside).tolist():
            steps.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    rings, holes = [], 0
    while steps:
        ring = _ring(steps)
        if _signed_area(ring) > 0:
            rings.append(ring)
        else:
            holes += 1
    return rings, holes


def _ring(steps: dict[tuple[int, int], list[tuple[int, int]]]) -> Ring:
    """Take one closed outline out of `steps`."""
    start = at = next(iter(steps))
    came = (0, 0)
    ring: Ring = []
    while True:
        choices = steps[at]
        # where four edges meet, the right turn stays with the same pixel
        right = (at[0] - came[1], at[1] + came[0])
        to = right if right in choices else choices[0]
        choices.remove(to)
        if not choices:
            del steps[at]
        went = (to[0] - at[0], to[1] - at[1])
        if went != came:
            ring.append(at)
        at, came = to, went
        if at == start:
            break
    first = (ring[1][0] - ring[0][0], ring[1][1] - ring[0][1])
    if first[0] * came[1] == first[1] * came[0]:  # the start lies within a straight edge
        del ring[0]
    return ring


def _signed_area(ring: Ring) -> int:
    """Twice the area, positive for clockwise with y pointing down."""
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True))
