"""Groups of pictures that must not be torn apart, and draws that keep them whole."""

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pipeline.data.config import SplitConfig
from pipeline.data.dataset import Split
from pipeline.data.perceptual import near_files
from pipeline.errors import DataError, did_you_mean
from pipeline.files import digest_file

Groups = NDArray[np.int64]
"""Group of each picture, 0..G-1."""


def named_groups(splits: Sequence[Split], cfg: SplitConfig, place: object) -> list[list[str]]:
    """Names of the groups of each picture of all splits, one split behind the other, by the config's field, pattern and looks.

    DataError where a field is on no picture or a pattern fits none: it is misspelt, and nothing would be kept together.
    """
    names: list[list[str]] = [[] for split in splits for _ in range(len(split.images))]
    if cfg.field is not None:
        records = [split.images.extra.get(row, {}) for split in splits for row in range(len(split.images))]
        if not any(cfg.field in record for record in records):
            there = sorted({field for record in records for field in record})
            raise DataError(place, f"dataset.split.field: no picture has {cfg.field!r}", did_you_mean(cfg.field, there))
        for own, record in zip(names, records, strict=True):
            if record.get(cfg.field) is not None:
                own.append(f"field {record[cfg.field]}")
    if cfg.pattern is not None:
        files = [name for split in splits for name in split.images.file_names]
        found = [re.search(cfg.pattern, name) for name in files]
        if not any(found):
            example = f"a path is {files[0]}" if files else "there is no picture"
            raise DataError(place, f"dataset.split.pattern: {cfg.pattern!r} is found in no picture's path", example)
        for own, match in zip(names, found, strict=True):
            if match:
                own.append(f"name {match.groups() or match[0]}")
    if cfg.similar is not None:
        paths = [split.path(row) for split in splits for row in range(len(split.images))]
        for first, second in near_files(paths, cfg.similar).tolist():
            names[first].append(f"like {first}")
            names[second].append(f"like {first}")
    return names


def united(names: Sequence[Sequence[str]]) -> Groups:
    """Groups of things that share a name, directly or through others."""
    numbers: dict[str, int] = {}
    pairs = [(row, numbers.setdefault(name, len(numbers))) for row, own in enumerate(names) for name in own]
    rows, columns = np.array(pairs, np.int64).reshape(-1, 2).T
    size = len(names) + len(numbers)
    graph = coo_array((np.ones(len(pairs), np.int8), (rows, columns + len(names))), shape=(size, size))
    labels = connected_components(graph, directed=False)[1][: len(names)]
    groups: Groups = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    return groups


def crossing(splits: Sequence[Split], names: Sequence[Sequence[str]]) -> tuple[int, int]:
    """How many named groups have pictures in more than one split, and how many pictures these are."""
    groups = united(names)
    split_I = np.repeat(np.arange(len(splits)), [len(split.images) for split in splits])
    sides = np.unique(np.stack([groups, split_I], axis=1), axis=0)
    several_G = np.bincount(sides[:, 0], minlength=1) > 1
    return int(several_G.sum()), int(several_G[groups].sum())


def drawn_rows(split: Split, cfg: SplitConfig, seed: int, place: object) -> NDArray[np.bool_]:
    """Which pictures [I] go to validation. A missing picture can judge nothing: it stays in train.

    Depends on picture bytes, groups and the seed, never on names alone, so a renamed picture stays where it is.
    """
    there = [row for row in range(len(split.images)) if split.path(row).is_file()]
    digests = [digest_file(split.path(row)) for row in there]
    names = named_groups([split], cfg, place)
    groups = united([[f"bytes {digest}", *names[row]] for row, digest in zip(there, digests, strict=True)])
    keys = [hashlib.blake2b(f"{seed} {digest}".encode(), digest_size=16).digest() for digest in digests]
    members: dict[int, list[int]] = {}
    for place_in, group in enumerate(groups.tolist()):
        members.setdefault(group, []).append(place_in)
    if len(members) < 2:
        raise DataError(place, "has fewer than two different pictures: no validation split can be made", "add pictures")
    ordered = sorted(members.values(), key=lambda rows: min(keys[row] for row in rows))
    whole = [[there[row] for row in rows] for rows in ordered]
    chosen = _stratified(split, whole, cfg.val) if cfg.stratify else _filled(whole, len(split.images), cfg.val)
    if not any(chosen):
        chosen[min(range(len(whole)), key=lambda g: len(whole[g]))] = True
    if all(chosen):
        chosen[-1] = False
    rows_I = np.zeros(len(split.images), np.bool_)
    rows_I[[row for rows, taken in zip(whole, chosen, strict=True) for row in rows if taken]] = True
    return rows_I


def _filled(groups: list[list[int]], pictures: int, share: float) -> list[bool]:
    """Groups in their order while there is room: the share can be missed by a group. Adding pictures moves few."""
    room, chosen = max(1, round(share * pictures)), []
    for rows in groups:
        chosen.append(len(rows) <= room)
        room -= len(rows) if chosen[-1] else 0
    return chosen


def _stratified(split: Split, groups: list[list[int]], share: float) -> list[bool]:
    """Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011): the rarest class first, groups to the side that lacks it.

    Labels are counted, not pictures, so that a class has its share of what is measured. Groups without labels fill up.
    """
    label_A, image_A = split.annotations.label_A, split.annotations.image_A
    classes = int(label_A.max(initial=-1)) + 1
    group_I = np.full(len(split.images), -1, np.int64)
    for group, rows in enumerate(groups):
        group_I[rows] = group
    counted = (label_A >= 0) & (image_A >= 0)
    counted[counted] = group_I[image_A[counted]] >= 0
    where = (group_I[image_A[counted]], label_A[counted])
    counts_GK = coo_array((np.ones(len(where[0]), np.int64), where), shape=(len(groups), classes)).tocsr()  # sums repeats
    groups_KG = counts_GK.T.tocsr()
    sizes_G = np.array([len(rows) for rows in groups])
    shares_2 = np.array([share, 1 - share])
    left_K = np.bincount(where[1], minlength=classes)
    lacking_2K, room_2 = np.outer(shares_2, left_K), shares_2 * sizes_G.sum()
    side_G = np.full(len(groups), -1)

    def settle(group: int, wish_2: NDArray[np.float64]) -> None:
        best = np.flatnonzero(wish_2 == wish_2.max())
        side = int(best[np.argmax(room_2[best])])
        side_G[group] = side
        own = slice(*counts_GK.indptr[group : group + 2])
        lacking_2K[side, counts_GK.indices[own]] -= counts_GK.data[own]
        left_K[counts_GK.indices[own]] -= counts_GK.data[own]
        room_2[side] -= sizes_G[group]

    while left_K.any():
        rarest = int(np.argmin(np.where(left_K > 0, left_K, np.iinfo(np.int64).max)))
        own = slice(*groups_KG.indptr[rarest : rarest + 2])
        with_it, counts = groups_KG.indices[own], groups_KG.data[own]
        for group in with_it[np.argsort(-counts, kind="stable")].tolist():
            if side_G[group] < 0:
                settle(group, lacking_2K[:, rarest])
    for group in np.flatnonzero(side_G < 0).tolist():
        settle(group, room_2)
    return [side == 0 for side in side_G.tolist()]
