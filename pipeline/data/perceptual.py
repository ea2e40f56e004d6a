"""Perceptual hashes: pictures that look nearly the same have nearly the same bits, whatever their size and compression."""

import math
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH = 16
"""A hash has HASH x HASH bits."""
BANDS = 17
"""The hash is cut into so many pieces; two that differ in fewer bits have one piece in common (the pigeonhole principle)."""
MOST = 64
"""Pictures with one piece of hash in common that each is compared with: empty scenes share pieces by the thousand."""

FLAT = 2.0
"""Grey levels' standard deviation below which a picture is so empty that its hash is noise."""


def perceptual_hash(grey_HW: NDArray[np.uint8]) -> bytes:
    """HASH x HASH bits of the discrete cosine transform's low frequencies, without the mean and the first row and column."""
    import cv2

    small = cv2.resize(grey_HW, (64, 64), interpolation=cv2.INTER_AREA).astype(np.float32)
    low = cv2.dct(small)[1 : HASH + 1, 1 : HASH + 1]
    return np.packbits(low > np.median(low)).tobytes()


def grey_levels(picture: Image.Image) -> NDArray[np.uint8]:
    """Grey levels 0..255 [H, W]; 16 bits by their upper byte, as training reads them."""
    grey_HW: NDArray[np.uint8]
    if picture.mode.startswith("I"):
        grey_HW = np.clip(np.asarray(picture).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return grey_HW
    if picture.mode not in ("RGB", "L"):
        picture = picture.convert("RGB")
    grey_HW = np.asarray(picture.convert("L"))
    return grey_HW


def near_files(paths: Sequence[Path], bits: int) -> NDArray[np.int64]:
    """Pairs of picture files [P, 2], as rows of `paths`, whose hashes differ in at most `bits` bits.

    Files that are missing, broken or of hardly any contrast have no hash, so they are in no pair: the label checks name them.
    """
    with warnings.catch_warnings(), ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        warnings.simplefilter("ignore")  # of odd metadata, and of large pictures, which are left out
        hashes = list(pool.map(_hash_of, paths))
    rows = np.array([row for row, digest in enumerate(hashes) if digest is not None], np.int64)
    if len(rows) < 2:
        return np.zeros((0, 2), np.int64)
    pairs: NDArray[np.int64] = rows[near_pairs(np.stack([np.frombuffer(hashes[row] or b"", np.uint8) for row in rows]), bits)]
    return pairs


def _hash_of(path: Path) -> bytes | None:
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                return None
            grey_HW = grey_levels(picture)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        return None
    return perceptual_hash(grey_HW) if grey_HW.std() >= FLAT else None


def near_pairs(hashes_NB: NDArray[np.uint8], bits: int) -> NDArray[np.int64]:
    """Pairs of rows [P, 2] of hashes that differ in at most `bits` bits, in rising order; `bits` is below BANDS."""
    return np.unique(np.concatenate([_close(hashes_NB, piece, bits) for piece in _pieces(hashes_NB)]), axis=0)


def _pieces(hashes: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """The hashes cut into BANDS pieces, each as a number."""
    pieces = np.array_split(np.unpackbits(hashes, axis=1), BANDS, axis=1)
    return [piece @ (1 << np.arange(piece.shape[1])) for piece in pieces]


def _close(hashes: NDArray[np.uint8], key: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Pairs with an equal `key` and hashes at most `bits` apart, each row with the next MOST of its bucket."""
    order = np.argsort(key, kind="stable")
    found = [np.zeros((0, 2), np.int64)]
    active, step = np.arange(len(order)), 1
    while step <= MOST and len(active := active[active + step < len(order)]):
        active = active[key[order[active]] == key[order[active + step]]]
        first, second = order[active], order[active + step]
        near = np.bitwise_count(hashes[first] ^ hashes[second]).sum(axis=1) <= bits
        found.append(np.stack([first[near], second[near]], axis=1))
        step += 1
    return np.concatenate(found)
