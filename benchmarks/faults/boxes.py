"""Faults of boxes. A box is COCO's [x, y, width, height]."""

import math

from benchmarks.faults.draft import Draft, Place, Record
from benchmarks.faults.planter import planter

MASKED = "coco people"
Box = list[float]


def plain(label: Record) -> bool:
    """A label that anybody would take for sound: no crowd, a real box."""
    return not label.get("iscrowd") and not label.get("ignore") and min((label.get("bbox") or [0] * 4)[2:]) > 4


def iou(one: Box, other: Box) -> float:
    """Of two boxes."""
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(wide, 0) * max(high, 0)
    return both / (one[2] * one[3] + other[2] * other[3] - both)


@planter("box-not-finite", "bccd", "a box that is null, not there, of three numbers, or has NaN or infinity in it")
def not_finite(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        kind = str(draft.rng.choice(["null", "not there", "three numbers", "NaN", "infinity"]))
        place = int(draft.rng.integers(4))
        if kind == "null":
            label["bbox"] = None
        elif kind == "not there":
            del label["bbox"]
        elif kind == "three numbers":
            label["bbox"] = label["bbox"][:3]
        else:
            label["bbox"][place] = math.nan if kind == "NaN" else math.inf * draft.rng.choice([-1, 1])
        return kind

    return draft.spoil_labels(spoil, plain)


@planter("box-missing", MASKED, "of a label with a mask: the box null, not there, or NaN")
def missing(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        kind = str(draft.rng.choice(["null", "not there", "NaN"]))
        label["bbox"] = None if kind == "null" else [math.nan] * 4
        if kind == "not there":
            del label["bbox"]
        return kind

    return draft.spoil_labels(spoil, lambda label: plain(label) and bool(label.get("segmentation")))


@planter("box-zero-area", "bccd coco", "width or height 0, or negative because the corners were exchanged")
def zero_area(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        x, y, w, h = label["bbox"]
        kind = str(draft.rng.choice(["no width", "no height", "a point", "corners exchanged", "left and right exchanged"]))
        label["bbox"] = {
            "no width": [x, y, 0, h],
            "no height": [x, y, w, 0],
            "a point": [x, y, 0, 0],
            "corners exchanged": [x + w, y + h, -w, -h],
            "left and right exchanged": [x + w, y, -w, h],
        }[kind]
        return kind

    return draft.spoil_labels(spoil, plain)


@planter("box-outside", "bccd coco", "a box moved off its picture, 0.5 px to a whole side beyond the border")
def outside(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        x, y, w, h = label["bbox"]
        side = str(draft.rng.choice(["left", "above", "right", "below"]))
        gap = float(math.exp(draft.rng.uniform(math.log(0.5), math.log(image["width"]))))
        place = {
            "left": (-w - gap, y),
            "above": (x, -h - gap),
            "right": (image["width"] + gap, y),
            "below": (x, image["height"] + gap),
        }
        label["bbox"] = [*place[side], w, h]
        return side

    return draft.spoil_labels(spoil, plain)


@planter("box-partly-outside", "bccd coco", "a box moved or stretched so that 3 to 80 % of a side, and 2 px or more, lie outside")
def partly_outside(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        x, y, w, h = label["bbox"]
        share, axis, far = float(draft.rng.uniform(0.03, 0.8)), int(draft.rng.integers(2)), bool(draft.rng.integers(2))
        side, whole, near = ((w, image["width"], x), (h, image["height"], y))[axis]
        beyond, stretched = share * side, bool(draft.rng.integers(2))
        if beyond < 2:
            return None
        start, length = (near, whole + beyond - near) if stretched else (whole - side + beyond, side)
        if not far:
            start, length = (-beyond, near + side + beyond) if stretched else (-beyond, side)
        label["bbox"] = [start, y, length, h] if axis == 0 else [x, start, w, length]
        return "stretched" if stretched else "moved"

    return draft.spoil_labels(spoil, plain)


@planter("box-sliver", "bccd coco", "a click that slipped: one side of 0.2 to 3 px")
def sliver(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        thin = float(math.exp(draft.rng.uniform(math.log(0.2), math.log(3))))
        label["bbox"][2 + int(draft.rng.integers(2))] = thin
        return "up to 1 px" if thin <= 1 else "1 to 2 px" if thin <= 2 else "2 to 3 px"

    return draft.spoil_labels(spoil, plain)


@planter("box-extreme-aspect", "bccd coco", "a box 15 to 100 times as long as wide, 2 px wide or more")
def extreme_aspect(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str | None:
        ratio = float(math.exp(draft.rng.uniform(math.log(15), math.log(100))))
        axis = int(draft.rng.integers(2))
        long = float(draft.rng.uniform(0.4, 1)) * (image["width"], image["height"])[axis]
        thin = long / ratio
        if thin < 2:
            return None
        x, y = label["bbox"][:2]
        if axis == 0:
            label["bbox"] = [0, min(y, image["height"] - thin), long, thin]
        else:
            label["bbox"] = [min(x, image["width"] - thin), 0, thin, long]
        return "1 to 15..25" if ratio <= 25 else "1 to 25..100"

    return draft.spoil_labels(spoil, plain)


@planter("box-whole-picture", "bccd coco", "the only label of a picture covers 95 to 100 % of it")
def whole_picture(draft: Draft) -> list[Place]:
    places = []
    for split, image in draft.some_images(15, lambda split, image: bool(draft.own(split, image))):
        first, *others = draft.own(split, image)
        gone = {label["id"] for label in others}
        draft.labels[split]["annotations"] = [one for one in draft.labels[split]["annotations"] if one["id"] not in gone]
        share, side = float(draft.rng.uniform(0.95, 1)), float(draft.rng.random())
        w, h = image["width"] * share**side, image["height"] * share ** (1 - side)
        first |= {"bbox": [(image["width"] - w) / 2, (image["height"] - h) / 2, w, h], "iscrowd": 0}
        kind = "95 to 98 %" if share < 0.98 else "98 to 100 %"
        places.append(Place(kind, split, image["file_name"], first["id"]))
    return places


@planter("box-area-differs", "bccd", "area stored as 0 or negative, or a third and more off: times 1.3 to 20, or divided by it")
def box_area(draft: Draft) -> list[Place]:
    def spoil(label: Record, image: Record) -> str:
        area = label["bbox"][2] * label["bbox"][3]
        kind = str(draft.rng.choice(["zero", "negative", "too large", "too small"]))
        factor = float(math.exp(draft.rng.uniform(math.log(1.3), math.log(20))))
        label["area"] = {"zero": 0, "negative": -area, "too large": area * factor, "too small": area / factor}[kind]
        return kind

    return draft.spoil_labels(spoil, plain)


@planter(
    "box-unlike-class",
    "bccd",
    "both sides 3 to 8 times too long or too short; a small cell named as the large kind, or the reverse",
)
def unlike_class(draft: Draft) -> list[Place]:
    names = {category["name"]: category["id"] for category in draft.info["categories"]}
    swapped = {names["WBC"]: names["Platelets"], names["Platelets"]: names["WBC"]}

    def spoil(label: Record, image: Record) -> str | None:
        x, y, w, h = label["bbox"]
        if label["category_id"] in swapped:
            label["category_id"] = swapped[label["category_id"]]
            return "named as another class"
        factor = float(math.exp(draft.rng.uniform(math.log(3), math.log(8))))
        if draft.rng.integers(2):
            label["bbox"] = [x, y, w / factor, h / factor]
            return "too small"
        w, h = min(w * factor, image["width"]), min(h * factor, image["height"])
        label["bbox"] = [min(x, image["width"] - w), min(y, image["height"] - h), w, h]
        return "too large"

    return draft.spoil_labels(spoil, plain)


def drawn_again(draft: Draft, other_class: bool) -> list[Place]:
    """Labels of which a second copy is drawn, each edge up to 8 % of the side beside the first's."""
    classes, places = [category["id"] for category in draft.info["categories"]], []

    def spoil(label: Record, image: Record) -> str | None:
        split = next(split for split in draft.splits if any(one is image for one in draft.labels[split]["images"]))
        x, y, w, h = label["bbox"]
        slip = float(draft.rng.uniform(0, 0.08))
        left, right, top, bottom = (float(value) for value in draft.rng.uniform(-slip, slip, 4))
        x1, x2 = max(x + left * w, 0), min(x + w + right * w, image["width"])
        y1, y2 = max(y + top * h, 0), min(y + h + bottom * h, image["height"])
        box = [x1, y1, x2 - x1, y2 - y1]
        category = label["category_id"]
        if other_class:
            category = int(draft.rng.choice([one for one in classes if one != category]))
        new = draft.add_label(split, label, bbox=box, category_id=category)
        apart = iou(label["bbox"], box)
        kind = "IoU 0.9 to 1" if apart >= 0.9 else "IoU 0.8 to 0.9" if apart >= 0.8 else "IoU below 0.8"
        places.append(Place(kind, split, image["file_name"], new["id"], twins=(label["id"],)))
        return None if len(places) < 40 else kind

    draft.spoil_labels(spoil, plain, most=1)
    return places


@planter("box-near-duplicate", "bccd coco", "a box drawn a second time, each edge up to 8 % of the side beside the first's")
def near_duplicate(draft: Draft) -> list[Place]:
    return drawn_again(draft, other_class=False)


@planter("box-near-duplicate-other-class", "bccd coco", "a box drawn a second time as another class, each edge up to 8 % beside")
def near_duplicate_other_class(draft: Draft) -> list[Place]:
    return drawn_again(draft, other_class=True)
