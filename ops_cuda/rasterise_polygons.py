"""Mask targets: polygons rasterised in the frames of boxes, by COCO's rule.

What: row r is the union of its owner's polygons, moved and stretched so that its box becomes size x size cells, then filled as
COCO's rasteriser does: outlines are walked on a grid five times finer, and a column's cells change sides where an outline crosses
its middle. Within one polygon crossings cancel (even-odd), so a hole can be part of its outline.
Limits: float64 arithmetic, as the reference (points are float64, boxes float32); sides below 0.1 pixels count as 0.1; a polygon
of fewer than three points covers nothing. Equal to pycocotools cell by cell on hosts that do not fuse multiply and add.
Source: rleFrPoly of the COCO API (Lin, Dollar 2014); frame and stretch as in Detectron2's polygon masks. No gradient.
CUDA: a thread per column and 32 rows follows the owner's edges, in float64; equal to the twin.
"""

import math

import numba
import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda

FARTHEST = 2.0**30
"""Fine-grid coordinates are held within it: beyond, the reference's 32-bit integers overflow."""


def rasterise_polygons(
    points_P2: Tensor, polygon_starts: Tensor, owner_starts: Tensor, boxes_R4: Tensor, owner_R: Tensor, size: int
) -> Tensor:
    """Masks [R, size, size] (bool, rows of cells from the top) of owner `owner_R[r]`'s polygons in box r's frame; -1 is empty.

    Owner o has polygons `owner_starts[o] : owner_starts[o + 1]`; polygon q has points `polygon_starts[q] : polygon_starts[q + 1]`
    of `points` (float64 [P, 2], x and y in the boxes' pixels).
    """
    masks_RSS: Tensor = torch.ops.detectline.rasterise_polygons(
        points_P2, polygon_starts, owner_starts, boxes_R4.detach(), owner_R, size
    )
    return masks_RSS


# -- CPU twin --


@numba.njit(cache=True, error_model="numpy", nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _fine(value: float) -> int:
    """A coordinate on the fine grid, rounded as C casts to int."""
    return int(min(max(5.0 * value + 0.5, -FARTHEST), FARTHEST))


@numba.njit(cache=True, error_model="numpy", nogil=True, inline="always")  # type: ignore[untyped-decorator]
def _toggle(parity: np.ndarray, column: int, fine_y: int, height: int) -> None:
    """The outline crosses the middle of `column` at `fine_y`: everything below it, in column-major order, changes sides."""
    row = math.ceil(min(max((fine_y + 0.5) / 5.0 - 0.5, 0.0), float(height)))
    place = column * height + row
    if place < len(parity):
        parity[place] ^= 1


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _cross_columns(parity: np.ndarray, xs: int, ys: int, xe: int, ye: int, height: int) -> None:
    """Crossings of one edge with the columns' middles, which lie between fine columns 5c + 2 and 5c + 3.

    The reference visits every fine point of the edge; here only the two beside each middle are computed, by its own expressions.
    """
    dx, dy = abs(xe - xs), abs(ye - ys)
    first = max(0, -((2 - min(xs, xe)) // 5))
    last = min(len(parity) // height - 1, (max(xs, xe) - 3) // 5)
    if last < first:
        return
    if dx >= dy:
        if xs > xe:
            xs, ys, xe, ye = xe, ye, xs, ys
        slope = (ye - ys) / dx
        for column in range(first, last + 1):
            before = int(ys + slope * (5 * column + 2 - xs) + 0.5)
            after = int(ys + slope * (5 * column + 3 - xs) + 0.5)
            _toggle(parity, column, min(before, after), height)
        return
    if ys > ye:
        xs, ys, xe, ye = xe, ye, xs, ys
    slope = (xe - xs) / dy
    for column in range(first, last + 1):
        beyond = 5 * column + 3  # the first step t on the far side of the middle
        t = min(max(int((beyond - 0.5 - xs) / slope), 0), dy)
        if slope > 0:
            while t < dy and int(xs + slope * t + 0.5) < beyond:
                t += 1
            while t > 0 and int(xs + slope * (t - 1) + 0.5) >= beyond:
                t -= 1
        else:
            while t < dy and int(xs + slope * t + 0.5) >= beyond:
                t += 1
            while t > 0 and int(xs + slope * (t - 1) + 0.5) < beyond:
                t -= 1
        _toggle(parity, column, ys + t - 1, height)


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def _rasterise(
    points: np.ndarray,
    polygon_starts: np.ndarray,
    owner_starts: np.ndarray,
    boxes: np.ndarray,
    owner: np.ndarray,
    masks: np.ndarray,
) -> None:
    size = masks.shape[1]
    parity = np.zeros(size * size, np.uint8)
    for r in range(len(boxes)):
        if owner[r] < 0:
            continue
        width, height = boxes[r, 2] - boxes[r, 0], boxes[r, 3] - boxes[r, 1]
        left, top = np.float64(boxes[r, 0]), np.float64(boxes[r, 1])
        # the reference divides in the boxes' precision
        stretch_x = np.float64(np.float32(size) / width) if width > np.float32(0.1) else size / 0.1
        stretch_y = np.float64(np.float32(size) / height) if height > np.float32(0.1) else size / 0.1
        for q in range(owner_starts[owner[r]], owner_starts[owner[r] + 1]):
            start, end = polygon_starts[q], polygon_starts[q + 1]
            if end - start < 3:
                continue
            parity[:] = 0
            xs = _fine((points[end - 1, 0] - left) * stretch_x)
            ys = _fine((points[end - 1, 1] - top) * stretch_y)
            for p in range(start, end):
                xe = _fine((points[p, 0] - left) * stretch_x)
                ye = _fine((points[p, 1] - top) * stretch_y)
                _cross_columns(parity, xs, ys, xe, ye, size)
                xs, ys = xe, ye
            inside = np.uint8(0)
            for place in range(size * size):
                inside ^= parity[place]
                if inside:
                    masks[r, place % size, place // size] = True


@numba.njit(cache=True, error_model="numpy", nogil=True)  # type: ignore[untyped-decorator]
def fill_bitmap(
    points: np.ndarray, polygon_starts: np.ndarray, first: int, last: int, bitmap_HW: np.ndarray, parity: np.ndarray
) -> None:
    """Set the pixels of the polygons first .. last - 1 in an empty picture; `parity` [H * W] is working space, zero on return."""
    height, width = bitmap_HW.shape
    for q in range(first, last):
        start, end = polygon_starts[q], polygon_starts[q + 1]
        if end - start < 3:
            continue
        xs, ys = _fine(points[end - 1, 0]), _fine(points[end - 1, 1])
        lowest, highest = xs, xs
        for p in range(start, end):
            xe, ye = _fine(points[p, 0]), _fine(points[p, 1])
            _cross_columns(parity, xs, ys, xe, ye, height)
            lowest, highest = min(lowest, xe), max(highest, xe)
            xs, ys = xe, ye
        inside = np.uint8(0)
        place, behind = min(max(lowest // 5, 0), width) * height, min(max(highest // 5 + 2, 0), width) * height
        while place < behind or (inside and place < height * width):
            inside ^= parity[place]
            parity[place] = 0
            if inside:
                bitmap_HW[place % height, place // height] = 1
            place += 1


def _rasterise_polygons_cpu(
    points: Tensor, polygon_starts: Tensor, owner_starts: Tensor, boxes: Tensor, owner: Tensor, size: int
) -> Tensor:
    masks = torch.zeros(len(boxes), size, size, dtype=torch.bool)
    _rasterise(
        points.double().contiguous().numpy(),
        polygon_starts.contiguous().numpy(),
        owner_starts.contiguous().numpy(),
        boxes.float().contiguous().numpy(),
        owner.contiguous().numpy(),
        masks.numpy(),
    )
    return masks


# -- registration --


def _rasterise_polygons_fake(
    points: Tensor, polygon_starts: Tensor, owner_starts: Tensor, boxes: Tensor, owner: Tensor, size: int
) -> Tensor:
    return boxes.new_empty((boxes.shape[0], size, size), dtype=torch.bool)


LIBRARY.define(
    "rasterise_polygons(Tensor points, Tensor polygon_starts, Tensor owner_starts, Tensor boxes, Tensor owner, int size) "
    "-> Tensor"
)
LIBRARY.impl("rasterise_polygons", _rasterise_polygons_cpu, "CPU")
on_cuda("rasterise_polygons", "rasterise_polygons", "rasterise_polygons")
torch.library.register_fake("detectline::rasterise_polygons", _rasterise_polygons_fake, lib=LIBRARY)
