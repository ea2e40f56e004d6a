"""Cityscapes polygons: gtFine/<split>/<city>/<frame>_gtFine_polygons.json; pictures are leftImg8bit/.../<frame>_leftImg8bit.png.

Only labels of things become objects, as in Cityscapes' own instance task; other polygons are counted as left out.
A label with `group` behind (`cargroup`) is a crowd. Source: github.com/mcordts/cityscapesScripts, helpers/labels.py.
"""

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from pipeline.data.config import CityscapesDataset
from pipeline.data.formats.json_file import Item, read_item
from pipeline.data.formats.labelled import Labelled, Record, as_categories, assemble, polygon_fields
from pipeline.data.formats.pictures import find_pictures
from pipeline.data.sources import SourceData, SourceFiles, list_files
from pipeline.data.splits import split_named
from pipeline.errors import DataError

THINGS = ("person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle")
"""Labels with instances, in the order of labels.py."""


def read_cityscapes(cfg: CityscapesDataset, source: Path) -> SourceData:
    """All splits. DataError names the JSON file and the object, or that no polygon is of a thing."""
    files = list_files(source)
    read = {path: read_item(files.folder / path) for path in files.with_suffix(".json")}
    labels = {path: item for path, item in read.items() if {"imgHeight", "imgWidth", "objects"} <= item.fields.keys()}
    if not labels:
        raise DataError(files.folder, "has no Cityscapes file (.json with imgHeight, imgWidth and objects)")
    maps = re.compile(r"_(color|instanceIds|labelIds|labelTrainIds|instanceTrainIds)$")
    pictures = [path for path in files.pictures if not maps.search(path.stem)]
    left_out: Counter[str] = Counter()
    entries = [
        Labelled(
            picture,
            path,
            _objects(labels[path], left_out),
            max(0, labels[path].whole("imgWidth") or 0),
            max(0, labels[path].whole("imgHeight") or 0),
            next(filter(None, (split_named(one.name) for one in path.parents)), None),
        )
        for path, picture in _pictures(files, list(labels), pictures).items()
    ]
    found = {one["class"] for entry in entries for one in entry.objects}
    data = assemble(files, entries, as_categories(name for name in THINGS if name in found), pictures)
    data.unlisted += tuple(f"polygons of {name!r}, no thing: {number}" for name, number in sorted(left_out.items()))
    return data


def _pictures(
    files: SourceFiles, paths: list[PurePosixPath], pictures: list[PurePosixPath]
) -> dict[PurePosixPath, PurePosixPath]:
    """Each label file's picture: the one whose stem begins as its own does."""
    frames: dict[str, str] = {}
    for picture in pictures:
        frames.setdefault(re.sub(r"_leftImg8bit$", "", picture.stem), picture.name)
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(path)
    found: dict[PurePosixPath, str] = {}
    for members in folders.values():
        stems = [re.sub(r"_gt(Fine|Coarse)_polygons$", "", path.stem) for path in members]
        stated = [frames.get(stem, f"{stem}_leftImg8bit.png") for stem in stems]
        found |= dict(zip(members, find_pictures(stated, "all", members[0], pictures, only=len(folders) == 1), strict=True))
    return {path: PurePosixPath(picture) for path, picture in found.items()}


def _objects(item: Item, left_out: Counter[str]) -> list[Record]:
    records: list[Record] = []
    for one in item.items("objects"):
        label = one.text("label")
        name = label.removesuffix("group")
        if one.flag("deleted"):
            continue
        if name not in THINGS:
            left_out[label] += 1
            continue
        records.append({"class": name, "iscrowd": int(name != label)} | polygon_fields([one.numbers("polygon")]))
    return records
