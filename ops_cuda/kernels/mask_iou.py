"""Kernel of masks' IoU: a block counts the pixels that two bit-packed masks share."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ops_cuda._numba import THREADS, cuda, kernel
from ops_cuda.kernels.words import packed, read_word
from ops_cuda.mask_iou import ratio


@kernel("i32* first, i32* second, i64* shared, i64* first_area, i64* second_area, i64 columns, i64 words")
def shared_pixels(first: Any, second: Any, shared: Any, first_area: Any, second_area: Any, columns: int, words: int) -> None:
    """Pixels in both masks of each pair, and in each mask: the blocks of the first column and row know those too."""
    both = cuda.shared.array(THREADS, np.int64)
    left = cuda.shared.array(THREADS, np.int64)
    right = cuda.shared.array(THREADS, np.int64)
    t, pair = cuda.threadIdx.x, cuda.blockIdx.x
    a, b = pair // columns, pair % columns
    both[t], left[t], right[t] = 0, 0, 0
    for word in range(t, words, THREADS):
        one, other = read_word(first, a * words + word), read_word(second, b * words + word)
        both[t] += cuda.popc(one & other)
        left[t] += cuda.popc(one)
        right[t] += cuda.popc(other)
    half = THREADS // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            both[t] += both[t + half]
            left[t] += left[t + half]
            right[t] += right[t + half]
        half //= 2
    if t == 0:
        shared[pair] = both[0]
        if b == 0:
            first_area[a] = left[0]
        if a == 0:
            second_area[b] = right[0]


# -- launch --


def mask_iou(first: Tensor, second: Tensor, crowd: Tensor) -> Tensor:
    """IoU [A, B] (float64)."""
    rows, columns, device = len(first), len(second), first.device
    words, others = packed(first), packed(second)
    shared = torch.empty(rows, columns, dtype=torch.int64, device=device)
    row_area, column_area = (torch.empty(count, dtype=torch.int64, device=device) for count in (rows, columns))
    given = words, others, shared, row_area, column_area, columns, words.shape[1] * words.shape[2]
    shared_pixels.launch(torch.float32, device, rows * columns, THREADS, *given)
    return ratio(shared, row_area, column_area, crowd)
