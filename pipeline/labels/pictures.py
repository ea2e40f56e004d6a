"""Look into every picture file once: does it decode to the end, how large is it really, which bytes is it.

Threads, not processes: Pillow's decoders, zlib and the digest let go of the interpreter lock, and threads share the results.
"""

import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pipeline.data.dataset import Dataset, Split
from pipeline.errors import DataError
from pipeline.files import digest_file
from pipeline.labels.looks import Look, look_at
from pipeline.predict.preprocess import readable_formats

CHUNK = 1000
"""Pictures between two signs of progress."""


class State(IntEnum):
    """What looking at a picture file showed."""

    GOOD = 0
    MISSING = 1
    UNREADABLE = 2
    """Not a picture, or damaged before its size could be read."""
    TOO_LARGE = 3
    """The header promises more pixels than the limit; not decoded."""
    TRUNCATED = 4
    """The header is fine, the pixels end early or are damaged."""


class DrawnMap(NamedTuple):
    """What the file of a panoptic map holds."""

    width: int
    height: int
    numbers: frozenset[int]
    """Of the segments that have pixels; 0, none, left out."""
    fault: str
    """What is wrong with the file; empty for a good one."""


class Inspection(NamedTuple):
    """What one picture file is."""

    state: State
    width: int
    """Real width in pixels; 0 where the header could not be read."""
    height: int
    digest: str
    """Content digest; empty where the file could not be read."""
    fault: str
    """What the decoder said; empty for a good picture."""
    look: Look | None = None
    """What the pixels are like; None where they could not be read."""
    drawn: DrawnMap | None = None
    """The picture's panoptic map; None where the dataset has none."""


def inspect(dataset: Dataset, max_pixels: int, show: Callable[[int], None] = lambda done: None) -> dict[str, list[Inspection]]:
    """The pictures, and panoptic maps, of every split, in the order of its image table. Never raises.

    `show` is told how many are done.
    """
    found: dict[str, list[Inspection]] = {name: [] for name in dataset.splits}
    look = partial(inspect_picture, max_pixels=max_pixels)
    with (
        warnings.catch_warnings()
    ):  # Pillow warns of odd metadata and of large pictures; odd is fine, large is judged by max_pixels
        warnings.simplefilter("ignore")
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            for name, split in dataset.splits.items():
                rows = range(len(split.images))
                for start in range(0, len(rows), CHUNK):  # in pieces: a million pictures are not a million pending futures
                    some = rows[start : start + CHUNK]
                    pictures = pool.map(look, [split.path(row) for row in some])
                    maps = pool.map(partial(inspect_map, split), some)
                    found[name] += [one._replace(drawn=drawn) for one, drawn in zip(pictures, maps, strict=True)]
                    show(sum(map(len, found.values())))
    return found


def inspect_picture(path: Path, max_pixels: int) -> Inspection:
    """One picture file: header first, then the pixels when there are at most `max_pixels`. Never raises."""
    if not path.exists():
        return Inspection(State.MISSING, 0, 0, "", "no such file")
    if not path.is_file():
        return Inspection(State.UNREADABLE, 0, 0, "", "not a file")
    digest, width, height = "", 0, 0
    look = None
    try:
        digest = digest_file(path)
        with Image.open(path, formats=readable_formats()) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                return Inspection(State.TOO_LARGE, width, height, digest, f"{width} x {height} pixels")
            look = look_at(picture)
            if picture.format == "PNG":
                _verify(path)
    except Image.DecompressionBombError as error:
        return Inspection(State.TOO_LARGE, width, height, digest, _said(error))
    except Exception as error:  # Pillow raises nearly anything for a damaged file: SyntaxError, struct.error ...
        state = State.TRUNCATED if width else State.UNREADABLE
        return Inspection(state, width, height, digest, _said(error).replace(str(path), path.name))
    return Inspection(State.GOOD, width, height, digest, "", look)


def inspect_map(split: Split, row: int) -> DrawnMap | None:
    """The panoptic map of image `row`; None where the split has none. Never raises."""
    if split.maps is None or split.maps.panoptic is None or split.maps.segments is None:
        return None
    try:
        ids_HW = split.maps.segments_of(row)
    except DataError as error:
        path = split.maps.panoptic / split.maps.names[row]
        return DrawnMap(0, 0, frozenset(), _said(error).replace(str(path), f"panoptic/{split.maps.names[row]}"))
    height, width = ids_HW.shape
    flat = ids_HW.reshape(-1)
    runs = flat[np.flatnonzero(np.diff(flat, prepend=-1))]  # a number per run: far fewer to sort
    return DrawnMap(width, height, frozenset(np.unique(runs).tolist()) - {0}, "")


def _verify(path: Path) -> None:
    """Raise where a checksum of a PNG file is wrong: `load` decodes such pixels without a word."""
    with Image.open(path, formats=["PNG"]) as picture:
        picture.verify()


def _said(error: Exception) -> str:
    """The error in one short line."""
    return " ".join((str(error) or type(error).__name__).split())[:200]
