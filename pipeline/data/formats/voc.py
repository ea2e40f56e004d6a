"""Pascal VOC as a source: one XML file per picture, with the devkit's folders or beside the pictures.

Boxes are (xmin, ymin, xmax, ymax) as written (see `VocDataset.one_based`). `difficult` becomes the extra fields `difficult: 1`
and `ignore: 1`, which evaluation treats like a crowd, as VOC's own does. Split lists: `ImageSets/Main`, else those of
`ImageSets/Segmentation`, else the folders' names. Masks and semantic maps: `voc_masks`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

from pipeline.data.config import VocDataset
from pipeline.data.dataset import Category, Split, labels_of
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.formats.voc_masks import VocMasks, add_masks, find_masks, is_segmentation
from pipeline.data.formats.xml_file import parse_xml
from pipeline.data.formats.yolo_txt import read_frame
from pipeline.data.sources import PICTURES, SourceData, SourceFiles, best_root, describe_unlisted, list_files
from pipeline.data.splits import split_named
from pipeline.errors import DataError, did_you_mean

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(slots=True)
class VocObject:
    """One <object>."""

    name: str
    corners: tuple[float, float, float, float] | None
    extra: dict[str, Any]


@dataclass(slots=True)
class VocLabels:
    """One label file."""

    stated: str
    """The picture's file name as the label file has it; empty if it does not say."""
    width: int = 0
    height: int = 0
    objects: list[VocObject] = field(default_factory=list)


@dataclass(slots=True)
class VocEntry:
    """A picture (there or missing) and its label file, both relative to the source."""

    picture: PurePosixPath
    xml: PurePosixPath | None
    """None for a picture that no label file belongs to."""
    labels: VocLabels


def read_voc(cfg: VocDataset, source: Path) -> SourceData:
    """All splits of a VOC source. DataError names the XML file with line or object, or the class that does not fit."""
    files = list_files(source)
    source, masks = files.folder, find_masks(files, cfg.classes)
    files = SourceFiles(source, [path for path in files.paths if not is_segmentation(path)])
    read = {path: read_labels(source / path) for path in files.with_suffix(".xml")}
    labels = {path: found for path, found in read.items() if found is not None}
    if not labels:
        raise DataError(source, "has no Pascal VOC label file (.xml with <annotation>)", "for COCO JSON use dataset=coco")
    if not files.pictures:
        raise DataError(
            source, "has no pictures", f"put them beside the .xml files or into JPEGImages/ ({', '.join(sorted(PICTURES))})"
        )
    entries = _paired(labels, files)
    splits, unlisted = _by_split(entries, files, cfg.sets)
    objects = {entry.picture: _objects(entry, cfg.one_based, masks) for part in splits.values() for entry in part}
    found = {name for entry in entries for name in _named(entry)} | {
        one["class"] for own in objects.values() for one in own if one["class"]
    }
    categories = _categories(cfg, entries, found, source)
    built = {name: _split(name, part, categories, objects, masks) for name, part in splits.items()}
    semantic = masks.names if any(split.maps for split in built.values()) else ()
    used = {masks.of(kind, picture) for kind in masks.files for picture in objects}
    unused = describe_unlisted(path for path in masks.paths() if path not in used)
    return SourceData(categories, built, unlisted + unused, semantic=semantic)


# -- one file --


def read_labels(path: Path) -> VocLabels | None:
    """The label file; None for XML of another kind. DataError names line and column, or object and field."""
    root = parse_xml(path)
    if root.tag != "annotation":
        return None
    width, height = (_real(root, f"size/{key}", path) or 0.0 for key in ("width", "height"))
    if not (abs(width) < 2**31 and abs(height) < 2**31):
        raise DataError(path, f"size: {width:g} x {height:g} is not a picture's size")
    objects = [_object(element, f"{path}: object {number}") for number, element in enumerate(root.findall("object"), 1)]
    stated = PurePosixPath((root.findtext("filename") or "").strip().replace("\\", "/")).name
    return VocLabels(stated, int(width), int(height), objects)


def _object(element: Element, place: str) -> VocObject:
    found = [_real(element, f"bndbox/{key}", place) for key in _CORNERS]
    x1, y1, x2, y2 = (value if value is not None else float("nan") for value in found)
    extra: dict[str, Any] = {key: 1 for key in ("truncated", "difficult", "occluded") if _real(element, key, place)}
    extra |= {"ignore": 1} if "difficult" in extra else {}
    pose = (element.findtext("pose") or "").strip()
    extra |= {"pose": pose} if pose and pose != "Unspecified" else {}
    parts = [_object(part, f"{place}: part {number}") for number, part in enumerate(element.findall("part"), 1)]
    extra |= {"parts": [{"name": part.name, "corners": part.corners} for part in parts]} if parts else {}
    absent = all(value is None for value in found)
    return VocObject((element.findtext("name") or "").strip(), None if absent else (x1, y1, x2, y2), extra)


def _real(element: Element, key: str, place: object) -> float | None:
    text = (element.findtext(key) or "").strip()
    try:
        return float(text) if text else None
    except ValueError as error:
        raise DataError(place, f"{key}: must be a number, is {text[:40]!r}") from error


# -- pictures and splits --


def _paired(labels: dict[PurePosixPath, VocLabels], files: SourceFiles) -> list[VocEntry]:
    """Every label file with its picture, and every other picture of those folders without a label file."""
    entries: dict[PurePosixPath, VocEntry] = {}
    pictures_in: dict[PurePosixPath, list[PurePosixPath]] = {}
    for picture in files.pictures:
        pictures_in.setdefault(picture.parent, []).append(picture)
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in labels:
        folders.setdefault(path.parent, []).append(path)
    roots = {folder: _picture_folder(folder, {p: labels[p] for p in paths}, files.pictures) for folder, paths in folders.items()}
    for folder, paths in folders.items():
        by_stem: dict[str, list[PurePosixPath]] = {}
        for picture in pictures_in.get(roots[folder], ()):
            by_stem.setdefault(picture.stem, []).append(picture)
        own_first = sorted(paths, key=lambda path: path.stem not in by_stem)  # then a wrong <filename> takes nobody's picture
        for path in own_first:
            picture = _picture_of(path, labels[path].stated, roots[folder], by_stem, entries)
            if picture in entries:
                todo = "keep one of the two label files"
                raise DataError(files.folder / path, f"labels {picture.name}, as {entries[picture].xml} does", todo)
            entries[picture] = VocEntry(picture, path, labels[path])
    for root in roots.values():
        for picture in pictures_in.get(root, ()):
            entries.setdefault(picture, VocEntry(picture, None, VocLabels("")))
    return list(entries.values())


def _picture_of(
    xml: PurePosixPath,
    stated: str,
    root: PurePosixPath,
    by_stem: dict[str, list[PurePosixPath]],
    taken: dict[PurePosixPath, VocEntry],
) -> PurePosixPath:
    """The picture named like the label file, else the one that it states if nobody has it, else where a missing one would be."""
    if xml.stem in by_stem:
        return min(by_stem[xml.stem], key=lambda picture: (picture.name != stated, picture))
    free = [picture for picture in by_stem.get(PurePosixPath(stated).stem, ()) if picture not in taken]
    suffix = PurePosixPath(stated).suffix
    expected = root / f"{xml.stem}{suffix if suffix.lower() in PICTURES else '.jpg'}"
    return min(free, key=lambda picture: (picture.name != stated, picture), default=expected)


def _picture_folder(
    folder: PurePosixPath, labels: dict[PurePosixPath, VocLabels], pictures: list[PurePosixPath]
) -> PurePosixPath:
    """The folder that holds most of the pictures: by the label files' own names, and by the names that they state."""
    stems, stated = {path.stem for path in labels}, {found.stated for found in labels.values()} - {""}
    own = {picture.name for picture in pictures if picture.stem in stems}
    words = ("jpegimages", "images")
    by_own, fitting = best_root(own, pictures, folder.as_posix(), words)
    by_stated, fitting_stated = best_root(stated, pictures, folder.as_posix(), words)
    if not fitting and not fitting_stated:
        return folder
    return PurePosixPath(by_stated if fitting_stated >= fitting else by_own)


def _by_split(entries: list[VocEntry], files: SourceFiles, sets: str | None) -> tuple[dict[str, list[VocEntry]], tuple[str, ...]]:
    """Entries per split, and what no split lists."""
    lists = _split_lists(files, sets or "Main") or ([] if sets else _split_lists(files, "Segmentation"))
    if sets and not lists:
        raise DataError(files.folder, f"has no split list in ImageSets/{sets}", "leave dataset.sets at null")
    if lists:
        return _listed(entries, lists, files)
    folders = {entry.picture: split_named(entry.picture.parent.name) for entry in entries}
    if None in folders.values():
        return {"all": entries}, _others(entries, files)
    parts: dict[str, list[VocEntry]] = {}
    for entry in entries:
        parts.setdefault(folders[entry.picture] or "all", []).append(entry)
    return parts, _others(entries, files)


def _listed_name(line: str) -> str:
    """A line's picture: all of it (names may hold blanks), less the -1, 0 or 1 that per-class lists put behind it."""
    return re.sub(r"\s+-?[01]$", "", line.strip())


def _split_lists(files: SourceFiles, sets: str) -> list[tuple[PurePosixPath, str, list[str]]]:
    """(devkit folder, split, stems) of every list in an ImageSets/<sets>; per-class lists (cat_train.txt) are not split lists."""
    lists = []
    for path in files.with_suffix(".txt"):
        name = split_named(path.stem)
        if path.parent.name == sets and path.parent.parent.name == "ImageSets" and name and "_" not in path.stem:
            text = (files.folder / path).read_text(errors="replace")
            names = [PurePosixPath(_listed_name(line)) for line in text.splitlines() if line.strip()]
            stems = [name.stem if name.suffix.lower() in PICTURES else name.name for name in names]
            lists.append((path.parent.parent.parent, name, stems))
    return lists


def _listed(
    entries: list[VocEntry], lists: list[tuple[PurePosixPath, str, list[str]]], files: SourceFiles
) -> tuple[dict[str, list[VocEntry]], tuple[str, ...]]:
    parts: dict[str, dict[PurePosixPath, VocEntry]] = {}
    used: list[VocEntry] = []
    for devkit, name, stems in lists:
        known = {e.picture.stem: e for e in entries if devkit in e.picture.parents}
        known |= {e.xml.stem: e for e in entries if e.xml and devkit in e.xml.parents}
        for stem in stems:
            entry = known.get(stem) or VocEntry(devkit / "JPEGImages" / f"{stem}.jpg", None, VocLabels(""))
            parts.setdefault(name, {})[entry.picture] = entry
            used.append(entry)
    return {name: list(part.values()) for name, part in parts.items()}, _others(used, files)


def _others(entries: Iterable[VocEntry], files: SourceFiles) -> tuple[str, ...]:
    known = {path for entry in entries for path in (entry.picture, entry.xml)}
    return describe_unlisted(path for path in files.pictures + files.with_suffix(".xml") if path not in known)


# -- columns --


def _named(entry: VocEntry) -> set[str]:
    return {thing.name for thing in entry.labels.objects if thing.name}


def _categories(cfg: VocDataset, entries: list[VocEntry], found: set[str], source: Path) -> tuple[Category, ...]:
    """The configured classes, else the names found, sorted. DataError for an object of a class that is not configured."""
    names = cfg.classes or tuple(sorted(found))
    if not names:
        raise DataError(source, "its label files have no named object: there is no class to learn", "label some pictures")
    for entry in entries if cfg.classes else ():
        for number, thing in enumerate(entry.labels.objects, 1):
            if thing.name and thing.name not in names:
                place = f"{source / (entry.xml or entry.picture)}: object {number}"
                raise DataError(place, f"class {thing.name!r} is not in dataset.classes", did_you_mean(thing.name, names))
    return tuple(Category(number, name) for number, name in enumerate(names, 1))


def _objects(entry: VocEntry, one_based: bool, masks: VocMasks) -> list[dict[str, Any]]:
    """The picture's objects as COCO's records, `class` for a category id."""
    objects = [{"class": one.name} | _box_fields(one.corners, one_based) | one.extra for one in entry.labels.objects]
    if masks.files:
        size = entry.labels.width, entry.labels.height
        if min(size) < 1:
            size = read_frame(masks.folder / entry.picture, upright=False)[:2]
        add_masks(objects, masks, entry.picture, size)
    return objects


def _split(
    name: str,
    entries: list[VocEntry],
    categories: tuple[Category, ...],
    objects: dict[PurePosixPath, list[dict[str, Any]]],
    masks: VocMasks,
) -> Split:
    """The split's columns, by way of the records that COCO would have; image ids count from 1 in name order."""
    entries = sorted(entries, key=lambda entry: entry.picture.as_posix())
    ids = {category.name: category.id for category in categories}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, 1):
        drawn = any(entry.picture.stem in files for files in masks.files.values())
        unlabelled = {} if entry.xml or drawn else {"unlabelled": 1}
        image = {"id": number, "file_name": entry.picture.as_posix(), "width": entry.labels.width, "height": entry.labels.height}
        images.append(image | unlabelled)
        for one in objects[entry.picture]:
            record = {"id": len(annotations) + 1, "image_id": number, "category_id": ids.get(one["class"])}
            annotations.append(record | {key: value for key, value in one.items() if key != "class"})
    source = masks.folder
    table = image_table(images, source)
    columns = annotation_table(annotations, table, source)
    columns = replace(columns, label_A=labels_of(columns.category_A, [category.id for category in categories]))
    sources = [source / file_name for file_name in table.file_names]
    return Split(name, table, columns, source, {}, sources, maps=masks.maps(table.file_names))


def _box_fields(corners: tuple[float, float, float, float] | None, one_based: bool) -> dict[str, Any]:
    if corners is None:
        return {}
    x1, y1, x2, y2 = corners
    if one_based:
        x1, y1 = x1 - 1, y1 - 1
    return {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": max(0.0, x2 - x1) * max(0.0, y2 - y1)}
