"""Which pictures are for training and which for validation: the source's own answer, else a seeded one."""

import hashlib
import re
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Split
from pipeline.errors import DataError
from pipeline.files import digest_file

WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "trainval": "trainval",
}
"""Words in file and folder names that name a split."""


def split_named(text: str) -> str | None:
    """The split that a file or folder name speaks of (`instances_val2017` -> "val"), None when it names none."""
    return next((WORDS[word] for word in re.split(r"[^a-z]+", text.lower()) if word in WORDS), None)


def arrange_splits(found: dict[str, Split], val_share: float, seed: int, place: object) -> tuple[dict[str, Split], str]:
    """The source's splits as "train", "val" and maybe "test", and in words how they came about.

    - train and val: kept, with test where there is one; "trainval" is left out beside either of them.
    - train (or trainval) without val: val is drawn out of it. A test split is never used for validation: it is the last judge.
    - a single split, whatever its name: val is drawn out of it.
    - val and test alone: DataError, there is nothing to train on.
    """
    splits = {name: split for name, split in found.items() if len(split.images)}
    if not splits:
        raise DataError(place, "has no pictures", "labels were found, but no split lists a picture")
    if "train" in splits or "val" in splits:
        splits.pop("trainval", None)
    if "train" in splits and "val" in splits:
        return {name: replace(splits[name], name=name) for name in ("train", "val", "test") if name in splits}, "the source's own"
    whole = next((name for name in ("train", "trainval", "all", *splits) if name in splits), "all")
    if whole not in ("train", "trainval", "all") and len(splits) > 1:
        raise DataError(place, f"has no training split, only {', '.join(sorted(splits))}", "rename one of them to train")
    chosen = validation_rows(splits[whole], val_share, seed, place)
    train, val = splits[whole].take_images(~chosen), splits[whole].take_images(chosen)
    val = replace(val, annotations=val.annotations.take(val.annotations.image_A >= 0))  # dangling rows stay in train alone
    result = {"train": replace(train, name="train"), "val": replace(val, name="val")}
    if whole != "test" and "test" in splits:
        result["test"] = replace(splits["test"], name="test")
    origin = "the source" if whole == "all" else f"the source's {whole}"
    return result, f"val drawn out of {origin}: share {val_share:g}, seed {seed}, byte-identical pictures together"


def validation_rows(split: Split, share: float, seed: int, place: object) -> NDArray[np.bool_]:
    """Which images go to validation, [I]. Depends on picture bytes and the seed alone, so a renamed picture stays where it is and
    adding pictures moves few others. Pictures with equal bytes go together, which can miss `share` by the size of a group."""
    groups: dict[bytes, list[int]] = {}
    for row in range(len(split.images)):
        path = split.path(row)
        if path.is_file():  # a missing picture can judge nothing: it stays in train
            key = hashlib.blake2b(f"{seed} {digest_file(path)}".encode(), digest_size=16).digest()
            groups.setdefault(key, []).append(row)
    if len(groups) < 2:
        raise DataError(place, "has fewer than two different pictures: no validation split can be made", "add pictures")
    chosen = np.zeros(len(split.images), np.bool_)
    room = max(1, round(share * len(split.images)))
    for key in sorted(groups):
        if len(groups[key]) <= room:
            chosen[groups[key]] = True
            room -= len(groups[key])
    if not chosen.any():
        chosen[min((len(rows), key, rows) for key, rows in groups.items())[2]] = True
    if chosen.all():
        chosen[groups[max(groups)]] = False
    return chosen
