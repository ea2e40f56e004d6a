"""YOLO as a source: a data.yaml with class names and splits, pictures, and one label text per picture.

Splits are folders, lists of folders, or .txt lists of pictures, found below the source also where the paths are another
machine's. Labels: `images/` in a picture's path read as `labels/`, else beside the picture, else by evidence (`best_root`).
Darknet's `obj.data` with `obj.names` is read as well. Without splits in the file the folders' names decide, as for VOC.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from pipeline.data.config import YoloDataset
from pipeline.data.dataset import Category, Split, labels_of
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.formats.yolo_txt import LineKind, YoloObject, read_frame, read_labels, record
from pipeline.data.sources import PICTURES, SourceData, SourceFiles, best_root, describe_unlisted, list_files
from pipeline.data.splits import WORDS, split_named
from pipeline.errors import DataError

_SPLIT_KEYS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NOT_LABELS = {"classes.txt", "obj_names.txt", "readme.txt", "requirements.txt"}
_TODO = "a YOLO source has a data.yaml with `names`; if it lies elsewhere use dataset.data='GLOB'"


@dataclass(slots=True)
class YoloInfo:
    """What the description of the dataset says."""

    file: PurePosixPath
    """Relative to the source."""
    names: dict[int, str]
    splits: dict[str, list[str]] = field(default_factory=dict)
    """Per split, folders and lists as written; empty when the file names none."""
    path: str = ""
    """Where those start, as written."""
    keypoints: tuple[str, ...] = ()
    """Names of the keypoints of every class."""
    lines: LineKind = field(default_factory=LineKind)
    """What the label files' lines are."""
    stated: int | None = None
    """Number of classes that the file states (`nc`, or Darknet's `classes`) beside their names."""


@dataclass(slots=True)
class YoloEntry:
    """A picture (there or missing) and its label file, both relative to the source."""

    picture: PurePosixPath
    labels: PurePosixPath | None
    """None for a picture without a label file."""


def read_yolo(cfg: YoloDataset, source: Path) -> SourceData:
    """All splits of a YOLO source. DataError names the label file and the line, or what data.yaml says that is not there."""
    files = list_files(source)
    info = choose_info(files, cfg.data)
    if not files.pictures:
        raise DataError(files.folder, "has no pictures", f"put them below the source folder ({', '.join(sorted(PICTURES))})")
    lines = info.lines if cfg.oriented is None else replace(info.lines, oriented=cfg.oriented)
    categories = tuple(Category(number, name, keypoints=info.keypoints) for number, name in sorted(info.names.items()))
    listed, absent = _listed(info, files) if info.splits else _by_folder(files)
    finder = _LabelFinder(files, info)
    splits, used = {}, set()
    for name, (pictures, whole_folders) in listed.items():
        entries = finder.entries(name, pictures, whole_folders)
        splits[name] = _split(name, entries, categories, cfg.upright, lines, files.folder)
        used |= {path for entry in entries for path in (entry.picture, entry.labels)}
    if not any(split.path(row).is_file() for split in splits.values() for row in range(len(split.images))):
        raise DataError(files.folder / info.file, "none of its splits' pictures is there", "put them below the source folder")
    others = [path for path in files.pictures + finder.label_like if path not in used]
    stated = info.stated if info.stated != len(categories) else None
    return SourceData(categories, splits, (*absent, *describe_unlisted(others)), stated)


# -- data.yaml --


def choose_info(files: SourceFiles, pattern: str | None) -> YoloInfo:
    """The one description of the source. DataError lists the candidates when the choice is open, or says what is wrong."""
    found = [path for path in files.with_suffix(".yaml", ".yml", ".data") if pattern is None or path.match(pattern)]
    infos = {path: info for path in found if (info := _read_info(files, path, chosen=pattern is not None)) is not None}
    if len(infos) > 1:
        top = min(len(path.parts) for path in infos)
        infos = {path: info for path, info in infos.items() if path.stem == "data" and len(path.parts) == top} or infos
    if len(infos) > 1:
        listed = ", ".join(map(str, sorted(infos)))
        raise DataError(files.folder, f"has several files with names: {listed}", f"choose by dataset.data='{min(infos)}'")
    if infos:
        return next(iter(infos.values()))
    lists = [path for path in files.paths if path.suffix.lower() == ".names" or path.name.lower() == "classes.txt"]
    if pattern is None and len(lists) == 1:
        return YoloInfo(lists[0], _name_lines(files.folder / lists[0]))
    raise DataError(files.folder, f"has no {pattern or 'data.yaml'} with class names", _TODO)


def _read_info(files: SourceFiles, path: PurePosixPath, chosen: bool) -> YoloInfo | None:
    """The description in a YAML or Darknet file; None for a file about something else, unless it was `chosen` by its name."""
    place = files.folder / path
    content = _darknet(place) if path.suffix.lower() == ".data" else _yaml(place, chosen or path.stem == "data")
    if not isinstance(content, dict) or "names" not in content:
        return None
    names = content["names"]
    if path.suffix.lower() == ".data":
        file = _nearest(str(names), (path.parent,), {*files.paths})
        if file is None:
            raise DataError(place, f"names: {names!r} is not in the source", "put the file below the source folder")
        names = (files.folder / file).read_text(errors="replace").split("\n")
        names = [name.strip() for name in names if name.strip()]
    splits: dict[str, list[str]] = {}
    for key, value in content.items():
        if key in _SPLIT_KEYS and value:
            entries = value if isinstance(value, list) else [value]
            if not all(isinstance(entry, str) for entry in entries):
                raise DataError(place, f"{key}: must be a folder, a list of folders or a .txt list", f"is {str(value)[:80]!r}")
            splits.setdefault(_SPLIT_KEYS[key], []).extend(entries)
    keypoints, lines = _lines_of(content, place)
    count = content.get("nc", content.get("classes"))
    stated = int(str(count)) if re.fullmatch(r" *[0-9]{1,9} *", str(count)) else None
    return YoloInfo(path, _names(names, place), splits, str(content.get("path") or ""), keypoints, lines, stated)


def _lines_of(content: dict[str, Any], place: Path) -> tuple[tuple[str, ...], LineKind]:
    """Names of the keypoints, and what the lines are, by `kpt_shape`, `kpt_names` and `task`."""
    oriented = str(content.get("task") or "").lower() == "obb"
    shape = content.get("kpt_shape")
    if not shape:
        return (), LineKind(oriented=oriented)
    whole = isinstance(shape, list) and len(shape) == 2 and all(type(number) is int for number in shape)
    if not whole or not 0 < shape[0] <= 10_000 or shape[1] not in (2, 3):
        wrong = f"kpt_shape: must be [number of keypoints, 2 or 3], is {str(shape)[:40]!r}"
        raise DataError(place, wrong, "such as kpt_shape: [17, 3]")
    names = content.get("kpt_names")
    if isinstance(names, dict):  # one list per class; a dataset of one skeleton has one
        names = next(iter(names.values()), None)
    if not isinstance(names, list) or len(names) != shape[0]:
        names = [f"point {number}" for number in range(1, shape[0] + 1)]
    return tuple(map(str, names)), LineKind(shape[0], shape[1])


def _yaml(place: Path, must_read: bool) -> Any:
    try:
        return yaml.safe_load(place.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        if not must_read:
            return None
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        why = getattr(error, "problem", None) or error
        raise DataError(place, f"{where}not valid YAML ({why})", "repair the file") from error
    except OSError as error:
        raise DataError(place, f"cannot be read: {error.strerror}") from error


def _darknet(place: Path) -> dict[str, str]:
    """Darknet's `key = value` lines."""
    pairs = [line.partition("=") for line in place.read_text(errors="replace").splitlines()]
    return {key.strip(): value.strip() for key, equals, value in pairs if equals}


def _name_lines(place: Path) -> dict[int, str]:
    lines = place.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return _names([line.strip() for line in lines if line.strip()], place)


def _names(value: object, place: Path) -> dict[int, str]:
    """Class names by number, out of a list or a mapping. Two classes of one name stay two."""
    pairs = list(enumerate(value)) if isinstance(value, list) else list(value.items()) if isinstance(value, dict) else []
    if not pairs:
        raise DataError(place, "names: must be a list of class names, or a mapping of number to name", _TODO)
    names: dict[int, str] = {}
    for key, name in pairs:
        digits = isinstance(key, str) and re.fullmatch(r"[0-9]{1,11}", key)
        number = int(key) if isinstance(key, int) or digits else -1
        if not 0 <= number < 2**31 or isinstance(key, bool) or not isinstance(name, str | int | float) or not str(name).strip():
            raise DataError(place, f"names: {str(key)[:40]!r}: {str(name)[:40]!r} is not a class number with a name")
        names[number] = str(name).strip()
    return names


# -- splits --

Listed = dict[str, tuple[list[PurePosixPath], bool]]
"""Per split, its pictures and whether they are whole folders: then a label file without a picture belongs to it as well."""


def _listed(info: YoloInfo, files: SourceFiles) -> tuple[Listed, tuple[str, ...]]:
    """What the description's splits hold, and in words what of them is not there (allowed for test alone)."""
    pictures = files.pictures
    folders = {folder for picture in pictures for folder in picture.parents}
    known = {*files.paths}
    below = info.file.parent
    starts = (_joined(below, info.path), below, _joined(PurePosixPath(), info.path), PurePosixPath())
    found: Listed = {}
    absent: list[str] = []
    for name, entries in info.splits.items():
        paths: dict[PurePosixPath, None] = {}
        whole = True
        for entry in entries:
            if PurePosixPath(entry).suffix.lower() == ".txt":
                list_file = _nearest(entry, starts, known)
                whole = False
                rows = None if list_file is None else _list_lines(files, list_file, starts, pictures)
            else:
                folder = _nearest(entry, starts, folders, name) or _named_folder(entry, name, folders)
                rows = None if folder is None else [picture for picture in pictures if folder in picture.parents]
            if rows is None and name == "test":
                absent.append(f"{name}: {entry} (not there)")
            elif rows is None:
                todo = "paths in it start at `path`, or at its own folder; the data must lie below the source"
                raise DataError(files.folder / info.file, f"{name}: {entry!r} is no folder with pictures and no list", todo)
            paths |= dict.fromkeys(rows or ())
        if paths:
            found[name] = (list(paths), whole)
    return found, tuple(absent)


def _list_lines(
    files: SourceFiles, list_file: PurePosixPath, starts: tuple[PurePosixPath, ...], pictures: list[PurePosixPath]
) -> list[PurePosixPath]:
    """The pictures that a .txt list names; one that is not there stays, under the path where it would be."""
    lines = (files.folder / list_file).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    known = {*pictures}
    near = (list_file.parent, *starts)
    found = []
    for line in filter(None, map(str.strip, lines)):
        picture = _nearest(line, near, known)
        parts = [part for part in PurePosixPath(line.replace("\\", "/")).parts if part not in ("/", "..", ".")]
        found.append(picture or PurePosixPath(*(parts or ["_"])))
    return found


def _by_folder(files: SourceFiles) -> tuple[Listed, tuple[str, ...]]:
    """Splits by the folders' names, when each picture lies in one that names a split; else all pictures together."""
    parts: dict[str, list[PurePosixPath]] = {}
    for picture in files.pictures:
        name = next(filter(None, (split_named(folder.name) for folder in picture.parents)), "all")
        parts.setdefault(name, []).append(picture)
    if "all" in parts:
        parts = {"all": files.pictures}
    return {name: (pictures, True) for name, pictures in parts.items()}, ()


def _joined(start: PurePosixPath, path: str) -> PurePosixPath:
    """`path` from `start`, with `..` taken back; never out of the source."""
    done: list[str] = []
    for part in (start / path.replace("\\", "/")).parts:
        if part == "..":
            done[-1:] = []
        elif part != "/":
            done.append(part)
    return PurePosixPath(*done)


def _nearest(path: str, starts: Iterable[PurePosixPath], known: set[PurePosixPath], split: str = "") -> PurePosixPath | None:
    """Which of `known` a written path means: from one of `starts`, else with less and less of its front (another machine's).

    A part that names the `split` is never dropped: `train/images` is not `images`.
    """
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("/", ".")]
    while True:
        for start in starts:
            candidate = _joined(start, "/".join(parts))
            if candidate in known:
                return candidate
        if len(parts) < 2 or (split_named(parts[0]) == split and not any(split_named(part) == split for part in parts[1:])):
            return None
        parts = parts[1:]


def _named_folder(path: str, name: str, folders: set[PurePosixPath]) -> PurePosixPath | None:
    """The one topmost folder whose name speaks of the same split as `path` (`../valid/images` for a folder `val`)."""
    if not any(WORDS.get(part.lower()) == name for part in PurePosixPath(path.replace("\\", "/")).parts):
        return None
    named = {folder for folder in folders if WORDS.get(folder.name.lower()) == name}
    top = [folder for folder in named if not named & {*folder.parents}]
    return top[0] if len(top) == 1 else None


# -- pictures and labels --


class _LabelFinder:
    """Which label file belongs to which picture."""

    def __init__(self, files: SourceFiles, info: YoloInfo) -> None:
        lists = {PurePosixPath(entry).name for entries in info.splits.values() for entry in entries}
        self.label_like = [
            path for path in files.with_suffix(".txt") if path.name not in lists and path.name.lower() not in _NOT_LABELS
        ]
        """Text files that may be labels."""
        self._near = info.file.parent
        folders = {picture.parent for picture in files.pictures}
        self._claimed = folders | {swapped for folder in folders if (swapped := _swapped(folder)) is not None}
        """Where the labels of some folder's pictures would lie by the usual rules: never another folder's."""
        self._texts = {*self.label_like}
        self._in_folder: dict[PurePosixPath, list[PurePosixPath]] = {}
        for path in self.label_like:
            self._in_folder.setdefault(path.parent, []).append(path)

    def entries(self, split: str, pictures: list[PurePosixPath], whole_folders: bool) -> list[YoloEntry]:
        """The split's pictures with their labels and, for whole folders, its label files whose picture is missing."""
        by_folder: dict[PurePosixPath, list[PurePosixPath]] = {}
        for picture in pictures:
            by_folder.setdefault(picture.parent, []).append(picture)
        entries = []
        for folder, members in by_folder.items():
            labels = self._folder_of(split, folder, members)
            stems = Counter(picture.stem for picture in members)
            for picture in members:
                path = labels / f"{picture.stem}.txt"
                entries.append(YoloEntry(picture, path if path in self._texts else None))
            if whole_folders and labels != folder:
                orphans = [path for path in self._in_folder.get(labels, ()) if path.stem not in stems]
                entries += [YoloEntry(folder / f"{path.stem}.jpg", path) for path in orphans]
        return entries

    def _folder_of(self, split: str, folder: PurePosixPath, members: list[PurePosixPath]) -> PurePosixPath:
        """The folder with the labels of the pictures in `folder`."""
        swapped = _swapped(folder)
        if swapped is not None and swapped in self._in_folder:
            return swapped
        stems = {picture.stem for picture in members}
        if any(path.stem in stems for path in self._in_folder.get(folder, ())):
            return folder
        own = {word for word, name in WORDS.items() if name == split}
        others = [word for word in WORDS if word not in own and split != "all"]
        near = self._near / (swapped or folder)
        wanted = {f"{stem}.txt" for stem in stems}
        taken = self._claimed - {folder}
        free = [p for p in self.label_like if p.parent not in taken]
        if split != "all":
            free = [p for p in free if split_named(p.parent.name) in (None, split)]
        root, fitting = best_root(wanted, free, near.as_posix(), ("labels", *own), others)
        return PurePosixPath(root) if fitting else (swapped or folder)


def _swapped(folder: PurePosixPath) -> PurePosixPath | None:
    """The folder with its last part `images` read as `labels`; None without such a part."""
    parts = list(folder.parts)
    places = [place for place, part in enumerate(parts) if part.lower() == "images"]
    if not places:
        return None
    parts[places[-1]] = "labels"
    return PurePosixPath(*parts)


# -- columns --


def _split(
    name: str, entries: list[YoloEntry], categories: tuple[Category, ...], upright: bool, lines: LineKind, source: Path
) -> Split:
    """The split's columns, by way of the records that COCO would have; image ids count from 1 in name order."""
    entries = sorted(entries, key=lambda entry: entry.picture.as_posix())
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, entry in enumerate(entries, 1):
        frame = read_frame(source / entry.picture, upright)
        things: list[YoloObject] = read_labels(source / entry.labels, lines) if entry.labels else []
        image = {"id": number, "file_name": entry.picture.as_posix(), "width": frame.width, "height": frame.height}
        images.append(image | ({} if entry.labels else {"unlabelled": 1}))
        for thing in things:
            annotations.append({"id": len(annotations) + 1, "image_id": number} | record(thing, frame, lines))
    table = image_table(images, source)
    columns = annotation_table(annotations, table, source)
    columns = replace(columns, label_A=labels_of(columns.category_A, [category.id for category in categories]))
    return Split(name, table, columns, source, {}, [source / file_name for file_name in table.file_names])
