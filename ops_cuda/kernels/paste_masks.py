"""Kernel of mask pasting: a thread interpolates 32 rows of a column and keeps them as the bits of a word.

Four cells lie around a pixel's centre; going down a column they are read again only where the centre passes a cell's. Every
product rounds as on the CPU, so that a value at the threshold falls on the same side.
"""

import math
from typing import Any

import numpy as np
from torch import Tensor

from ops_cuda._numba import HALF_TYPES, THREADS, blocks_for, cuda, device, kernel, load, product
from ops_cuda.kernels.rle import encode_words
from ops_cuda.kernels.words import ROWS, empty_words, unpacked, write_word


@device
def touched(start: Any, end: Any, pixels: int) -> tuple[int, int]:
    """Pixels first..last-1 of a side that an interval touches; none of one without length, infinite or not a number."""
    first, last = 0, 0
    length = end - start
    if length > np.float32(0) and length < np.float32(np.inf):
        first = int(min(max(start, np.float32(0)), np.float32(pixels)))
        last = int(math.ceil(min(max(end, np.float32(-1)), np.float32(pixels)))) + 1
        last = max(first, min(last, pixels))
    return first, last


@device
def _tap(start: Any, end: Any, pixel: int, cells: int) -> tuple[int, Any, Any]:
    """The lower of the two cells of a side that a pixel's centre lies between, and their weights: none outside the grid."""
    at = product((np.float32(pixel) + np.float32(0.5) - start) / (end - start), np.float32(cells)) - np.float32(0.5)
    at = min(max(at, np.float32(-2)), np.float32(cells))
    lower = int(math.floor(at))
    near, far = np.float32(0), np.float32(0)
    if lower >= 0 and lower < cells:
        near = np.float32(1) - abs(at - np.float32(lower))
    if lower >= -1 and lower + 1 < cells:
        far = np.float32(1) - abs(at - np.float32(lower + 1))
    return lower, near, far


@kernel("T* masks, f32* boxes, i32* words, i64 count, i64 rows, i64 columns, i64 height, i64 width", HALF_TYPES)
def paste_words(masks: Any, boxes: Any, words: Any, count: int, rows: int, columns: int, height: int, width: int) -> None:
    """Words [R, bands, W] of masks [R, rows, columns] at full size."""
    i = cuda.grid(1)
    bands = (height + ROWS - 1) // ROWS
    if i < count * bands * width:
        x, band, r = i % width, i // width % bands, i // width // bands
        x1, y1, x2, y2 = boxes[r * 4], boxes[r * 4 + 1], boxes[r * 4 + 2], boxes[r * 4 + 3]
        left, right = touched(x1, x2, width)
        top, bottom = touched(y1, y2, height)
        word = 0
        if left <= x and x < right:
            column, near, far = _tap(x1, x2, x, columns)
            near_at = r * rows * columns + min(max(column, 0), columns - 1)
            far_at = r * rows * columns + min(max(column + 1, 0), columns - 1)
            known = -9
            a, b, c, d = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for y in range(max(band * ROWS, top), min(band * ROWS + ROWS, bottom)):
                row, above, below = _tap(y1, y2, y, rows)
                if row != known:
                    upper, lower = min(max(row, 0), rows - 1) * columns, min(max(row + 1, 0), rows - 1) * columns
                    a, b = load(masks, near_at + upper), load(masks, near_at + lower)
                    c, d = load(masks, far_at + upper), load(masks, far_at + lower)
                    known = row
                value = product(near, product(above, a) + product(below, b))
                if value + product(far, product(above, c) + product(below, d)) >= np.float32(0.5):
                    word |= 1 << (y - band * ROWS)
        write_word(words, i, word)


# -- launch --


def pasted(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Words [R, bands, W] of masks [R, M, M] at full size."""
    count, rows, columns = masks.shape
    words = empty_words(count, height, width, masks.device)
    if masks.numel() == 0:
        return words.zero_()
    if masks.dtype not in HALF_TYPES:
        masks = masks.float()
    given = masks.contiguous(), boxes.float().contiguous(), words, count, rows, columns, height, width
    paste_words.launch(masks.dtype, masks.device, blocks_for(words.numel()), THREADS, *given)
    return words


def paste_masks(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Masks [R, height, width] (bool)."""
    return unpacked(pasted(masks, boxes, height, width), height)


def paste_rle(masks: Tensor, boxes: Tensor, height: int, width: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Counts [capacity] and starts [R + 1]."""
    return encode_words(pasted(masks, boxes, height, width), height, capacity)
