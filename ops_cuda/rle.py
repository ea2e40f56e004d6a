"""Masks as COCO's run lengths, and back: counts of pixels, outside first, down the columns.

What: the counts of all masks lie one after the other; mask r's are `starts[r] : starts[r + 1]` and sum to height * width.
Limits: room for the counts is given, since how many there are is known only on the device: a caller reads the last of `starts`
with them, and encodes again with more room where it exceeds `capacity`. Equal to pycocotools' counts. No gradient.
Source: rleEncode and rleDecode of the COCO API (Lin, Dollar 2014).
CUDA: masks are bit-packed; a thread finds the changes in 32 rows of a column; a cumulative sum gives each its place.
"""

import numpy as np
import torch
from torch import Tensor

from ops_cuda._registration import LIBRARY, on_cuda


def encode_rle(masks_RHW: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    """Counts [capacity] (int64, 0 behind the last) and starts [R + 1] (int64) of masks (bool). Those beyond are lost."""
    counts_L, starts = torch.ops.detectline.encode_rle(masks_RHW, capacity)
    return counts_L, starts


def decode_rle(counts_L: Tensor, starts: Tensor, height: int, width: int) -> Tensor:
    """Masks [R, H, W] (bool) of counts and starts as `encode_rle` gives them.

    ValueError on the CPU when counts do not sum to the picture's pixels; on the GPU, which waits for nobody, pixels behind the
    last count are outside.
    """
    masks_RHW: Tensor = torch.ops.detectline.decode_rle(counts_L, starts, height, width)
    return masks_RHW


# -- CPU twin --


def _counts(mask_HW: np.ndarray) -> np.ndarray:
    flat = mask_HW.T.reshape(-1)
    changes = np.flatnonzero(np.diff(flat, prepend=False))
    return np.diff(changes, prepend=0, append=flat.size)


def _encode_rle_cpu(masks: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    counts = [_counts(mask_HW) for mask_HW in masks.numpy()]
    starts = torch.from_numpy(np.cumsum([0, *map(len, counts)], dtype=np.int64))
    flat = np.concatenate([np.zeros(0, np.int64), *counts])[:capacity]
    return torch.from_numpy(np.pad(flat, (0, capacity - len(flat)))), starts


def _decode_rle_cpu(counts: Tensor, starts: Tensor, height: int, width: int) -> Tensor:
    masks = torch.zeros(len(starts) - 1, height, width, dtype=torch.bool)
    bounds = starts.tolist()
    for r, mask in enumerate(masks):
        own = counts[bounds[r] : bounds[r + 1]].numpy()
        if own.sum() != height * width or (own < 0).any():
            raise ValueError(f"the counts of mask {r} sum to {own.sum()}; a picture of {height} x {width} has {height * width}")
        flat = np.repeat(np.arange(len(own)) % 2 == 1, own)
        mask.copy_(torch.from_numpy(flat.reshape(width, height).T))
    return masks


# -- registration --


def _encode_rle_fake(masks: Tensor, capacity: int) -> tuple[Tensor, Tensor]:
    return masks.new_empty((capacity,), dtype=torch.int64), masks.new_empty((masks.shape[0] + 1,), dtype=torch.int64)


def _decode_rle_fake(counts: Tensor, starts: Tensor, height: int, width: int) -> Tensor:
    return counts.new_empty((starts.shape[0] - 1, height, width), dtype=torch.bool)


LIBRARY.define("encode_rle(Tensor masks, SymInt capacity) -> (Tensor, Tensor)")
LIBRARY.define("decode_rle(Tensor counts, Tensor starts, SymInt height, SymInt width) -> Tensor")
LIBRARY.impl("encode_rle", _encode_rle_cpu, "CPU")
LIBRARY.impl("decode_rle", _decode_rle_cpu, "CPU")
on_cuda("encode_rle", "rle", "encode_rle")
on_cuda("decode_rle", "rle", "decode_rle")
torch.library.register_fake("detectline::encode_rle", _encode_rle_fake, lib=LIBRARY)
torch.library.register_fake("detectline::decode_rle", _decode_rle_fake, lib=LIBRARY)
