"""Kernels of panoptic merging, over masks as words of 32 rows of a column.

All detections are pasted to words at once. Then one block per picture decides on them in turn: what is left to do in turn is to
count the bits of a box's words and to mark them, 33,000 words for a whole picture of 800 x 1,333, so one block with as many
threads as a block may have is enough, and nothing is launched per detection (a hundred launches would cost the host more). Every
pixel's segment is the first kept detection whose bit is set, which is found for all pixels at once afterwards, as are the free
pixels of each class. Nothing waits for the host.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import SIMULATED, THREADS, blocks_for, cuda, kernel
from ops_cuda._numba import atomic_add as add
from ops_cuda.kernels.nms import float32_at_least
from ops_cuda.kernels.paste_masks import pasted, touched
from ops_cuda.kernels.words import ROWS, read_word, write_word
from ops_cuda.merge_panoptic import empty_segments

WIDE = THREADS if SIMULATED else 1024
FULL = (1 << ROWS) - 1


@kernel(
    "i32* words, f32* boxes, f32* scores, i64* counts, i64* sizes, i32* taken, i64* owners, i64* segments, "
    "i64 rows, i64 classes, i64 bands, i64 height, i64 width, f32 score, f64 overlap",
    threads=WIDE,
    exempt={"f64": "the CPU's quotient and comparison, once a detection"},
)
def merge_things(
    words: Any,
    boxes: Any,
    scores: Any,
    counts: Any,
    sizes: Any,
    taken: Any,
    owners: Any,
    segments: Any,
    rows: int,
    classes: int,
    bands: int,
    height: int,
    width: int,
    score: Any,
    overlap: Any,
) -> None:
    """A picture's kept detections, in `owners`, their number, and which pixels they have taken; `taken` comes as zeros."""
    area = cuda.shared.array(WIDE, np.int32)
    shared = cuda.shared.array(WIDE, np.int32)
    t, n = cuda.threadIdx.x, cuda.grid(1) // WIDE  # the block's number, in 64 bits
    real_height, real_width = min(max(sizes[n * 2], 0), height), min(max(sizes[n * 2 + 1], 0), width)
    found = 0
    for d in range(min(counts[n], rows)):
        r = n * rows + d
        if scores[r] < score:
            break
        left, right = touched(boxes[r * 4], boxes[r * 4 + 2], real_width)
        top, bottom = touched(boxes[r * 4 + 1], boxes[r * 4 + 3], real_height)
        across, last = right - left, (bottom + ROWS - 1) // ROWS
        if across == 0:
            last = 0
        across = max(across, 1)
        down, aside = WIDE // across, WIDE % across  # a step of WIDE words, without a division each

        pixels, seen = 0, 0
        band, column = top // ROWS + t // across, left + t % across
        while band < last:
            word = read_word(words, (r * bands + band) * width + column) & ((1 << min(real_height - band * ROWS, ROWS)) - 1)
            pixels += cuda.popc(word)
            seen += cuda.popc(word & read_word(taken, (n * bands + band) * width + column))
            band, column = band + down, column + aside
            if column >= right:
                band, column = band + 1, column - across
        area[t], shared[t] = pixels, seen
        half = WIDE // 2
        while half > 0:
            cuda.syncthreads()
            if t < half:
                area[t] += area[t + half]
                shared[t] += shared[t + half]
            half //= 2
        cuda.syncthreads()
        pixels, seen = area[0], shared[0]

        if pixels > 0 and not np.float64(seen) / np.float64(pixels) > overlap:
            if t == 0:
                owners[n * (rows + classes) + found] = d
            found += 1
            band, column = top // ROWS + t // across, left + t % across
            while band < last:
                i = (n * bands + band) * width + column
                word = read_word(words, (r * bands + band) * width + column)
                write_word(taken, i, word | read_word(taken, i))
                band, column = band + down, column + aside
                if column >= right:
                    band, column = band + 1, column - across
        cuda.syncthreads()
    if t == 0:
        segments[n] = found


@kernel(
    "i32* taken, i64* semantic, i64* sizes, i64* free, i64 images, i64 classes, i64 bands, i64 height, i64 width",
)
def merge_free(
    taken: Any, semantic: Any, sizes: Any, free: Any, images: int, classes: int, bands: int, height: int, width: int
) -> None:
    """Pixels of each class [N, C] that no detection took, from zeros; runs of a class down a column are added at once."""
    i = cuda.grid(1)
    if i < images * bands * width:
        column, band, n = i % width, i // width % bands, i // width // bands
        word, last, run = read_word(taken, i), 0, 0
        if column < sizes[n * 2 + 1]:
            for row in range(band * ROWS, min(min(band * ROWS + ROWS, height), sizes[n * 2])):
                if (word >> (row - band * ROWS)) & 1 == 0:
                    own = semantic[(n * height + row) * width + column]
                    if own >= 0 and own < classes:
                        if own != last:
                            if run > 0:
                                add(free, n * classes + last, run)
                            last, run = own, 0
                        run += 1
        if run > 0:
            add(free, n * classes + last, run)


@kernel("i64* free, i64* owners, i64* segments, i32* number, i64 images, i64 rows, i64 classes, i64 least")
def merge_stuff(free: Any, owners: Any, segments: Any, number: Any, images: int, rows: int, classes: int, least: int) -> None:
    """The segments of classes with at least `least` pixels, one picture a thread; `number` [N, C] comes as zeros."""
    n = cuda.grid(1)
    if n < images:
        found = segments[n]
        for c in range(1, classes):
            if free[n * classes + c] >= least:
                owners[n * (rows + classes) + found] = rows + c
                found += 1
                number[n * classes + c] = found
        segments[n] = found


@kernel(
    "i32* words, i64* semantic, i64* sizes, i64* owners, i64* segments, i32* number, i32* ids, "
    "i64 images, i64 rows, i64 classes, i64 bands, i64 height, i64 width"
)
def merge_ids(
    words: Any,
    semantic: Any,
    sizes: Any,
    owners: Any,
    segments: Any,
    number: Any,
    ids: Any,
    images: int,
    rows: int,
    classes: int,
    bands: int,
    height: int,
    width: int,
) -> None:
    """Each pixel's segment: the first detection that covers it, else its class's. Every pixel is written once."""
    i = cuda.grid(1)
    if i < images * bands * width:
        column, band, n = i % width, i // width % bands, i // width // bands
        first = (n * height + band * ROWS) * width + column
        real = min(max(min(sizes[n * 2], height) - band * ROWS, 0), ROWS)
        if column >= sizes[n * 2 + 1]:
            real = 0
        inside, things, s = (1 << real) - 1, 0, 0
        while s < segments[n] and things != inside:
            d = owners[n * (rows + classes) + s]
            if d >= rows:
                break
            s += 1
            new = read_word(words, ((n * rows + d) * bands + band) * width + column) & inside & ~things
            things |= new
            at = first
            while new > 0:
                if new & 1 == 1:
                    ids[at] = s
                new >>= 1
                at += width
        for row in range(min(height - band * ROWS, ROWS)):
            if (things >> row) & 1 == 0:
                segment = 0
                if row < real:
                    own = semantic[first + row * width]
                    if own >= 0 and own < classes:
                        segment = number[n * classes + own]
                ids[first + row * width] = segment


# -- launch --


def merge_panoptic(
    masks: Tensor,
    boxes: Tensor,
    scores: Tensor,
    count: Tensor,
    semantic: Tensor,
    sizes: Tensor,
    classes: int,
    overlap: float,
    stuff_area: float,
    score: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids [N, H, W] (int32), owners [N, D + classes] (int64) and their counts [N] (int64)."""
    ids, owners, segments = empty_segments(masks, semantic, classes)
    (images, rows), (_, height, width), device = masks.shape[:2], semantic.shape, masks.device
    if ids.numel() == 0:
        return ids, owners, segments
    boxes, scores = boxes.float().contiguous(), scores.float().contiguous()
    count, sizes, semantic = (values.to(device, torch.int64).contiguous() for values in (count, sizes, semantic))
    words = pasted(masks.flatten(0, 1), boxes.flatten(0, 1), height, width)
    bands = words.shape[1]
    taken = torch.zeros(images, bands, width, dtype=torch.int32, device=device)
    free = torch.zeros(images, classes, dtype=torch.int64, device=device)
    number = torch.zeros(images, classes, dtype=torch.int32, device=device)
    blocks, picture = blocks_for(taken.numel()), (classes, bands, height, width)
    least = max(1, math.ceil(min(stuff_area, 2.0**62)))

    chosen = words, boxes, scores, count, sizes, taken, owners, segments, rows, *picture, float32_at_least(score), overlap
    merge_things.launch(torch.float32, device, images, WIDE, *chosen)
    merge_free.launch(torch.float32, device, blocks, THREADS, taken, semantic, sizes, free, images, *picture)
    listed = free, owners, segments, number, images, rows, classes, least
    merge_stuff.launch(torch.float32, device, blocks_for(images), THREADS, *listed)
    placed = words, semantic, sizes, owners, segments, number, ids, images, rows, *picture
    merge_ids.launch(torch.float32, device, blocks, THREADS, *placed)
    return ids, owners, segments
