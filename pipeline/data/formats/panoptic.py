"""COCO panoptic as a source: a JSON file per split that lists each picture's segments, and PNG files of their numbers.

A pixel's number is red + 256 green + 65536 blue; 0 is void. Segments of things become objects with run lengths, crowds kept;
stuff lives in the maps alone. The PNG files are searched in a folder called as the JSON file is, else in one with `panoptic` in
its name, else everywhere. Source: the format description at cocodataset.org, section 4.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import ImageTable
from pipeline.data.config import PanopticDataset
from pipeline.data.dataset import Category, Split, labels_of, panoptic_categories, parse_categories
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.formats.json_file import Item, read_item
from pipeline.data.formats.pictures import find_pictures, stated_name
from pipeline.data.formats.pixel_masks import cropped, decode_numbers, mask_fields
from pipeline.data.formats.yolo_txt import read_frame
from pipeline.data.maps import IGNORED, THINGS, Segments, SplitMaps
from pipeline.data.sources import SourceData, SourceFiles, describe_unlisted, list_files
from pipeline.data.splits import split_named
from pipeline.errors import DataError
from pipeline.predict.map_files import LARGEST, encode_classes, encode_segments

_LISTS = ("images", "annotations", "categories")
_LARGEST_ID = 2**53


@dataclass(slots=True)
class _Classes:
    """Things and stuff of all label files."""

    things: tuple[Category, ...]
    stuff: tuple[Category, ...]

    @property
    def semantic(self) -> tuple[str, ...]:
        return (THINGS, *(category.name for category in self.stuff))


@dataclass(slots=True)
class _Found:
    """What the segments of a split's pictures come to."""

    objects: list[dict[str, Any]] = field(default_factory=list)
    segments: list[tuple[int, int, int, int, bool, int, list[int]]] = field(default_factory=list)


def read_panoptic(cfg: PanopticDataset, source: Path) -> SourceData:
    """All splits. DataError names the JSON file and field, or the PNG that cannot be read or is not of its picture's size."""
    files = list_files(source)
    chosen = _label_files(files, cfg.annotations)
    items = {name: read_item(files.folder / path) for name, path in chosen.items()}
    classes = _classes(items)
    png_of = {name: _maps_of(items[name], path, files) for name, path in chosen.items()}
    drawn = {png for pngs in png_of.values() for png in pngs.values()}
    folders = {PurePosixPath(png).parent for png in drawn}
    pictures = [path for path in files.pictures if path.as_posix() not in drawn and path.parent not in folders]
    splits = {
        name: _split(name, path, items[name], png_of[name], classes, files, pictures, only=len(chosen) == 1)
        for name, path in chosen.items()
    }
    if not any(split.path(row).is_file() for split in splits.values() for row in range(len(split.images))):
        listed = ", ".join(str(path) for path in chosen.values())
        raise DataError(
            files.folder, f"holds none of the pictures that {listed} lists", "put the pictures below the source folder"
        )
    used = {*drawn, *(str(path) for path in chosen.values())} | {n for split in splits.values() for n in split.images.file_names}
    others = [path for path in files.with_suffix(".json") + files.pictures if path.as_posix() not in used]
    return SourceData(classes.things, splits, describe_unlisted(others), stuff=classes.stuff, semantic=classes.semantic)


# -- label files --


def _label_files(files: SourceFiles, pattern: str | None) -> dict[str, PurePosixPath]:
    """One label file per split, by the split that its name, else its folder, speaks of; "all" where none does."""
    found = [path for path in files.with_suffix(".json") if pattern is None or path.match(pattern)]
    if len(found) > 1:
        found = [path for path in found if _lists_segments(files.folder / path)]
    if not found:
        raise DataError(files.folder, f"has no label file {pattern or '*.json'} with segments_info", "for COCO use dataset=coco")
    by_split: dict[str, PurePosixPath] = {}
    for path in found:
        name = split_named(path.stem) or split_named(path.parent.name) or "all"
        other = by_split.setdefault(name, path)
        if other != path:
            todo = f"choose by dataset.annotations='GLOB', such as '{other}'"
            raise DataError(files.folder, f"has several label files of one split: {other} and {path}", todo)
    if "all" in by_split and len(by_split) > 1:
        raise DataError(files.folder, f"names no split in {by_split['all']}", "choose by dataset.annotations='GLOB'")
    return by_split


def _lists_segments(path: Path) -> bool:
    try:
        data = path.read_bytes()
        top = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"), type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, ValueError, RecursionError, OSError):
        return True  # then it is read, and its error reported
    return top.keys() >= {*_LISTS} and b"segments_info" in bytes(top["annotations"])


def _classes(items: dict[str, Item]) -> _Classes:
    """Things and stuff of all label files. DataError when two give one id two meanings, or there are too many for a map."""
    joined: dict[int, tuple[Category, bool]] = {}
    for item in items.values():
        records = item.items("categories")
        numbered = [record.fields for record in records if isinstance(record.fields.get("id"), int)]
        is_thing = {fields["id"]: fields.get("isthing", 1) not in (0, False) for fields in numbered}
        for category in parse_categories([record.fields for record in records], item.place):
            here = (category, is_thing[category.id])
            other = joined.setdefault(category.id, here)
            if (other[0].name, other[1]) != (category.name, here[1]):
                wrong = (
                    f"id {category.id} is {category.name!r} here and {other[0].name!r} elsewhere, or a thing in one place only"
                )
                raise DataError(f"{item.place}.categories", wrong, "give each class an id of its own")
    found = [joined[number] for number in sorted(joined)]
    things = tuple(category for category, thing in found if thing)
    stuff = tuple(category for category, thing in found if not thing)
    place = next(iter(items.values())).place
    if not things:
        raise DataError(f"{place}.categories", "has no class of things (isthing 1): there is no object to learn")
    if len(stuff) >= IGNORED:
        raise DataError(f"{place}.categories", f"has {len(stuff)} classes of stuff; a map holds {IGNORED - 1}")
    return _Classes(things, stuff)


def _maps_of(item: Item, path: PurePosixPath, files: SourceFiles) -> dict[int, str]:
    """The PNG of each entry of `annotations`, by its place there, where the file is. DataError where none is."""
    stated = [
        stated_name(entry.text("file_name") or f"{entry.whole('image_id', _LARGEST_ID)}.png", f"{entry.place}.file_name")
        for entry in item.items("annotations")
    ]
    pngs = files.with_suffix(".png")
    tiers = (
        [png for png in pngs if path.stem in png.parent.parts],
        [png for png in pngs if "panoptic" in png.parent.as_posix().lower()],
        pngs,
    )
    candidates = next((tier for tier in tiers if tier), [])
    there = {png.as_posix() for png in candidates}
    found = find_pictures(stated, "all", path / path.stem, candidates, only=True)
    placed = {number: name for number, name in enumerate(found) if name in there}
    if stated and not placed:
        raise DataError(files.folder / path, f"names maps of segments of which none is there, such as {stated[0]}", "unpack them")
    return placed


# -- one split --


def _split(
    name: str,
    path: PurePosixPath,
    item: Item,
    png_of: dict[int, str],
    classes: _Classes,
    files: SourceFiles,
    pictures: list[PurePosixPath],
    only: bool,
) -> Split:
    """The split with file names relative to the source; each thing's segment names its object by `annotation_id`."""
    place = files.folder / path
    entries = _entries(item)
    images = _images(item, entries, place)
    found = find_pictures([stated_name(one, place) for one in images.file_names], name, path, pictures, only)
    twice = next((one for one, times in Counter(found).items() if times > 1), None)
    if twice is not None:
        raise DataError(place, f"images: file_name {twice!r} is listed several times", "a picture has one entry")
    images = replace(images, file_names=found)
    images = images.take(sorted(range(len(found)), key=found.__getitem__))
    missing = entries.keys() - set(images.ids_I.tolist())
    if missing:
        entry = entries[min(missing)][1]
        raise DataError(f"{entry.place}.image_id", "is of no listed image", "list the picture in images")
    collected, names = _Found(), [""] * len(images)
    stuff = {category.id for category in classes.stuff}
    for row, number in enumerate(images.ids_I.tolist()):
        if number in entries:
            position, entry = entries[number]
            names[row] = png_of.get(position, "")
            numbers_HW = _numbers(files.folder, names[row], images, row)
            _add_segments(entry, (row, number), numbers_HW, stuff, collected)
    columns = annotation_table(collected.objects, images, place)
    columns = replace(columns, label_A=labels_of(columns.category_A, [category.id for category in classes.things]))
    sources = [files.folder / one for one in images.file_names]
    header = {key: value for key, value in item.fields.items() if key not in _LISTS}
    return Split(name, images, columns, files.folder, header, sources, maps=_maps(names, collected, classes, files.folder))


def _entries(item: Item) -> dict[int, tuple[int, Item]]:
    """Place and content of each picture's entry in `annotations`, by the picture's id."""
    entries: dict[int, tuple[int, Item]] = {}
    for position, entry in enumerate(item.items("annotations")):
        image = entry.whole("image_id", _LARGEST_ID)
        if image is None:
            raise DataError(f"{entry.place}.image_id", "is missing", "say whose segments these are")
        if image in entries:
            raise DataError(f"{entry.place}.image_id", f"image {image} has two lists of segments", "join them")
        entries[image] = position, entry
    return entries


def _images(item: Item, entries: dict[int, tuple[int, Item]], place: Path) -> ImageTable:
    """The listed pictures; those without an entry are unlabelled. DataError for an id that is listed twice."""
    records = []
    for one in item.items("images"):
        identity = one.fields.get("id")
        labelled = isinstance(identity, int) and identity in entries
        records.append(one.fields | ({} if labelled else {"unlabelled": 1}))
    images = image_table(records, place)
    ids, counts = np.unique(images.ids_I, return_counts=True)
    if (counts > 1).any():
        raise DataError(place, f"images: id {ids[counts > 1][0]} is listed several times", "give each picture an id of its own")
    return images


def _numbers(folder: Path, name: str, images: ImageTable, row: int) -> NDArray[np.int64] | None:
    """Segment numbers of a picture; None where its map is not there. DataError for another size than the picture's."""
    if not name:
        return None
    numbers_HW = decode_numbers(_bytes(folder / name), folder / name)
    width, height = int(images.widths_I[row]), int(images.heights_I[row])
    if min(width, height) < 1:
        width, height, _ = read_frame(folder / images.file_names[row], upright=False)
    if min(width, height) > 0 and numbers_HW.shape != (height, width):
        wrong = f"is {numbers_HW.shape[1]} x {numbers_HW.shape[0]}, its picture {images.file_names[row]} {width} x {height}"
        raise DataError(folder / name, wrong, "draw the map at its picture's size")
    return numbers_HW


def _add_segments(
    entry: Item, image: tuple[int, int], numbers_HW: NDArray[np.int64] | None, stuff: Collection[int], found: _Found
) -> None:
    """The segments of the picture of (row, id). A class that nobody lists is taken for things: the label checks find it."""
    row, identity = image
    seen: set[int] = set()
    for one in entry.items("segments_info"):
        number, category = one.whole("id"), one.whole("category_id", _LARGEST_ID)
        if number is None or not 1 <= number <= LARGEST:
            raise one.wrong("id", f"must be a whole number from 1 to {LARGEST}")
        if category is None:
            raise one.wrong("category_id", "must be a whole number")
        if number in seen:
            raise one.wrong("id", "is of two segments of one picture")
        seen.add(number)
        stated, crowd = one.numbers("bbox"), one.flag("iscrowd")
        mask_HW = None if numbers_HW is None else numbers_HW == number
        record: dict[str, Any] = {"bbox": stated} if len(stated) == 4 else {}
        stated_area = one.number("area")
        if stated_area is not None and not abs(stated_area) < 2**53:
            raise one.wrong("area", "must be a number of pixels")
        area, box = int(stated_area or 0), _whole_box(stated)
        if numbers_HW is not None and mask_HW is not None and mask_HW.any():
            record = mask_fields(mask_HW, 0, 0, *numbers_HW.shape) | record
            left, top, own = cropped(mask_HW)
            area, box = int(own.sum()), [left, top, own.shape[1], own.shape[0]]
        label = 0
        if category not in stuff:
            label = len(found.objects) + 1
            record |= {} if stated_area is None else {"area": stated_area}
            found.objects.append({"id": label, "image_id": identity, "category_id": category, "iscrowd": int(crowd)} | record)
        found.segments.append((row, number, category, label, crowd, area, box))


def _whole_box(stated: list[float]) -> list[int]:
    if len(stated) != 4 or not all(abs(value) < 2**31 for value in stated):
        return [0, 0, 0, 0]
    return [round(value) for value in stated]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error


# -- maps --


def _maps(names: list[str], found: _Found, classes: _Classes, folder: Path) -> SplitMaps:
    place_of = {category.id: place for place, category in enumerate(classes.stuff, 1)}
    semantic: dict[str, dict[int, int]] = {name: {} for name in names}
    for row, number, category, *_ in found.segments:
        semantic[names[row]][number] = place_of.get(category, 0)
    return SplitMaps(
        names=names,
        semantic=folder,
        class_names=classes.semantic,
        panoptic=folder,
        segments=Segments.of(found.segments),
        categories=panoptic_categories(classes.things, classes.stuff),
        made=partial(_made, folder, semantic),
    )


def _made(folder: Path, semantic: dict[str, dict[int, int]], name: str) -> dict[str, bytes]:
    """Both maps of a picture: 0 in the semantic one is things, void and numbers that no segment has are ignored."""
    if not name:
        return {}
    numbers_HW = decode_numbers(_bytes(folder / name), folder / name)
    there, place_HW = np.unique(numbers_HW, return_inverse=True)
    classes = np.array([semantic[name].get(number, IGNORED) for number in there.tolist()], np.uint8)
    classes_HW = classes[place_HW].reshape(numbers_HW.shape)
    return {"semantic": encode_classes(classes_HW), "panoptic": encode_segments(numbers_HW)}
