"""Bit-packed masks on the device: [R, bands, W] words of 32 rows of a column, bit b of band k being row 32 * k + b.

A word is kept in an int32 tensor and computed with as a whole number 0 .. 2**32 - 1, in 64 bits.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import THREADS, blocks_for, cuda, device, kernel

ROWS = 32


@device
def read_word(words: Any, at: int) -> Any:
    """A word as a number that is not negative."""
    return np.int64(words[at]) & 0xFFFFFFFF


@device
def write_word(words: Any, at: int, word: int) -> None:
    """Keep a word's bits."""
    if word >= 1 << 31:
        word -= 1 << 32
    words[at] = word


@kernel("u8* masks, i32* words, i64 count, i64 height, i64 width")
def pack_words(masks: Any, words: Any, count: int, height: int, width: int) -> None:
    """Words of `count` masks [height, width] of bytes."""
    i = cuda.grid(1)
    bands = (height + ROWS - 1) // ROWS
    if i < count * bands * width:
        column, band, r = i % width, i // width % bands, i // width // bands
        word = 0
        for row in range(band * ROWS, min(band * ROWS + ROWS, height)):
            if masks[(r * height + row) * width + column] != 0:
                word |= 1 << (row - band * ROWS)
        write_word(words, i, word)


@kernel("i32* words, u8* masks, i64 count, i64 height, i64 width")
def unpack_words(words: Any, masks: Any, count: int, height: int, width: int) -> None:
    """Bytes of `count` masks [height, width] from their words."""
    i = cuda.grid(1)
    bands = (height + ROWS - 1) // ROWS
    if i < count * bands * width:
        column, band, r = i % width, i // width % bands, i // width // bands
        word = read_word(words, i)
        for row in range(band * ROWS, min(band * ROWS + ROWS, height)):
            masks[(r * height + row) * width + column] = (word >> (row - band * ROWS)) & 1


# -- launch --


def empty_words(count: int, height: int, width: int, device: torch.device) -> Tensor:
    """Room for `count` masks."""
    return torch.empty(count, blocks_for(height, ROWS), width, dtype=torch.int32, device=device)


def packed(masks: Tensor) -> Tensor:
    """Words of masks [R, H, W] (bool)."""
    count, height, width = masks.shape
    words = empty_words(count, height, width, masks.device)
    given = masks.to(torch.bool).contiguous(), words, count, height, width
    pack_words.launch(torch.float32, masks.device, blocks_for(words.numel()), THREADS, *given)
    return words


def unpacked(words: Tensor, height: int) -> Tensor:
    """Masks [R, H, W] (bool) from their words."""
    count, _, width = words.shape
    masks = torch.empty(count, height, width, dtype=torch.bool, device=words.device)
    unpack_words.launch(torch.float32, words.device, blocks_for(words.numel()), THREADS, words, masks, count, height, width)
    return masks
