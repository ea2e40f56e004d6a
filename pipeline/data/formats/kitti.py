"""KITTI object labels: one text per picture, one object per line. Reader and writer.

A line is `type truncated occluded alpha left top right bottom height width length x y z rotation_y [score]`, boxes in pixels from
0 (devkit_object/readme.txt). The 3-D fields are kept as extra ones. `DontCare` marks a region in which nothing counts, whatever
its class: it becomes a crowd of every class.
"""

import re
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.data.config import KittiDataset
from pipeline.data.formats.labelled import Labelled, Record, assemble, box_fields
from pipeline.data.formats.pictures import find_pictures, with_suffixes
from pipeline.data.formats.things import Export, Picture, Thing
from pipeline.data.sources import SourceData, SourceFiles, list_files
from pipeline.data.splits import split_named
from pipeline.errors import DataError

DONT_CARE = "DontCare"
EXTRA = frozenset({"truncated", "occluded", "alpha", "dimensions", "location", "rotation_y", "score", "ignore", "dont_care"})
"""Extra fields that its lines have a place for."""
_UNKNOWN = {"truncated": -1.0, "occluded": -1.0, "alpha": -10.0, "rotation_y": -10.0}


def read_kitti(cfg: KittiDataset, source: Path) -> SourceData:
    """All splits of a KITTI source. DataError names the label file and line."""
    files = list_files(source)
    entries: list[Labelled] = []
    folders = _label_folders(files)
    for folder, paths in folders.items():
        split = next(filter(None, (split_named(one.name) for one in (folder, *folder.parents))), None)
        stated = with_suffixes([path.stem for path in paths], files.pictures)
        found = find_pictures(stated, split or "all", paths[0], files.pictures, only=len(folders) == 1)
        for path, picture in zip(paths, found, strict=True):
            entries.append(Labelled(PurePosixPath(picture), path, _read_labels(files.folder / path), split=split))
    if not entries:
        wrong = "has no KITTI label file (.txt with a class name and 14 numbers per line)"
        raise DataError(files.folder, wrong, "for YOLO use dataset=yolo")
    classes = sorted({one["class"] for entry in entries for one in entry.objects} - {DONT_CARE})
    for entry in entries:
        entry.objects = [spread for one in entry.objects for spread in _for_each_class(one, classes)]
    return assemble(files, entries)


def _label_folders(files: SourceFiles) -> dict[PurePosixPath, list[PurePosixPath]]:
    """Text files by folder, of folders in which one begins like a label file: then all there are."""
    folders: dict[PurePosixPath, list[PurePosixPath]] = {}
    for path in files.with_suffix(".txt"):
        folders.setdefault(path.parent, []).append(path)
    return {folder: paths for folder, paths in folders.items() if any(_begins_well(files.folder / path) for path in paths)}


def _begins_well(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            words = file.read(1000).decode("utf-8-sig", errors="replace").partition("\n")[0].split()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    return len(words) in (15, 16) and _number(words[0]) is None and None not in map(_number, words[1:])


def _number(word: str) -> float | None:
    """None for what is no number; Python's float would read 1_0 as 10."""
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


def _read_labels(path: Path) -> list[Record]:
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    lines = enumerate(re.split(r"\r\n|\r|\n", text), 1)
    return [_object(line.split(), f"{path}: line {number}") for number, line in lines if line.strip()]


def _object(words: list[str], place: str) -> Record:
    if len(words) not in (15, 16):
        wrong = f"has {len(words)} columns: an object has 15, or 16 with its score"
        raise DataError(place, wrong, "repair the line; a class name with blanks is written with _")
    values: list[float] = []
    for column, word in enumerate(words[1:], 2):
        value = _number(word)
        if value is None:
            raise DataError(place, f"column {column} must be a number, is {word[:40]!r}", "repair or remove the line")
        values.append(value)
    truncated, occluded, alpha, x1, y1, x2, y2, *rest = values
    dimensions, location, rotation = rest[:3], rest[3:6], rest[6]
    record: Record = {"class": words[0]} | box_fields(x1, y1, x2, y2)
    if words[0] == DONT_CARE:
        return record
    known = {"truncated": truncated, "occluded": occluded, "alpha": alpha, "rotation_y": rotation}
    record |= {name: value for name, value in known.items() if value != _UNKNOWN[name]}
    record |= {"dimensions": dimensions} if dimensions != [-1.0] * 3 else {}
    record |= {"location": location} if location != [-1000.0] * 3 else {}
    return record | ({"score": rest[7]} if len(rest) > 7 else {})


def _for_each_class(one: Record, classes: list[str]) -> list[Record]:
    if one["class"] != DONT_CARE:
        return [one]
    return [one | {"class": name, "iscrowd": 1, "dont_care": 1} for name in classes]


# -- writing --


def write_kitti(data: Export, out: Path) -> None:
    """label_2/ and image_2/, below a folder per split."""
    for split, pictures in data.splits.items():
        folder = out if split == "all" else out / split
        (folder / "label_2").mkdir(parents=True)
        for picture in pictures:
            picture.copy_to(folder / "image_2" / picture.name)
            if picture.labelled:
                lines = dict.fromkeys(_lines(picture, data))  # a region to ignore has a row per class
                (folder / "label_2" / f"{PurePosixPath(picture.name).stem}.txt").write_text("".join(lines), encoding="utf-8")


def _lines(picture: Picture, data: Export) -> list[str]:
    found = []
    for thing in picture.things:
        if thing.box is None:
            data.losses.add("masks without a box", "left out: KITTI holds boxes")
            continue
        name = "_".join(thing.name.split()) or "_"
        if name != thing.name:
            data.losses.add("objects", "of classes with blanks in their name, which become _")
        box = " ".join(f"{value:.2f}" for value in thing.box)
        if any(abs(value - round(value, 2)) > 1e-9 for value in thing.box):
            data.losses.add("boxes", "rounded to the second decimal")
        if thing.ignored and not thing.extra.get("dont_care"):
            data.losses.add("crowds and ignored objects", "become DontCare regions, without a class")
        found.append(
            f"{DONT_CARE} -1 -1 -10 {box} -1 -1 -1 -1000 -1000 -1000 -10\n" if thing.ignored else _line(name, box, thing)
        )
    return found


def _line(name: str, box: str, thing: Thing) -> str:
    def number(key: str, unknown: float) -> str:
        value = thing.extra.get(key)
        return f"{value:g}" if isinstance(value, int | float) else f"{unknown:g}"

    def three(key: str, unknown: float) -> str:
        value: Any = thing.extra.get(key)
        sound = isinstance(value, list) and len(value) == 3 and all(isinstance(one, int | float) for one in value)
        return " ".join(f"{one:g}" for one in (value if sound else [unknown] * 3))

    before = f"{name} {number('truncated', -1)} {number('occluded', -1)} {number('alpha', -10)} {box}"
    after = f"{three('dimensions', -1)} {three('location', -1000)} {number('rotation_y', -10)}"
    score = f" {number('score', 0)}" if "score" in thing.extra else ""
    return f"{before} {after}{score}\n"
