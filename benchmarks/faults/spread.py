"""Faults of the dataset as a whole: each draft has one."""

import math

import numpy as np
from PIL import Image

from benchmarks.faults.draft import Draft, Place, Record
from benchmarks.faults.planter import planter
from benchmarks.faults.structure import choice, counts, name_of, remove


@planter("class-imbalance", "bccd", "training labels of a class reduced until another has 50 to 1,000 times as many", 12)
def imbalance(draft: Draft) -> list[Place]:
    have = counts(draft, "train")
    most = max(have.values())
    category = choice(draft, sorted(one for one, count in have.items() if count < most))
    ratio = float(math.exp(draft.rng.uniform(math.log(50), math.log(1000))))
    kept = max(1, round(most / ratio))
    remove(draft, "train", category, keep=kept)
    return [Place("50 to 100 times" if most / kept <= 100 else "over 100 times", says=name_of(draft, category))]


@planter("class-rare", "bccd coco", "training labels of a class reduced to 1 to 12", 8)
def rare(draft: Draft) -> list[Place]:
    kept = int(draft.rng.integers(1, 13))
    category = choice(draft, sorted(one for one, count in counts(draft, "train").items() if count > kept))
    remove(draft, "train", category, keep=kept)
    return [Place("1 to 9 labels" if kept < 10 else "10 to 12 labels", says=name_of(draft, category))]


@planter("class-absent-from-split", "bccd coco", "all labels of a class gone from val, or test, that train holds", 6)
def not_measured(draft: Draft) -> list[Place]:
    split = choice(draft, [name for name in draft.splits if name != "train"])
    category = choice(draft, sorted(counts(draft, "train").keys() & counts(draft, split).keys()))
    remove(draft, split, category)
    return [Place(f"gone from {split}", split, says=name_of(draft, category))]


@planter(
    "split-drift",
    "bccd",
    "val made of other things: 40 to 100 % of a class gone, boxes at 0.4 to 0.7 of their size, 20 to 60 % darker",
    12,
)
def drift(draft: Draft) -> list[Place]:
    kind = str(draft.rng.choice(["classes", "sizes", "light"]))
    if kind == "classes":
        category = max(counts(draft, "val"), key=lambda one: counts(draft, "val")[one])
        share = float(draft.rng.uniform(0.4, 1))
        remove(draft, "val", category, keep=round((1 - share) * counts(draft, "val")[category]))
    elif kind == "sizes":
        factor = float(draft.rng.uniform(0.4, 0.7))
        for label in draft.labels["val"]["annotations"]:
            x, y, w, h = label["bbox"]
            label |= {"bbox": [x, y, w * factor, h * factor], "area": w * h * factor**2}
    else:
        factor = float(draft.rng.uniform(0.4, 0.8))
        for image in draft.labels["val"]["images"]:
            path = draft.picture(image)
            with Image.open(path) as picture:
                darker = picture.convert("RGB").point(lambda level: int(level * factor))
            darker.save(path, "JPEG", quality=90)
    return [
        Place(f"{kind} of {len(draft.labels['val']['images'])} pictures", "val", says={"light": "brightness"}.get(kind, kind))
    ]


@planter("image-crowded", "bccd coco", "labels added until a picture has 101 to 300 objects")
def crowded(draft: Draft) -> list[Place]:
    places = []
    for split, image in draft.some_images(5, lambda split, image: bool(draft.own(split, image))):
        own, wanted = draft.own(split, image), int(draft.rng.integers(101, 301))
        for number in range(wanted - sum(not label.get("iscrowd") for label in own)):
            w, h = (float(value) for value in draft.rng.uniform(8, 40, 2))
            x, y = float(draft.rng.uniform(0, image["width"] - w)), float(draft.rng.uniform(0, image["height"] - h))
            like = {"image_id": image["id"], "category_id": own[number % len(own)]["category_id"], "iscrowd": 0, "area": w * h}
            draft.add_label(split, like, bbox=[x, y, w, h])
        places.append(Place("101 to 300", split, image["file_name"]))
    return places


@planter("size-range-empty", "bccd coco", "0 to 9 small, medium or large objects left in val", 8)
def size_range(draft: Draft) -> list[Place]:
    name, low, high = choice(draft, [("small", 0, 32**2), ("medium", 32**2, 96**2), ("large", 96**2, math.inf)])
    kept = int(draft.rng.integers(0, 10))
    rows = draft.labels["val"]["annotations"]
    own = [place for place, label in enumerate(rows) if low <= label["area"] < high and not label.get("iscrowd")]
    gone = {own[place] for place in draft.rng.permutation(len(own))[kept:].tolist()}
    draft.labels["val"]["annotations"] = [label for place, label in enumerate(rows) if place not in gone]
    left = len(rows) - len(gone)
    kind = f"{name}, {left // 100 * 100} labels or more left" if left >= 100 else "fewer than 100 labels left"
    return [Place(kind, "val", says=name)]


@planter(
    "class-follows-picture",
    "bccd",
    "a class left in the darkest or brightest part of the pictures only, but for 0 to 5 % of the others",
    10,
)
def follows_picture(draft: Draft) -> list[Place]:
    grey = {image["file_name"]: brightness(draft, image) for _, image in draft.images()}
    share, slips = float(draft.rng.uniform(0.2, 0.6)), float(draft.rng.uniform(0, 0.05))
    line, darker = float(np.quantile(list(grey.values()), share)), bool(draft.rng.integers(2))
    category = choice(draft, sorted(counts(draft, "train")))
    for split in draft.splits:
        inside = {image["id"] for image in draft.labels[split]["images"] if (grey[image["file_name"]] <= line) == darker}
        inside |= {image["id"] for image in draft.labels[split]["images"] if draft.rng.random() < slips}
        rows = draft.labels[split]["annotations"]
        draft.labels[split]["annotations"] = [one for one in rows if one["category_id"] != category or one["image_id"] in inside]
    return [Place("darkest" if darker else "brightest", says=name_of(draft, category))]


def brightness(draft: Draft, image: Record) -> float:
    """Mean grey level of a picture's thumbnail."""
    with Image.open(draft.folder / "images" / image["file_name"]) as picture:
        picture.draft("L", (64, 64))
        return float(np.asarray(picture.convert("L")).mean())
