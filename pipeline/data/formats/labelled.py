"""From labelled pictures to splits: the last part of every reader whose labels are not COCO's.

A reader finds pictures and their objects as the records that COCO would have, but with `class`, the name, for a category id.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.dataset import Category, Split, labels_of
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.sources import PICTURES, SourceData, SourceFiles, describe_unlisted
from pipeline.data.splits import split_named
from pipeline.errors import DataError

Record = dict[str, Any]


@dataclass(slots=True)
class Labelled:
    """A picture and what one label file says of it."""

    picture: PurePosixPath
    """Below the source, where it is or would be."""
    labels: PurePosixPath
    """The label file, below the source."""
    objects: list[Record] = field(default_factory=list)
    width: int = 0
    """As the labels state it; 0 = not stated."""
    height: int = 0
    split: str | None = None
    """The split that the labels state; None: the folders' names decide."""
    extra: Record = field(default_factory=dict)
    """Further fields of the image."""


def assemble(
    files: SourceFiles,
    entries: list[Labelled],
    declared: Sequence[Category] = (),
    pictures: Sequence[PurePosixPath] | None = None,
    used: Iterable[PurePosixPath] = (),
) -> SourceData:
    """Splits and classes. `pictures`: those of the source that are no labels; `used`: label files that no entry names.

    Pictures beside labelled ones become `unlabelled` images. Classes are the `declared` ones, then all others by name. DataError
    when no picture is there, no object has a class, or two label files are of one picture.
    """
    candidates = files.pictures if pictures is None else list(pictures)
    there = {*candidates}
    if not any(entry.picture in there for entry in entries):
        named = entries[0].picture.name if entries else "none"
        raise DataError(
            files.folder,
            f"has none of the pictures that its labels name, such as {named}",
            f"put them below the source folder ({', '.join(sorted(PICTURES))})",
        )
    taken: dict[PurePosixPath, Labelled] = {}
    for entry in entries:
        other = taken.setdefault(entry.picture, entry)
        if other is not entry:
            place = files.folder / entry.labels
            raise DataError(place, f"labels {entry.picture}, as {other.labels} does", "keep one of the two label files")
    folders = {entry.picture.parent for entry in entries if entry.picture in there}
    nothing = PurePosixPath()
    alone = [Labelled(p, nothing, extra={"unlabelled": 1}) for p in candidates if p.parent in folders and p not in taken]
    categories = _categories(declared, entries, files.folder)
    parts = _by_split(entries, alone)
    splits = {name: _split(name, part, categories, files.folder) for name, part in parts.items()}
    known = {*taken, *(entry.picture for entry in alone), *(entry.labels for entry in entries), *used}
    return SourceData(categories, splits, describe_unlisted(picture for picture in candidates if picture not in known))


def as_categories(names: Iterable[str]) -> tuple[Category, ...]:
    """Classes of those names with ids from 1, each name once."""
    return tuple(Category(number, name) for number, name in enumerate(dict.fromkeys(names), 1))


def box_fields(x1: float, y1: float, x2: float, y2: float) -> Record:
    """COCO's box and area of two corners, sound or not."""
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": max(0.0, x2 - x1) * max(0.0, y2 - y1)}


def polygon_fields(polygons: list[list[float]]) -> Record:
    """COCO's polygons, area, and the box around them. An odd number of values is kept for the label checks."""
    values = [(polygon[0::2], polygon[1::2]) for polygon in polygons if polygon]
    xs, ys = [x for xs, _ in values for x in xs], [y for _, ys in values for y in ys]
    record: Record = {"segmentation": polygons}
    if not xs or not ys:
        return record
    left, top, right, bottom = _least(xs), _least(ys), -_least([-x for x in xs]), -_least([-y for y in ys])
    return record | {"bbox": [left, top, right - left, bottom - top], "area": sum(polygon_area(*one) for one in values)}


def polygon_area(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Of a simple polygon, by the shoelace formula."""
    points = list(zip(xs, ys, strict=False))
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2


def _least(values: Sequence[float]) -> float:
    """The smallest value; NaN when one of them is."""
    return math.nan if any(map(math.isnan, values)) else min(values)


def _categories(declared: Sequence[Category], entries: list[Labelled], folder: Path) -> tuple[Category, ...]:
    known = {category.name for category in declared}
    others = sorted({one["class"] for entry in entries for one in entry.objects if one.get("class")} - known)
    first = max((category.id for category in declared), default=0) + 1
    found = (*declared, *(Category(number, name) for number, name in enumerate(others, first)))
    if not found:
        raise DataError(folder, "its labels have no object with a class: there is no class to learn", "label some pictures")
    return found


def _by_split(entries: list[Labelled], alone: list[Labelled]) -> dict[str, list[Labelled]]:
    """By what the labels state, else by the folders' names, when each picture lies in one that names a split; else together."""
    stated = {entry.picture.parent: entry.split for entry in entries if entry.split}
    parts: dict[str, list[Labelled]] = {}
    for entry in (*entries, *alone):
        own = entry.split or (stated.get(entry.picture.parent) if entry.extra.get("unlabelled") else None)
        named = own or next(filter(None, (split_named(folder.name) for folder in entry.picture.parents)), None)
        parts.setdefault(named or "all", []).append(entry)
    return {"all": [*entries, *alone]} if "all" in parts else parts


def _split(name: str, entries: list[Labelled], categories: tuple[Category, ...], source: Path) -> Split:
    """The split's columns, by way of the records that COCO would have; image ids count from 1 in name order."""
    entries = sorted(entries, key=lambda entry: entry.picture.as_posix())
    ids = {category.name: category.id for category in categories}
    images: list[Record] = []
    annotations: list[Record] = []
    for number, entry in enumerate(entries, 1):
        image = {"id": number, "file_name": entry.picture.as_posix(), "width": entry.width, "height": entry.height}
        images.append(entry.extra | image)
        for one in entry.objects:
            record = {key: value for key, value in one.items() if key not in ("class", "own box")}
            identity = {"id": len(annotations) + 1, "image_id": number, "category_id": ids.get(one.get("class") or "")}
            annotations.append(record | identity)
    table = image_table(images, source)
    columns = annotation_table(annotations, table, source)
    columns = replace(columns, label_A=labels_of(columns.category_A, [category.id for category in categories]))
    return Split(name, table, columns, source, {}, [source / file_name for file_name in table.file_names])
