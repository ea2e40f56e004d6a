"""Which pictures are for training and which for validation: the source's own answer, else a seeded one."""

import re
from dataclasses import replace

from pipeline.data.config import SplitConfig
from pipeline.data.dataset import SPLITS, Split
from pipeline.data.grouping import crossing, drawn_rows, named_groups
from pipeline.data.pooling import joined
from pipeline.errors import DataError

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


def arrange_splits(found: dict[str, Split], cfg: SplitConfig, seed: int, place: object) -> tuple[dict[str, Split], str]:
    """The source's splits as "train", "val" and maybe "test", and in words how they came about.

    - train and val: kept, with test where there is one; "trainval" is left out beside either of them. Unless `cfg.existing` they
      are pooled, and val is drawn.
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
        if cfg.existing:
            kept: dict[str, Split] = {name: replace(splits[name], name=name) for name in SPLITS if name in splits}
            return kept, f"the source's own{_crossings(list(kept.values()), cfg, place)}"
        splits["train"] = joined([splits["train"], splits.pop("val")], place)
        pooled = "train and val"
    else:
        pooled = None
    whole = next((name for name in ("train", "trainval", "all", *splits) if name in splits), "all")
    if whole not in ("train", "trainval", "all") and len(splits) > 1:
        raise DataError(place, f"has no training split, only {', '.join(sorted(splits))}", "rename one of them to train")
    chosen = drawn_rows(splits[whole], cfg, seed, place)
    train, val = splits[whole].take_images(~chosen), splits[whole].take_images(chosen)
    val = replace(val, annotations=val.annotations.take(val.annotations.image_A >= 0))  # dangling rows stay in train alone
    result = {"train": replace(train, name="train"), "val": replace(val, name="val")}
    if whole != "test" and "test" in splits:
        result["test"] = replace(splits["test"], name="test")
    origin = "the source" if whole == "all" else f"the source's {pooled or whole}"
    rules = ["byte-identical pictures together"]
    named = (("field", cfg.field), ("pattern", cfg.pattern), ("similar", cfg.similar))
    rules += [f"{name} {value!r}" for name, value in named if value is not None]
    rules += ["stratified by class"] if cfg.stratify else []
    how = f"val drawn out of {origin}: share {cfg.val:g}, seed {seed}, {', '.join(rules)}"
    return result, how + _crossings(list(result.values()), cfg, place)


def _crossings(splits: list[Split], cfg: SplitConfig, place: object) -> str:
    """Of the groups that the config names: how many are in several splits, in words; nothing where none is named."""
    if cfg.field is None and cfg.pattern is None and cfg.similar is None:
        return ""
    groups, pictures = crossing(splits, named_groups(splits, cfg, place))
    return f"; {groups} groups ({pictures} pictures) are in more than one split"
