"""Damaged label files: a reader gives a dataset or a DataError that names the file, never another exception."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline.data.formats.catalogue import FORMATS
from pipeline.data.formats.detect import detect
from pipeline.data.formats.reading import read_format
from pipeline.data.formats.writing import write_source
from pipeline.errors import DataError
from tests.data.formats.samples import source
from tests.data.formats.test_round_trips import held, settings
from tests.data.formats.test_samples import picture, put

NUMBERS = (b"1e999", b"-1e308", b"NaN", b"9" * 23, b"-0", b"", b"null", b"0x1", b"1_0", b"Infinity", "٣".encode())
VALUES = (b"null", b"[]", b"{}", b'""', b"true", b"[[[[[[1]]]]]]", b'{"a": [{}]}', b'"\\ud800"', b'"\\u0000"')
DEEP = b"[" * 3000 + b"]" * 3000


def flipped(chance: random.Random, data: bytearray) -> None:
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)


def cut(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    del data[start : chance.choice([len(data), start + chance.randint(1, 30)])]


def other_number(chance: random.Random, data: bytearray) -> None:
    places = [place for place, byte in enumerate(data) if chr(byte).isdigit()]
    if places:
        start = end = chance.choice(places)
        while end < len(data) and chr(data[end]) in "0123456789.":
            end += 1
        data[start:end] = chance.choice(NUMBERS)


def other_value(chance: random.Random, data: bytearray) -> None:
    """One JSON value replaced by another kind; in other texts a word."""
    try:
        top = json.loads(data)
    except (ValueError, RecursionError):
        words = bytes(data).split(b" ")
        words[chance.randrange(len(words))] = chance.choice((*VALUES, b"[" * 300, b"<a>" * 2000, b"&#0;", b"x" * 5000))
        data[:] = b" ".join(words)
        return
    places = []

    def walk(value: object) -> None:
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in list(pairs):
            places.append((value, key))
            walk(inner)

    walk(top)
    if not places:
        return
    owner, key = chance.choice(places)
    owner[key] = "@@@"
    data[:] = json.dumps(top).encode().replace(b'"@@@"', chance.choice((*VALUES, DEEP, *NUMBERS[:4])))


def doubled(chance: random.Random, data: bytearray) -> None:
    start = chance.randrange(len(data))
    data[start:start] = data[start : start + chance.randint(1, 200)]


CHANGES: tuple[Callable[[random.Random, bytearray], None], ...] = (flipped, cut, other_number, other_value, doubled)


def whole(root: Path, folder: Path, kind: str) -> Path:
    """A small sound source of the format."""
    made = source(folder / "made", *held(kind), splits=("all",))
    out = folder / "out"
    out.mkdir()
    write_source("yolo-pose" if kind == "yolo" else kind, made, out)
    return out


def by_hand(folder: Path, kind: str) -> Path:
    """One of a format that has no writer."""
    picture(folder / "a.png")
    polygon = {"exterior": [[1, 2], [11, 2], [11, 22]], "interior": []}
    if kind == "openimages":
        put(folder / "b.csv", "ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\na,/m/1,0.1,0.2,0.3,0.4,1\na,/m/2,0,1,0,1,0\n")
        put(folder / "names.csv", "/m/1,cat\n/m/2,dog\n")
    elif kind == "supervisely":
        objects = [{"classTitle": "c", "geometryType": name, "points": polygon, "tags": []} for name in ("polygon", "rectangle")]
        objects.append({"classTitle": "c", "geometryType": "bitmap", "bitmap": {"data": "eJw=", "origin": [1, 2]}})
        put(folder / "meta.json", json.dumps({"classes": [{"title": "c", "shape": "any"}]}))
        put(folder / "a.png.json", json.dumps({"size": {"height": 40, "width": 60}, "objects": objects[:2]}))
    elif kind == "cityscapes":
        objects = [{"label": label, "polygon": polygon["exterior"]} for label in ("car", "bicyclegroup", "sky")]
        put(folder / "a_gtFine_polygons.json", json.dumps({"imgHeight": 40, "imgWidth": 60, "objects": objects}))
    else:
        picture(folder / "masks/a.png", 6, 5)
    return folder


def is_map(path: Path) -> bool:
    """A PNG of numbers, not a picture."""
    return path.parts[0] in ("annotations", "SegmentationClass", "SegmentationObject")


def fuzz(root: Path, folder: Path, kind: str, count: int) -> dict[str, int]:
    base = whole(root, folder, kind) if FORMATS[kind].writes is not None else by_hand(folder / "source", kind)
    cfg = settings(root, kind, base)
    pictures = {".png"} if kind != "masks" else {".jpg"}
    labels = [
        path
        for path in sorted(base.rglob("*"))
        if path.is_file() and path.stat().st_size and (path.suffix not in pictures or is_map(path.relative_to(base)))
    ]
    sound = {path: path.read_bytes() for path in labels}
    read_format(cfg, base)
    ends = {"read": 0, "refused": 0}
    for number in range(count):
        chance = random.Random(f"{kind} {number}")
        path = chance.choice(labels)
        data = bytearray(sound[path])
        for change in chance.choices(CHANGES, k=chance.choice((1, 1, 2))):
            if data:
                change(chance, data)
        path.write_bytes(data)
        said = str(base)
        try:
            try:
                read_format(cfg, base)
                ends["read"] += 1
            except DataError as error:
                ends["refused"] += 1
                said = str(error)
            if number % 10 == 0:
                with suppress(DataError):
                    detect(base)
        except Exception as error:
            raise AssertionError(f"{kind}, sample {number}: {error!r} for {bytes(data[:2000])!r}") from error
        assert str(base) in said and len(said) < 3000, said
        path.write_bytes(sound[path])
    return ends


READ = [kind for kind in FORMATS if FORMATS[kind].source]


@pytest.mark.parametrize("kind", READ)
def test_a_damaged_file_is_read_or_refused(root: Path, tmp_path: Path, kind: str) -> None:
    ends = fuzz(root, tmp_path, kind, 200)
    assert min(ends.values()) >= 10, f"the changes must reach both ends: {ends}"


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("kind", READ)
def test_ten_thousand_damaged_files(root: Path, tmp_path: Path, kind: str) -> None:
    fuzz(root, tmp_path, kind, 10_000)
