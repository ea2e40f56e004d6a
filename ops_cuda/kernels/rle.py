"""Kernels of run lengths: changes are counted, placed by a cumulative sum, and written; decoding searches and walks."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ops_cuda._numba import THREADS, blocks_for, cuda, device, kernel, whole
from ops_cuda.kernels.words import ROWS, packed, read_word


@device
def _changes(words: Any, i: int, bands: int, height: int, width: int) -> int:
    """Bits of a word whose pixel differs from the one before it, down the columns; outside comes before the first pixel."""
    column, band = i % width, i // width % bands
    word, before = read_word(words, i), 0
    if band > 0:
        before = read_word(words, i - width) >> (ROWS - 1)
    elif column > 0:
        before = (read_word(words, i - 1 + (bands - 1) * width) >> ((height - 1) % ROWS)) & 1
    rows = min(height - band * ROWS, ROWS)
    return (word ^ (word << 1) ^ before) & ((1 << rows) - 1)


@kernel("i32* words, i32* changes, i64 count, i64 bands, i64 height, i64 width")
def count_changes(words: Any, changes: Any, count: int, bands: int, height: int, width: int) -> None:
    """Runs that end in each word [R, W, bands], the last of the picture among them."""
    i = cuda.grid(1)
    if i < count * bands * width:
        column, band, r = i % width, i // width % bands, i // width // bands
        number = cuda.popc(_changes(words, i, bands, height, width))
        if column == width - 1 and band == bands - 1:
            number += 1
        changes[(r * width + column) * bands + band] = number


@kernel("i32* words, i64* places, i64* ends, i64 count, i64 bands, i64 height, i64 width, i64 capacity")
def write_ends(words: Any, places: Any, ends: Any, count: int, bands: int, height: int, width: int, capacity: int) -> None:
    """Where each run ends, in pixels of its own mask; `places` are the sums of `changes` up to each word, itself included."""
    i = cuda.grid(1)
    if i < count * bands * width:
        column, band, r = i % width, i // width % bands, i // width // bands
        changes = _changes(words, i, bands, height, width)
        place = places[(r * width + column) * bands + band] - cuda.popc(changes)
        if column == width - 1 and band == bands - 1:
            place -= 1
            last = places[(r * width + column) * bands + band] - 1
            if last < capacity:
                ends[last] = height * width
        row = band * ROWS
        while changes > 0:
            if changes & 1 == 1:
                if place < capacity:
                    ends[place] = column * height + row
                place += 1
            changes >>= 1
            row += 1


@kernel("i64* ends, i64* starts, u8* masks, i64 count, i64 bands, i64 height, i64 width")
def decode_runs(ends: Any, starts: Any, masks: Any, count: int, bands: int, height: int, width: int) -> None:
    """32 rows of a column; `ends` are the sums of all counts up to each, itself included."""
    i = cuda.grid(1)
    if i < count * bands * width:
        column, band, r = i % width, i // width % bands, i // width // bands
        first, last, before = starts[r], starts[r + 1], 0
        if first > 0:
            before = ends[first - 1]
        pixel = before + column * height + band * ROWS
        low, high = first, last  # the first run that ends behind the pixel
        while low < high:
            middle = (low + high) // 2
            if ends[middle] > pixel:
                high = middle
            else:
                low = middle + 1
        for row in range(band * ROWS, min(band * ROWS + ROWS, height)):
            while low < last and ends[low] <= pixel:
                low += 1
            inside = 0
            if low < last:
                inside = (low - first) & 1
            masks[(r * height + row) * width + column] = inside
            pixel += 1


# -- launch --


def encode_rle(masks: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Counts [capacity] and starts [R + 1]."""
    return encode_words(packed(masks), masks.shape[1], capacity)


def encode_words(words: Tensor, height: int, capacity: int) -> tuple[Tensor, Tensor]:
    """Counts [capacity] and starts [R + 1] of bit-packed masks."""
    (count, bands, width), device = words.shape, words.device
    if height * width == 0:  # one run of nothing each
        return torch.zeros(capacity, dtype=torch.int64, device=device), torch.arange(count + 1, device=device)
    changes = torch.empty(count, width * bands, dtype=torch.int32, device=device)
    shape = count, bands, height, width
    count_changes.launch(torch.float32, device, blocks_for(words.numel()), THREADS, words, changes, *shape)
    places = torch.cumsum(changes.flatten(), 0, dtype=torch.int64)
    ends = torch.zeros(capacity, dtype=torch.int64, device=device)
    write_ends.launch(torch.float32, device, blocks_for(words.numel()), THREADS, words, places, ends, *shape, capacity)
    starts = torch.zeros(count + 1, dtype=torch.int64, device=device)
    starts[1:] = places.view(count, width * bands)[:, -1]
    # A picture's last run ends at its last pixel: the next picture's first starts at 0.
    before = functional.pad(ends % (height * width), (1, 0))[:capacity]
    return ends - before, starts


def decode_rle(counts: Tensor, starts: Tensor, height: int, width: int) -> Tensor:
    """Masks [R, H, W] (bool)."""
    count, bands = starts.shape[0] - 1, blocks_for(height, ROWS)
    masks = torch.empty(count, height, width, dtype=torch.bool, device=counts.device)
    given = torch.cumsum(counts, 0, dtype=torch.int64), whole(starts).clamp(0, len(counts)), masks, count, bands, height, width
    decode_runs.launch(torch.float32, counts.device, blocks_for(count * bands * width), THREADS, *given)
    return masks
