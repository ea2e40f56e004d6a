"""Faults of ids, names, classes and files."""

import os
from pathlib import Path
from typing import Any

from benchmarks.faults.boxes import plain
from benchmarks.faults.draft import Draft, Place, Record
from benchmarks.faults.planter import planter
from benchmarks.faults.sets import BCCD, read_voc


def name_of(draft: Draft, category: int) -> str:
    """A class's name."""
    return str(next(one["name"] for one in draft.info["categories"] if one["id"] == category))


def counts(draft: Draft, split: str) -> dict[int, int]:
    """Labels of each class in a split."""
    found: dict[int, int] = {}
    for label in draft.labels[split]["annotations"]:
        found[label["category_id"]] = found.get(label["category_id"], 0) + 1
    return found


def remove(draft: Draft, split: str, category: int, keep: int = 0) -> None:
    """Take the labels of a class out of a split, all but `keep`."""
    rows = draft.labels[split]["annotations"]
    own = [place for place, label in enumerate(rows) if label["category_id"] == category]
    gone = {own[place] for place in draft.rng.permutation(len(own))[keep:].tolist()}
    draft.labels[split]["annotations"] = [label for place, label in enumerate(rows) if place not in gone]


def choice(draft: Draft, values: list[Any]) -> Any:
    """One of `values`."""
    return values[int(draft.rng.integers(len(values)))]


@planter(
    "annotation-orphan", "bccd coco", "labels of a picture that was struck from the list, or with a picture's id mistyped or null"
)
def orphan(draft: Draft) -> list[Place]:
    known = {image["id"] for _, image in draft.images()}
    places = []
    for split, image in draft.some_images(5, lambda split, image: bool(draft.own(split, image))):
        places += [Place("picture struck", split, None, label["id"]) for label in draft.own(split, image)[:10]]
        draft.labels[split]["images"].remove(image)
    gone = {place.annotation for place in places}

    def spoil(label: Record, image: Record) -> str | None:
        if label["id"] in gone:
            return None
        kind = str(draft.rng.choice(["mistyped", "null"]))
        label["image_id"] = None if kind == "null" else int(draft.rng.integers(10**7, 10**8))
        return kind if label["image_id"] not in known else None

    known_images = {image["id"] for _, image in draft.images()}
    spoiled = draft.spoil_labels(spoil, lambda label: label["image_id"] in known_images, most=20)
    return places + [place._replace(image=None) for place in spoiled]


@planter(
    "category-unknown", "bccd coco", "a category id beyond the declared ones, 0, negative, null, or of a class that was struck"
)
def unknown_category(draft: Draft) -> list[Place]:
    ids = {category["id"] for category in draft.info["categories"]}
    unused = [number for number in range(max(ids) + 5) if number not in ids]

    def spoil(label: Record, image: Record) -> str:
        kind = str(draft.rng.choice(["not declared", "negative", "null"]))
        label["category_id"] = {"not declared": choice(draft, unused), "negative": -3, "null": None}[kind]
        return kind

    return draft.spoil_labels(spoil)


@planter("split-empty", "bccd coco", "train or val without labels, or without pictures", 6)
def empty_split(draft: Draft) -> list[Place]:
    split, kind = str(draft.rng.choice(["train", "val"])), str(draft.rng.choice(["no labels", "no pictures"]))
    draft.labels[split]["annotations"] = []
    if kind == "no pictures":
        draft.labels[split]["images"] = []
    return [Place(f"{kind} in {split}", split)]


@planter("class-absent-from-train", "bccd coco", "all training labels of a class gone that val holds", 6)
def not_trained(draft: Draft) -> list[Place]:
    both = sorted(counts(draft, "train").keys() & counts(draft, "val").keys())
    category = choice(draft, both)
    remove(draft, "train", category)
    return [Place("gone from train", "train", says=name_of(draft, category))]


@planter("class-unused", "bccd coco", "a class declared and never used; all labels of one gone", 6)
def unused_class(draft: Draft) -> list[Place]:
    if draft.rng.integers(2):
        draft.info["categories"].append({"id": 5000, "name": "nobody uses it", "supercategory": ""})
        return [Place("declared too many", says="nobody uses it")]
    category = choice(draft, sorted(counts(draft, "train")))
    for split in draft.splits:
        remove(draft, split, category)
    return [Place("labels gone", says=name_of(draft, category))]


@planter("annotation-id-repeated", "bccd coco", "a label with the id of another of its split")
def repeated_label_id(draft: Draft) -> list[Place]:
    places = []
    for split in draft.splits:
        rows = draft.labels[split]["annotations"]
        drawn = draft.rng.permutation(len(rows))[: 2 * min(15, len(rows) // 10)]
        for one, other in drawn.reshape(-1, 2).tolist():
            rows[one]["id"] = rows[other]["id"]
            places.append(Place("taken", split, None, rows[other]["id"]))
    return places


@planter("image-id-repeated", "bccd coco", "a picture with the id of another of its split")
def repeated_image_id(draft: Draft) -> list[Place]:
    places = []
    for split in draft.splits:
        images = draft.labels[split]["images"]
        for one, other in draft.rng.permutation(len(images))[:6].reshape(-1, 2).tolist():
            images[one]["id"] = images[other]["id"]
            places += [Place("taken", split, images[row]["file_name"]) for row in (one, other)]
    return places


@planter("annotation-area-missing", "bccd coco", "the area null, not there or NaN")
def no_area(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        kind = str(draft.rng.choice(["null", "not there", "NaN"]))
        label["area"] = None if kind == "null" else float("nan")
        if kind == "not there":
            del label["area"]
        return kind

    return draft.spoil_labels(spoil, plain)


@planter("class-name-repeated", "bccd coco", "a class given the name of another", 6)
def repeated_name(draft: Draft) -> list[Place]:
    one, other = (draft.info["categories"][place] for place in draft.rng.permutation(len(draft.info["categories"]))[:2])
    one["name"] = other["name"]
    return [Place("same name", says=other["name"])]


@planter(
    "class-name-alike",
    "bccd coco",
    "one class more, its name written otherwise: case, blanks, dashes, invisible characters, a plural",
    12,
)
def alike_name(draft: Draft) -> list[Place]:
    name = str(choice(draft, draft.info["categories"])["name"])
    ways = {
        "other case": name.swapcase(),
        "blank behind": name + " ",
        "blanks as underscores": name.replace(" ", "_") if " " in name else f"{name[:2]}_{name[2:]}",
        "dash": name.replace(" ", "-") if " " in name else f"{name[:2]}-{name[2:]}",
        "invisible character": name + "\u200b",
        "fixed blank": name.replace(" ", "\u00a0") if " " in name else name + "\u00a0",
        "plural": name + "s",
    }
    kind = str(choice(draft, list(ways)))
    draft.info["categories"].append({"id": 5000, "name": ways[kind], "supercategory": ""})
    return [Place(kind, says=repr(ways[kind]))]


@planter("class-id-gap", "bccd", "one to three classes struck between others, or all later ids moved up", 10)
def id_gap(draft: Draft) -> list[Place]:
    step, first = int(draft.rng.integers(1, 40)), int(draft.rng.integers(1, len(draft.info["categories"])))
    old = [category["id"] for category in draft.info["categories"]]
    new = {one: one + step * (place >= first) for place, one in enumerate(old)}
    for category in draft.info["categories"]:
        category["id"] = new[category["id"]]
    for split in draft.splits:
        for label in draft.labels[split]["annotations"]:
            label["category_id"] = new[label["category_id"]]
    return [Place("a gap", says="no class")]


@planter("class-count-differs", "bccd", "a number of classes stated that is 1 to 20 more or fewer than are named", 10)
def other_count(draft: Draft) -> list[Place]:
    named = len(draft.info["categories"])
    draft.info["stated_classes"] = max(1, named + int(draft.rng.integers(1, 21)) * int(draft.rng.choice([-1, 1])))
    if draft.info["stated_classes"] == named:
        draft.info["stated_classes"] += 1
    return [Place("another number", says=f"states {draft.info['stated_classes']}")]


@planter("label-file-unused", BCCD, "of a VOC folder: 1 to 20 pictures lost, from the lists too, their label files left", 6)
def unused_label_file(draft: Draft) -> list[Place]:
    names = sorted(path.stem for path in (voc_source() / "BCCD/Annotations").glob("*.xml"))
    chosen = [names[place] for place in draft.rng.permutation(len(names))[: int(draft.rng.integers(1, 21))].tolist()]
    source = linked_voc(draft, lost_pictures=set(chosen), lost_labels=set())
    for path in (source / "BCCD/ImageSets/Main").glob("*.txt"):
        path.write_text("".join(f"{name}\n" for name in path.read_text().split() if name not in chosen))
    draft.opened = read_voc(source)
    return [Place("pictures lost", says="Annotations/")]


@planter("image-unlabelled", BCCD, "of a VOC folder: label files lost", 2)
def unlabelled(draft: Draft) -> list[Place]:
    names = sorted(path.stem for path in (voc_source() / "BCCD/Annotations").glob("*.xml"))
    chosen = {names[place] for place in draft.rng.permutation(len(names))[:20].tolist()}
    draft.opened = read_voc(linked_voc(draft, lost_pictures=set(), lost_labels=chosen))
    return [
        Place("label file lost", split.name, name)
        for split in draft.opened.splits.values()
        for name in split.images.file_names
        if Path(name).stem in chosen
    ]


@planter("image-empty", "bccd coco", "all labels of a picture gone")
def empty_image(draft: Draft) -> list[Place]:
    places = []
    for split, image in draft.some_images(15, lambda split, image: bool(draft.own(split, image))):
        rows = draft.labels[split]["annotations"]
        draft.labels[split]["annotations"] = [label for label in rows if label["image_id"] != image["id"]]
        places.append(Place("labels gone", split, image["file_name"]))
    return places


def voc_source() -> Path:
    """The blood cell set as it was published."""
    from benchmarks.faults.sets import DATA

    return DATA / "bccd_voc"


def linked_voc(draft: Draft, lost_pictures: set[str], lost_labels: set[str]) -> Path:
    """A copy of the blood cell set without some files."""
    out = draft.folder / "voc"
    for place, suffix, lost in (
        ("JPEGImages", ".jpg", lost_pictures),
        ("Annotations", ".xml", lost_labels),
        ("ImageSets/Main", ".txt", set()),
    ):
        (out / "BCCD" / place).mkdir(parents=True)
        for path in sorted((voc_source() / "BCCD" / place).glob(f"*{suffix}")):
            if path.stem in lost:
                continue
            target = out / "BCCD" / place / path.name
            if suffix == ".txt":
                target.write_text(path.read_text())
            else:
                os.symlink(path, target)
    return out
