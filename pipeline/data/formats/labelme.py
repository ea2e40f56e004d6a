"""labelme JSON: one file per picture, beside it or not. Reader; `labelme_write` is the way back.

Shapes are polygons, rectangles, circles, masks (a PNG of the object's region), lines and points. Polygons of one `group_id` and
label are the parts of one object, as in labelme's own examples/instance_segmentation/labelme2coco.py; points in the group of one
object are its keypoints, their labels the names. `imagePath` is often another machine's, with backslashes: its last part counts,
after a picture named like the JSON file. A picture inside the JSON (`imageData`) is not unpacked.
"""

import base64
import math
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from pipeline.data.config import LabelmeDataset
from pipeline.data.dataset import Category
from pipeline.data.formats.coco_json import COLUMNS
from pipeline.data.formats.json_file import Item, read_item
from pipeline.data.formats.labelled import Labelled, Record, assemble, box_fields, polygon_fields
from pipeline.data.formats.pictures import find_pictures, stated_name
from pipeline.data.formats.pixel_masks import decode_numbers, mask_fields
from pipeline.data.sources import SourceData, list_files
from pipeline.data.splits import split_named
from pipeline.errors import DataError

CIRCLE = 64
"""Points of the polygon that a circle becomes."""
_NAMED = "named points"
Names = dict[str, dict[str, int]]
"""By class, the places of its keypoints' names."""


def read_labelme(cfg: LabelmeDataset, source: Path) -> SourceData:
    """All splits of a labelme source. DataError names the JSON file and the shape."""
    files = list_files(source)
    folders: dict[PurePosixPath, list[tuple[PurePosixPath, Item]]] = {}
    for path in files.with_suffix(".json"):
        item = read_item(files.folder / path)
        if "shapes" in item.fields:
            folders.setdefault(path.parent, []).append((path, item))
    if not folders:
        raise DataError(files.folder, "has no labelme file (.json with shapes)", "for COCO JSON use dataset=coco")
    keypoints: Names = {}
    entries = []
    own = {picture.stem: picture.name for picture in reversed(files.pictures)}
    for folder, members in folders.items():
        stated = [own.get(path.stem) or _stated(item, path) for path, item in members]
        found = find_pictures(stated, split_named(folder.name) or "all", members[0][0], files.pictures, only=len(folders) == 1)
        for (path, item), picture in zip(members, found, strict=True):
            width, height = (max(0, item.whole(key) or 0) for key in ("imageWidth", "imageHeight"))
            things = _objects(item, width, height, keypoints)
            extra = {"flags": flags} if (flags := _flags(item)) else {}
            entries.append(Labelled(PurePosixPath(picture), path, things, width, height, extra=extra))
    for entry in entries:
        for one in entry.objects:
            _in_order(one, keypoints)
    return assemble(files, entries, _with_keypoints(entries, keypoints))


def _stated(item: Item, path: PurePosixPath) -> str:
    name = item.text("imagePath")
    return PurePosixPath(stated_name(name, f"{item.place}.imagePath")).name if name else f"{path.stem}.jpg"


def _objects(item: Item, width: int, height: int, keypoints: Names) -> list[Record]:
    """Records of all shapes; `keypoints` collects the names of each class's."""
    records: list[Record] = []
    parts: dict[tuple[str, str], tuple[Record, list[list[float]]]] = {}
    groups: dict[str, list[Record]] = {}
    points: list[tuple[str, Item]] = []
    for shape in item.items("shapes"):
        group, label = shape.text("group_id"), shape.text("label")
        kind = shape.text("shape_type") or "polygon"
        if kind == "point" and group:
            points.append((group, shape))
            continue
        record, flat = _region(shape, kind, width, height)
        if kind == "polygon" and group and (group, label) in parts:
            earlier, polygons = parts[group, label]
            polygons.append(flat)
            earlier |= polygon_fields(polygons)
            continue
        record |= {"class": label} | _marks(shape)
        if kind == "polygon" and group:
            parts[group, label] = record, [flat]
        if group:
            groups.setdefault(group, []).append(record)
        records.append(record)
    for group, shape in points:
        records += _keypoint(shape, groups.get(group, []), keypoints)
    return records


def _keypoint(shape: Item, owners: list[Record], keypoints: Names) -> list[Record]:
    """Give the point to the one object of its group; else it is an object of its own, without a box."""
    flat, label = shape.numbers("points"), shape.text("label")
    if len(owners) != 1 or len(flat) != 2 or not owners[0]["class"]:
        return [{"class": label, "points": flat} | _marks(shape)]
    names = keypoints.setdefault(owners[0]["class"], {})
    names.setdefault(label, len(names))
    owners[0].setdefault(_NAMED, {})[label] = (*flat, 1 if shape.inner("flags").flag("hidden") else 2)
    return []


def _region(shape: Item, kind: str, width: int, height: int) -> tuple[Record, list[float]]:
    """The shape's fields, and its points laid flat."""
    flat = shape.numbers("points")
    if kind == "polygon":
        return polygon_fields([flat]), flat
    if kind == "mask" and len(flat) == 4 and all(map(math.isfinite, flat)):
        mask = decode_numbers(_base64(shape), f"{shape.place}.mask") > 0
        left, top = (int(max(-(2**31), min(2**31, value))) for value in flat[:2])
        return mask_fields(mask, left, top, height, width), flat
    if kind == "circle" and len(flat) == 4:
        return polygon_fields([_circle(*flat)]) | {"shape_type": kind}, flat
    xs, ys = flat[0::2], flat[1::2]
    if not ys:
        return {"points": flat} if flat else {}, flat
    box = box_fields(min(xs), min(ys), max(xs), max(ys))
    return (box if kind == "rectangle" else box | {"shape_type": kind, "points": flat}), flat


def _circle(x: float, y: float, edge_x: float, edge_y: float) -> list[float]:
    radius = math.hypot(edge_x - x, edge_y - y)
    angles = (2 * math.pi * number / CIRCLE for number in range(CIRCLE))
    return [value for angle in angles for value in (x + radius * math.cos(angle), y + radius * math.sin(angle))]


def _base64(shape: Item) -> bytes:
    try:
        return base64.b64decode(shape.text("mask"), validate=False)
    except ValueError as error:
        raise DataError(f"{shape.place}.mask", f"must be base64 ({error})", "repair the file") from error


def _marks(shape: Item) -> Record:
    """Flags that are set, and the description, as extra fields; `iscrowd` as COCO's."""
    flags = {name: 1 for name in _flags(shape) if name not in COLUMNS and name != "class"}
    record: Record = flags | ({"iscrowd": 1} if shape.inner("flags").flag("iscrowd") else {})
    return record | ({"description": text} if (text := shape.text("description")) else {})


def _flags(item: Item) -> list[str]:
    flags = item.inner("flags")
    return [name for name in flags.fields if flags.flag(name)]


def _in_order(one: Record, keypoints: Names) -> None:
    named = one.pop(_NAMED, None)
    if named:
        points = [named.get(name, (0.0, 0.0, 0)) for name in keypoints[one["class"]]]
        one["keypoints"] = [value for point in points for value in point]


def _with_keypoints(entries: Iterable[Labelled], keypoints: Names) -> list[Category]:
    names = sorted({one["class"] for entry in entries for one in entry.objects if one.get("class")})
    return [Category(number, name, keypoints=tuple(keypoints.get(name, ()))) for number, name in enumerate(names, 1)]
