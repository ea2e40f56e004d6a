"""Parts of a dataset for cross-validation: every picture is in one part, pictures that belong together in the same one."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations
from pipeline.data.config import SplitConfig
from pipeline.data.dataset import Dataset, Split, write_dataset
from pipeline.data.grouping import named_groups, united
from pipeline.data.pooling import joined
from pipeline.errors import DataError
from pipeline.files import digest_file


def pooled(dataset: Dataset, place: object) -> Split:
    """All splits as one, picture rows and annotation rows split after split; maps, proposals and dense poses are left behind."""
    return joined(
        [replace(split, maps=None, proposals=None, annotations=_plain(split)) for split in dataset.splits.values()], place
    )


def fold_of_pictures(whole: Split, cfg: SplitConfig | None, folds: int, seed: int, place: object) -> NDArray[np.int64]:
    """The part 0..folds-1 of each picture: groups in an order drawn by `seed`, each to the part that has the fewest pictures.

    Together stay byte-identical pictures and what `cfg` says belongs together. DataError when there are fewer groups than parts.
    """
    digests = [digest_file(whole.path(row)) for row in range(len(whole.images))]
    names = named_groups([whole], cfg, place) if cfg is not None else [[] for _ in digests]
    groups = united([[f"bytes {digest}", *own] for digest, own in zip(digests, names, strict=True)])
    keys = [hashlib.blake2b(f"{seed} {digest}".encode(), digest_size=16).digest() for digest in digests]
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(row)
    if len(members) < folds:
        raise DataError(
            place, f"has {len(members)} pictures or groups of them: too few for {folds} folds", "lower suspects.folds"
        )
    fold_I = np.zeros(len(digests), np.int64)
    filled = [0] * folds
    for rows in sorted(members.values(), key=lambda rows: min(keys[row] for row in rows)):
        fold = filled.index(min(filled))
        fold_I[rows] = fold
        filled[fold] += len(rows)
    return fold_I


def write_fold(out: Path, dataset: Dataset, whole: Split, held_I: NDArray[np.bool_], images: Path) -> None:
    """A dataset in `out` whose val is the held pictures and whose train all others; pictures stay where they are, in `images`."""
    out.mkdir(parents=True, exist_ok=True)
    link = out / "images"
    link.unlink(missing_ok=True)
    link.symlink_to(images.absolute(), target_is_directory=True)
    parts = {"train": whole.take_images(~held_I), "val": whole.take_images(held_I)}
    splits = {name: replace(part, name=name, annotations=part.annotations.renumbered()) for name, part in parts.items()}
    write_dataset(out, Dataset(replace(dataset.info, splitting="a fold of cross-validation"), splits), copy_images=False)


def origin(dataset: Dataset) -> tuple[list[str], NDArray[np.int64]]:
    """Names of the splits, and which of them each picture of the pooled split is from."""
    sizes: Sequence[int] = [len(split.images) for split in dataset.splits.values()]
    return list(dataset.splits), np.repeat(np.arange(len(sizes)), sizes)


def _plain(split: Split) -> Annotations:
    return replace(split.annotations, dense=None)
