"""What mends a mask: polygons and run lengths of one label in, better ones out. Rows are few, so this is plain Python."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.masks import run_lengths, unpack

Polygon = NDArray[np.float64]
CLOSE_PX = 2.0
"""Repaired run lengths must reach as far as the label's box, to this many pixels."""


@dataclass(frozen=True, slots=True)
class Mask:
    """The mask of one label."""

    polygons: tuple[Polygon, ...]
    """Each [points, 2]."""
    rle: dict[str, Any] | None
    """COCO's run lengths, as written."""
    odd: list[list[float]] | None
    """Polygons as written, where one of them has an odd number of coordinates."""

    def plain(self) -> dict[str, Any]:
        """For the audit: the segmentation as COCO writes it."""
        if self.rle is not None:
            return {"segmentation": self.rle}
        flat = self.odd if self.odd is not None else [polygon.reshape(-1).tolist() for polygon in self.polygons]
        return {"segmentation": [[value if np.isfinite(value) else None for value in polygon] for polygon in flat]}


def pruned(mask: Mask) -> Mask:
    """Without polygons of fewer than three points, an odd number of coordinates, a number that is not finite, or no area."""
    polygons = mask.polygons
    if mask.odd is not None:
        polygons = tuple(np.array(flat, np.float64).reshape(-1, 2) for flat in mask.odd if len(flat) % 2 == 0)
    return Mask(tuple(polygon for polygon in polygons if usable(polygon)), None, None)


def usable(polygon: Polygon) -> bool:
    """Whether a rasteriser can make pixels of it."""
    from pipeline.labels.outlines import first_crossing, flat

    if len(polygon) < 3 or not np.isfinite(polygon).all():
        return False
    points_P2 = np.ascontiguousarray(polygon, np.float64)
    # A bow tie's two halves cancel in the formula, not in the picture.
    return not flat(points_P2) and (area_of(polygon) > 0 or first_crossing(points_P2, -1.0)[0] >= 0)


def area_of(polygon: Polygon) -> float:
    """Of a polygon [points, 2] that does not cross itself, by the shoelace formula."""
    x, y = (polygon - polygon[0]).T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def cropped(mask: Mask, width: float, height: float) -> Mask:
    """The part within the picture (Sutherland and Hodgman 1974): inside nothing changes; a polygon wholly outside goes."""
    polygons = []
    for polygon in mask.polygons:
        for axis, bound, sign in ((0, 0.0, 1), (0, width, -1), (1, 0.0, 1), (1, height, -1)):
            polygon = _halved(polygon, axis, bound, sign)
        if usable(polygon):
            polygons.append(polygon)
    return Mask(tuple(polygons), None, None)


def uncrossed(mask: Mask, least: float) -> Mask:
    """With the points of each polygon whose crossings cut off more than the share `least` in an order without crossings."""
    from pipeline.labels import outlines

    points = (np.ascontiguousarray(polygon, np.float64) for polygon in mask.polygons)
    return Mask(tuple(outlines.uncrossed(p) if outlines.first_crossing(p, least)[0] >= 0 else p for p in points), None, None)


def encoded(mask: Mask, width: int, height: int) -> Mask:
    """The polygons as run lengths, by COCO's own rasteriser."""
    from pycocotools import mask as coco

    # Cut first: the rasteriser's memory grows with the outline, however far outside.
    flat = [polygon.reshape(-1).tolist() for polygon in cropped(pruned(mask), width, height).polygons]
    if not flat:
        return mask
    coded = coco.merge(coco.frPyObjects(flat, height, width))
    return Mask((), {"size": [height, width], "counts": coded["counts"].decode()}, None)


def drawn(mask: Mask, width: int, height: int) -> dict[str, Any] | None:
    """The mask as pycocotools' run lengths of the picture's size; None where it cannot be drawn at that size."""
    from pycocotools import mask as coco

    coded = mask.rle if mask.rle is not None else encoded(mask, width, height).rle
    if coded is None or list(coded.get("size", ())) != [height, width]:
        return None
    counts = coded["counts"]
    if isinstance(counts, list):
        packed: dict[str, Any] = coco.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        return packed
    return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}


def repaired(mask: Mask, width: int, height: int, box_4: NDArray[np.float64]) -> Mask:
    """Run lengths of the picture's size that reach as far as the box: as they are (only the stated size was wrong), or with the
    last run, which is background, completed or cut. No mask where that does not give one."""
    runs = None if mask.rle is None else _completed(mask.rle.get("counts"), height * width)
    extent = None if runs is None else _extent(runs, height)
    if extent is not None and np.isfinite(box_4).all() and np.abs(extent - box_4).max() <= CLOSE_PX:
        return Mask((), {"size": [height, width], "counts": runs}, None)
    return Mask((), None, None)


def pixel_area(mask: Mask, width: int, height: int) -> float:
    """Pixels of the polygons together, by COCO's own rasteriser; what two of them share counts once."""
    coded = encoded(mask, width, height).rle
    if coded is None:
        return 0.0
    _, _, runs = run_lengths(coded, "mask")
    return float(runs[1::2].sum())


def _halved(polygon: Polygon, axis: int, bound: float, sign: int) -> Polygon:
    """The part of a polygon on one side of a line along an axis."""
    if not len(polygon):
        return polygon
    depth = sign * (polygon[:, axis] - bound)
    after, depth_after = np.roll(polygon, -1, axis=0), np.roll(depth, -1)
    kept: list[NDArray[np.float64]] = []
    for point, towards, here, there in zip(polygon, after, depth, depth_after, strict=True):
        if here >= 0:
            kept.append(point)
        if (here > 0 > there) or (here < 0 < there):
            crossing = point + (towards - point) * (here / (here - there))
            crossing[axis] = bound
            kept.append(crossing)
    return np.array(kept, np.float64).reshape(-1, 2)


def _completed(counts: Any, pixels: int) -> list[int] | None:
    """Runs with the sum `pixels`, when only background at the end is missing or too long."""
    try:
        runs = unpack(counts).tolist() if isinstance(counts, str | bytes) else [int(run) for run in counts]
        missing = pixels - sum(runs)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None  # no runs at all: the caller removes the mask, and the audit says so
    if not runs or min(runs) < 0:
        return None
    if len(runs) % 2 == 0:
        runs.append(0)
    runs[-1] += missing
    return runs if runs[-1] >= 0 else None


def _extent(runs: list[int], height: int) -> NDArray[np.float64] | None:
    from pipeline.labels.runs import measure_runs

    try:
        listed = np.array(runs, np.int64)
    except OverflowError:
        return None
    _, pixels, box, wrong = measure_runs(listed, np.array([0, len(runs)]), np.array([height]))
    extent_4: NDArray[np.float64] = box[0]
    return None if wrong[0] or not pixels[0] else extent_4
