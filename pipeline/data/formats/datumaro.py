"""Datumaro JSON: annotations/<subset>.json beside images/<subset>/. Reader and writer.

Annotations of one picture with the same `group` (not 0) and label are one object: its box, polygons, mask and points. A box's
`rotation` attribute is CVAT's, degrees clockwise about its centre.
Source: open-edge-platform.github.io/datumaro, "Data formats > Datumaro".
"""

import math
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from pipeline.data.config import DatumaroDataset
from pipeline.data.dataset import Category
from pipeline.data.formats.coco_json import COLUMNS, around
from pipeline.data.formats.json_file import Item, read_item
from pipeline.data.formats.labelled import Labelled, Record, assemble, polygon_fields
from pipeline.data.formats.pictures import find_pictures, stated_name, with_suffixes
from pipeline.data.formats.things import Export, Picture, Thing
from pipeline.data.sources import SourceData, SourceFiles, list_files
from pipeline.data.splits import split_named
from pipeline.errors import DataError

_PARTS = {"bbox", "polygon", "mask", "points"}


def read_datumaro(cfg: DatumaroDataset, source: Path) -> SourceData:
    """All subsets of a Datumaro source. DataError names the JSON file, item and annotation."""
    files = list_files(source)
    found = {path: read_item(files.folder / path) for path in files.with_suffix(".json")}
    found = {path: item for path, item in found.items() if {"items", "categories"} <= item.fields.keys()}
    if not found:
        raise DataError(files.folder, "has no Datumaro file (.json with items and categories)", "for COCO JSON use dataset=coco")
    names: dict[str, Category] = {}
    entries: list[Labelled] = []
    for path, top in found.items():
        own = _categories(top)
        for category in own:
            names.setdefault(category.name, Category(len(names) + 1, category.name, category.supercategory, category.keypoints))
        entries += _entries(files, path, top, [category.name for category in own], only=len(found) == 1)
    return assemble(files, entries, tuple(names.values()), used=found)


def _categories(top: Item) -> list[Category]:
    """The labels in their order, each with the names of its points."""
    categories = top.inner("categories")
    points: dict[int, tuple[str, ...]] = {}
    for one in categories.inner("points").items("items"):
        points[one.whole("label_id") or 0] = tuple(map(str, one.list_of("labels")))
    labels = categories.inner("label").items("labels")
    return [Category(k + 1, one.text("name"), one.text("parent"), points.get(k, ())) for k, one in enumerate(labels)]


def _entries(files: SourceFiles, path: PurePosixPath, top: Item, classes: list[str], only: bool) -> list[Labelled]:
    split = split_named(path.stem)
    entries, stated = [], []
    for item in top.items("items"):
        image = item.inner("image" if item.fields.get("image") is not None else "media")
        name = image.text("path") or item.text("id")
        if not name:
            raise DataError(item.place, "has neither image.path nor id", "repair the file")
        stated.append(stated_name(name, item.place))
        size = image.numbers("size")
        sound = len(size) == 2 and all(0 <= side < 2**31 and side.is_integer() for side in map(float, size))
        height, width = (int(side) for side in size) if sound else (0, 0)
        extra = {"attributes": item.fields["attr"]} if isinstance(item.fields.get("attr"), dict) and item.fields["attr"] else {}
        entry = Labelled(PurePosixPath(name), path, _objects(item, classes), width, height, split, extra)
        entries.append(entry)
    pictures = find_pictures(with_suffixes(stated, files.pictures), split or "all", path, files.pictures, only)
    for entry, picture in zip(entries, pictures, strict=True):
        entry.picture = PurePosixPath(picture)
    return entries


def _objects(item: Item, classes: list[str]) -> list[Record]:
    """Records of the item's annotations; those of one group are one, unless it would have two boxes or masks."""
    records: list[Record] = []
    groups: dict[tuple[int, str], Record] = {}
    for one in item.items("annotations"):
        label, group, kind = one.whole("label_id"), one.whole("group", 2**63 - 1) or 0, one.text("type")
        name = classes[label] if label is not None and 0 <= label < len(classes) else ""
        record = {"class": name} | ({"label_id": label} if label is not None and not name else {}) | _marks(one)
        record |= _region(one, kind)
        known = groups.get((group, name)) if group and kind in _PARTS else None
        if known is not None and _joins(known, record, kind):
            continue
        if group and kind in _PARTS:
            groups[group, name] = record
        records.append(record)
    return records


def _joins(known: Record, record: Record, kind: str) -> bool:
    """Put the part into the object `known`; False when that has one already."""
    if kind == "bbox" and ("own box" in known or ("segmentation" not in known and "bbox" in known)):
        return False
    if kind == "polygon" and isinstance(known.get("segmentation"), list):
        joined = polygon_fields([*known["segmentation"], *record["segmentation"]])
        known |= {key: value for key, value in joined.items() if key != "bbox" or "own box" not in known}
        return True
    if kind in ("polygon", "mask") and "segmentation" in known:
        return False
    if kind == "points" and "keypoints" in known:
        return False
    kept = {key: known[key] for key in ("bbox", "rbox") if key in known and kind != "bbox" and "own box" in known}
    known |= record | kept
    return True


def _region(one: Item, kind: str) -> Record:
    if kind == "bbox":
        return _box(one)
    if kind == "polygon":
        return polygon_fields([one.numbers("points")])
    if kind == "mask":
        rle = one.inner("rle").fields
        return {"segmentation": rle} if rle else {}
    if kind == "points":
        flat, seen = one.numbers("points"), one.numbers("visibility")
        pairs = list(zip(flat[0::2], flat[1::2], strict=False))
        marks = seen if len(seen) == len(pairs) else [2.0] * len(pairs)
        return {"keypoints": [value for (x, y), mark in zip(pairs, marks, strict=True) for value in (x, y, mark)]}
    known = {"id", "type", "attributes", "group", "label_id", "z_order"}
    rest = {key: value for key, value in one.fields.items() if key not in known}
    return {"type": kind, "datumaro": rest}


def _box(one: Item) -> Record:
    box = one.numbers("bbox")
    if len(box) != 4:
        return {"bbox": box} if box else {}
    x, y, w, h = box
    record: Record = {"bbox": box, "area": max(0.0, w) * max(0.0, h), "own box": True}
    rotation = one.inner("attributes").fields.get("rotation")
    if isinstance(rotation, int | float) and rotation and math.isfinite(rotation):
        turned = [x + w / 2, y + h / 2, w, h, -math.remainder(rotation, 360)]
        record |= {"rbox": turned, "bbox": around(turned)}
    return record


def _marks(one: Item) -> Record:
    attributes = one.inner("attributes")
    record: Record = {"iscrowd": 1} if attributes.flag("is_crowd") else {}
    skipped = {*COLUMNS, "class", "is_crowd", "rotation", "own box"}
    return record | {name: value for name, value in attributes.fields.items() if name not in skipped and value not in (None, "")}


# -- writing --


def write_datumaro(data: Export, out: Path) -> None:
    """A file and a folder of pictures per subset; what is not split is the subset `default`, as Datumaro calls it."""
    (out / "annotations").mkdir()
    labels = [{"name": one.name, "parent": one.supercategory, "attributes": []} for one in data.categories]
    points = [
        {"label_id": k, "labels": list(one.keypoints), "joints": [list(pair) for pair in one.skeleton]}
        for k, one in enumerate(data.categories)
        if one.keypoints
    ]
    categories: dict[str, Any] = {"label": {"labels": labels, "label_groups": [], "attributes": []}}
    categories |= {"points": {"items": points}} if points else {}
    for split, pictures in data.splits.items():
        subset = "default" if split == "all" else split
        for picture in pictures:
            picture.copy_to(out / "images" / subset / picture.name)
        content = {
            "dm_format_version": "1.0",
            "media_type": 2,
            "infos": {},
            "categories": categories,
            "items": [_item(picture) for picture in pictures if picture.labelled],
        }
        (out / "annotations" / f"{subset}.json").write_bytes(orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY))


def _item(picture: Picture) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for group, thing in enumerate(picture.things, 1):
        annotations += _annotations(thing, group, len(annotations))
    size = {"size": [picture.height, picture.width]} if picture.width and picture.height else {}
    name = PurePosixPath(picture.name)
    return {"id": str(name.with_suffix("")), "annotations": annotations, "attr": {}, "image": {"path": picture.name} | size}


def _annotations(thing: Thing, group: int, first: int) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    attributes = {name: value for name, value in thing.extra.items() if isinstance(value, str | int | float)}
    attributes |= {"is_crowd": True} if thing.crowd else {}
    if thing.rotated is not None:
        x, y, w, h, degrees = thing.rotated
        parts.append({"type": "bbox", "bbox": [x - w / 2, y - h / 2, w, h]})
        attributes |= {"rotation": -degrees % 360}
    elif thing.box is not None:
        x1, y1, x2, y2 = thing.box
        parts.append({"type": "bbox", "bbox": [x1, y1, x2 - x1, y2 - y1]})
    parts += [{"type": "polygon", "points": polygon.reshape(-1).tolist()} for polygon in thing.polygons]
    parts += [{"type": "mask", "rle": thing.rle}] if thing.rle is not None else []
    if thing.keypoints:
        flat = [value for x, y, _ in thing.keypoints for value in (x, y)]
        parts.append({"type": "points", "points": flat, "visibility": [mark for _, _, mark in thing.keypoints]})
    common = {"attributes": attributes, "group": group if len(parts) > 1 else 0, "label_id": thing.label, "z_order": 0}
    return [{"id": first + k} | part | common for k, part in enumerate(parts)]
