"""Which format a source has, by what its files contain; never by what the folder is called.

A format's evidence is how many pictures its label files speak of. Files of one kind are sampled, not all read.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import msgspec

from pipeline.data.formats.csv_boxes import OPEN_IMAGES, columns_of, read_table
from pipeline.data.formats.mask_folders import find_masks
from pipeline.data.sources import SourceFiles, list_files
from pipeline.errors import DataError

SAMPLED = 40
"""Files of a kind that are looked into; the rest counts as they do."""
HEAD = 1 << 16
"""Bytes of a text file that are looked at."""


@dataclass(slots=True)
class Evidence:
    """What speaks for a format."""

    kind: str
    pictures: int
    """That its labels speak of, about."""
    text: str
    """Files and what they have in them."""


def detect(source: Path) -> Evidence:
    """The format that most of the source's pictures are labelled in.

    DataError when there is no label file of a known format, or when another format labels at least half as many pictures: then
    it names both and their evidence.
    """
    files = list_files(source)
    found = sorted(_evidence(files), key=lambda one: -one.pictures)
    if not found:
        raise DataError(
            files.folder,
            "has no label file of a known format",
            "choose it by dataset=FORMAT, or --from FORMAT, to learn what is missing",
        )
    if any(one.kind == "coco" for one in found):  # labels of the same objects: `coco` has their outlines too
        found = [one for one in found if one.kind != "panoptic"]
    rivals = [one for one in found if 2 * one.pictures >= found[0].pictures]
    if len(rivals) > 1:
        listed = "".join(f"\n  {one.kind}: {one.text}" for one in rivals)
        choices = " or ".join(f"dataset={one.kind}" for one in rivals)
        raise DataError(files.folder, f"fits several formats:{listed}", f"choose by {choices} (convert: --from)")
    return found[0]


def _evidence(files: SourceFiles) -> Iterator[Evidence]:
    yield from _of_texts(files, (".json",), _kind_of_json, "JSON files")
    yield from _of_texts(files, (".xml",), _kind_of_xml, "XML files")
    yield from _of_texts(files, (".txt",), _kind_of_txt, "text files")
    yield from _of_texts(files, (".csv", ".tsv"), _kind_of_table, "tables")
    masks = find_masks(files)
    if masks:
        label = masks[0]
        text = f"{len(masks)} pictures with masks of the same name, such as {label.picture} with {label.masks[0]}"
        yield Evidence("masks", len(masks), text)


Kind = tuple[str, int, str]
"""Format, pictures that one file speaks of, and what is in it."""


def _of_texts(
    files: SourceFiles, suffixes: tuple[str, ...], kind_of: Callable[[Path], Kind | None], title: str
) -> Iterator[Evidence]:
    """Evidence of each format that the sampled files have."""
    paths = files.with_suffix(*suffixes)
    sampled = paths[:: max(1, len(paths) // SAMPLED)]
    found: dict[str, list[tuple[PurePosixPath, Kind]]] = {}
    for path in sampled:
        kind = kind_of(files.folder / path)
        if kind is not None:
            found.setdefault(kind[0], []).append((path, kind))
    for name, hits in found.items():
        whole = round(sum(kind[1] for _, kind in hits) * len(paths) / len(sampled))
        number = f"{len(hits)} of the {len(sampled)} {title} looked into (of {len(paths)})"
        path, kind = hits[0]
        yield Evidence(name, max(1, whole), f"{number} have {kind[2]}, such as {path}; about {max(1, whole)} pictures")


def _kind_of_json(path: Path) -> Kind | None:
    try:
        top = msgspec.json.decode(path.read_bytes().removeprefix(b"\xef\xbb\xbf"), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, ValueError, RecursionError, OSError):
        return None  # no JSON, or no object: not evidence of anything

    def length(key: str) -> int:
        try:
            return len(msgspec.json.decode(top[key], type=list[msgspec.Raw]))
        except (msgspec.DecodeError, ValueError):
            return 0

    if {"images", "annotations", "categories"} <= top.keys():
        if b"segments_info" in bytes(top["annotations"])[:HEAD]:
            return "panoptic", length("images"), "images, annotations with segments_info, categories"
        return "coco", length("images"), "images, annotations, categories"
    if {"items", "categories"} <= top.keys():
        return "datumaro", length("items"), "items, categories"
    if "shapes" in top and top.keys() & {"imagePath", "imageData", "imageHeight", "flags"}:
        return "labelme", 1, "shapes, imagePath"
    if {"imgHeight", "imgWidth", "objects"} <= top.keys():
        return "cityscapes", 1, "imgHeight, imgWidth, objects"
    if {"size", "objects"} <= top.keys():
        return "supervisely", 1, "size, objects"
    return None


def _kind_of_xml(path: Path) -> Kind | None:
    text = path.read_bytes() if path.stat().st_size < 1 << 30 else b""
    head = re.sub(rb"<\?.*?\?>|<!--.*?-->", b"", text[:HEAD], flags=re.S).lstrip(b"\xef\xbb\xbf \t\r\n")
    if re.match(rb"<annotation[\s>]", head):
        return "voc", 1, "<annotation>"
    pictures = len(re.findall(rb"<image\s", text))
    tracks = len(set(re.findall(rb"frame=\"(\d+)\"", text))) if b"<track" in text else 0
    if re.match(rb"<annotations[\s>]", head) and (pictures or tracks):
        return "cvat", pictures or tracks, "<annotations> with <image> or <track>"
    return None


def _kind_of_txt(path: Path) -> Kind | None:
    rows = [line.split() for line in _head(path).splitlines()[:20] if line.strip()]
    if not rows or path.name.lower() in ("classes.txt", "labels.txt"):
        return None
    if all(len(row) >= 5 and row[0].isdecimal() and all(map(_is_number, row)) for row in rows):
        return "yolo", 1, "lines of a class number and shares"
    if all(len(row) in (15, 16) and not _is_number(row[0]) and all(map(_is_number, row[1:])) for row in rows):
        return "kitti", 1, "lines of a class name and 14 or 15 numbers"
    return None


def _kind_of_table(path: Path) -> Kind | None:
    try:
        table = read_table(path, limit=200_000)
    except DataError:
        return None
    columns = columns_of(table.header)
    if columns is None:
        return None
    named = {row[columns.picture] for row in table.rows if len(row) > columns.picture}
    if {name.strip().lower() for name in table.header} >= OPEN_IMAGES:
        return "openimages", len(named), "ImageID, LabelName, XMin, XMax, YMin, YMax"
    return "csv", len(named), f"the columns {', '.join(columns.named(table.header))}"


def _head(path: Path) -> str:
    with path.open("rb") as file:
        text = file.read(HEAD).decode("utf-8-sig", errors="replace")
    return text if len(text) < HEAD else text.rpartition("\n")[0]


def _is_number(word: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", word) is not None
