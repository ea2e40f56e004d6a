"""Supervisely projects: meta.json with the classes, and <dataset>/ann/<picture>.json for <dataset>/img/<picture>.

Rectangles, polygons (holes, `interior`, are kept as an extra field) and bitmaps (a zlib-packed PNG at `origin`); figures of other
kinds keep the box around their points. Source: docs.supervisely.com, "Annotation JSON format".
"""

import base64
import zlib
from pathlib import Path, PurePosixPath

from pipeline.data.config import SuperviselyDataset
from pipeline.data.formats.json_file import Item, as_numbers, read_item
from pipeline.data.formats.labelled import Labelled, Record, as_categories, assemble, box_fields, polygon_fields
from pipeline.data.formats.pictures import find_pictures, stated_name
from pipeline.data.formats.pixel_masks import LARGEST, decode_numbers, mask_fields
from pipeline.data.sources import PICTURES, SourceData, list_files
from pipeline.data.splits import split_named
from pipeline.errors import DataError


def read_supervisely(cfg: SuperviselyDataset, source: Path) -> SourceData:
    """All datasets of a project. DataError names the JSON file and the object."""
    files = list_files(source)
    read = {path: read_item(files.folder / path) for path in files.with_suffix(".json")}
    labels = {path: item for path, item in read.items() if {"size", "objects"} <= item.fields.keys()}
    if not labels:
        raise DataError(files.folder, "has no Supervisely file (.json with size and objects)", "for COCO JSON use dataset=coco")
    classes = [one.text("title") for item in read.values() if item.place.endswith("meta.json") for one in item.items("classes")]
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in labels:
        folders.setdefault(path.parent, []).append(path)
    entries = []
    for folder, paths in folders.items():
        named = next(filter(None, (split_named(one.name) for one in (folder, *folder.parents))), None)
        stated = [stated_name(_picture(path), files.folder / path) for path in paths]
        found = find_pictures(stated, named or "all", paths[0], files.pictures, only=len(folders) == 1)
        for path, picture in zip(paths, found, strict=True):
            size = labels[path].inner("size")
            width, height = (max(0, size.whole(key) or 0) for key in ("width", "height"))
            objects = [_object(one, width, height) for one in labels[path].items("objects")]
            entries.append(Labelled(PurePosixPath(picture), path, objects, width, height, named))
    used = [path for path in read if path.name == "meta.json"]
    return assemble(files, entries, as_categories(name for name in classes if name), used=used)


def _picture(path: PurePosixPath) -> str:
    """`a.jpg.json` is of a.jpg; projects of old have `a.json`."""
    return path.stem if PurePosixPath(path.stem).suffix.lower() in PICTURES else f"{path.stem}.jpg"


def _object(one: Item, width: int, height: int) -> Record:
    tags = [tag.text("name") for tag in one.items("tags") if tag.text("name")]
    record: Record = {"class": one.text("classTitle")} | ({"tags": tags} if tags else {})
    kind = one.text("geometryType")
    if kind == "bitmap" or (not kind and one.fields.get("bitmap")):
        return record | _bitmap(one.inner("bitmap"), width, height)
    points = one.inner("points")
    flat = points.numbers("exterior")
    xs, ys = flat[0::2], flat[1::2]
    if kind == "polygon":
        holes = [as_numbers(hole, points.place) for hole in points.list_of("interior") if isinstance(hole, list)]
        return record | polygon_fields([flat]) | ({"interior": holes} if any(holes) else {})
    if not ys:
        return record | {"geometryType": kind, "points": flat}
    box = box_fields(min(xs), min(ys), max(xs), max(ys))
    return record | box | ({} if kind == "rectangle" else {"geometryType": kind, "points": flat})


def _bitmap(bitmap: Item, width: int, height: int) -> Record:
    place = f"{bitmap.place}.data"
    try:
        unpack = zlib.decompressobj()
        data = unpack.decompress(base64.b64decode(bitmap.text("data")), LARGEST)
    except (ValueError, zlib.error) as error:
        raise DataError(place, f"must be a packed PNG in base64 ({error})", "draw the mask anew") from error
    origin = bitmap.numbers("origin")
    if len(origin) != 2 or not all(abs(value) < 2**31 for value in origin):
        raise DataError(f"{bitmap.place}.origin", "must be two numbers of pixels", "repair the file")
    return mask_fields(decode_numbers(data, place) > 0, int(origin[0]), int(origin[1]), height, width)
