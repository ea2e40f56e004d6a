"""Dense pose labels of the built-in shapes: a surface of four parts with exact coordinates.

Each shape's surface is cut by the axes of its own upright frame into the parts top left, top right, bottom left and bottom right.
On a part u rises from left to right and v from top to bottom, 0 to 1 between the shape's extent and its centre. A disc shows no
turn: its frame is the picture's. Points and part masks are of what is seen: inside the picture, not behind a later shape. In a
mirrored picture left and right parts change places and u becomes 1 - u. A part counts as one unit of length, so that a point that
is off by 0.3 of a part has a similarity of one half.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dense import FRAME, MASKS, Mirror, Surface

Real = NDArray[np.float64]

SURFACE = Surface(
    parts=("top left", "top right", "bottom left", "bottom right"),
    sizes=(1.0,) * 4,
    mirror=Mirror(parts=(2, 1, 4, 3), coarse=(0, 2, 1, 4, 3, *range(5, 15)), flip_u=(True,) * 4, flip_v=(False,) * 4),
)
COARSE = 14
"""Coarse parts that COCO's field has room for; the first four are the surface's."""


class Upright(NamedTuple):
    """A shape's own frame: local coordinates are (pixels - centre) @ inverse."""

    centre: Real
    inverse_22: Real
    outline_P2: Real
    """Local, convex, clockwise with y down."""
    round: bool
    """A disc: inside is what the circle within its outline holds."""

    def local(self, pixels_H: Real, pixels_W: Real) -> tuple[Real, Real]:
        """Local coordinates [H, W] each at pixel positions y of rows and x of columns."""
        y, x = pixels_H[:, None] - self.centre[1], pixels_W[None, :] - self.centre[0]
        across, down = (x * self.inverse_22[0, axis] + y * self.inverse_22[1, axis] for axis in (0, 1))
        return across, down

    def inside(self, local_2HW: tuple[Real, Real]) -> NDArray[np.bool_]:
        """bool [H, W]: on the shape."""
        a_HW, b_HW = local_2HW
        if self.round:
            middle = (self.outline_P2[0] + self.outline_P2[1]) / 2
            within: NDArray[np.bool_] = a_HW**2 + b_HW**2 <= float(middle @ middle)
            return within
        inside_HW = np.ones(a_HW.shape, bool)
        for start, end in zip(self.outline_P2, np.roll(self.outline_P2, -1, axis=0), strict=True):
            side = end - start
            inside_HW &= (a_HW - start[0]) * side[1] - (b_HW - start[1]) * side[0] <= 0
        return inside_HW


def surface_of(local_P2: Real, outline_P2: Real) -> tuple[NDArray[np.int64], Real]:
    """Part 1..4 [P] and (u, v) [P, 2] of local coordinates on a shape."""
    low, high = outline_P2.min(axis=0), outline_P2.max(axis=0)
    after_P2 = local_P2 >= 0
    return 1 + after_P2 @ [1, 2], np.where(after_P2, local_P2 / high, 1 - local_P2 / low).clip(0, 1)


def dense_labels(
    shape: Upright, later: Sequence[Upright], box: Sequence[float], size: int, points: int, random: np.random.Generator
) -> dict[str, Any]:
    """COCO's dense pose fields of a shape with box (x, y, w, h) in a picture of `size` pixels; none where nothing is seen."""
    from pycocotools import mask as coco_mask

    x, y, width, height = box
    centre = np.arange(FRAME) + 0.5
    rows_H, columns_W = y + centre / FRAME * height, x + centre / FRAME * width
    local_2HW = shape.local(rows_H, columns_W)
    seen_HW = shape.inside(local_2HW) & ((rows_H >= 0) & (rows_H < size))[:, None] & ((columns_W >= 0) & (columns_W < size))
    for other in later:
        seen_HW &= ~other.inside(other.local(rows_H, columns_W))
    cells = np.flatnonzero(seen_HW)
    if not len(cells):
        return {}
    chosen = random.choice(cells, min(points, len(cells)), replace=False)
    at_y, at_x = np.divmod(chosen, FRAME)
    local_P2 = np.stack([values.reshape(-1)[chosen] for values in local_2HW], axis=1)
    parts_P, uv_P2 = surface_of(local_P2, shape.outline_P2)
    right_HW, low_HW = (values >= 0 for values in local_2HW)
    halves = [seen_HW & ~low_HW, seen_HW & low_HW]
    quarters = [half & side for half in halves for side in (~right_HW, right_HW)]
    packed = coco_mask.encode(np.asfortranarray(np.stack(quarters, axis=2), np.uint8))
    masks: list[Any] = [{"size": list(rle["size"]), "counts": rle["counts"].decode()} for rle in packed]
    masks = [rle if quarter.any() else [] for rle, quarter in zip(masks, quarters, strict=True)]
    u, v = np.round(uv_P2, 6).T.tolist()
    return {
        "dp_x": (at_x + 0.5).tolist(),
        "dp_y": (at_y + 0.5).tolist(),
        "dp_I": parts_P.tolist(),
        "dp_U": u,
        "dp_V": v,
        MASKS: masks + [[]] * (COARSE - len(masks)),
    }
