"""COCO as a source: label files wherever they lie, each with the picture folder that fits it.

Known layouts: `annotations/instances_*.json` beside `train2017/` or `images/train/`; one JSON beside `images/`; Roboflow's
`train/_annotations.coco.json`; a dataset that `ingest` wrote. Pictures are found by evidence (`best_root`), not by layout.
Precomputed proposals are taken from `proposals/<label file's stem>.npz` below the source (`data.proposals`). The texts of a
`captions*.json` of the same split become the field `captions` of its pictures.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import msgspec

from pipeline.data.annotations import ImageTable
from pipeline.data.config import CocoDataset
from pipeline.data.dataset import Category, Split, labels_of, parse_categories
from pipeline.data.formats.coco_json import CocoContent, annotation_table, image_table, read_coco_json
from pipeline.data.formats.pictures import find_pictures, stated_name
from pipeline.data.proposals import read_proposals
from pipeline.data.sources import PICTURES, SourceData, SourceFiles, describe_unlisted, list_files
from pipeline.data.splits import split_named
from pipeline.errors import DataError

HEAD = 1 << 16
"""Bytes of a list that tell what it is of."""


def read_coco(cfg: CocoDataset, source: Path) -> SourceData:
    """All splits of a COCO source. DataError names label file and position, or lists the candidates when the choice is open."""
    files = list_files(source)
    chosen = choose_label_files(files, cfg.annotations)
    contents = {name: read_coco_json(files.folder / path) for name, path in chosen.items()}
    categories = _joined({files.folder / chosen[name]: content for name, content in contents.items()})
    told = caption_files(files)
    splits, used = {}, {*chosen.values(), *(told[name] for name in chosen.keys() & told.keys())}
    for name, path in chosen.items():
        splits[name] = _split(name, path, contents[name], categories, files, told.get(name), only=len(chosen) == 1)
        used |= {PurePosixPath(file_name) for file_name in splits[name].images.file_names}
    if not any(split.path(row).is_file() for split in splits.values() for row in range(len(split.images))):
        raise DataError(
            files.folder,
            f"holds none of the pictures that {_listed(chosen.values())} lists",
            "put the pictures below the source folder",
        )
    others = [path for path in files.with_suffix(".json") + files.pictures if path not in used]
    return SourceData(categories, splits, describe_unlisted(others))


def choose_label_files(files: SourceFiles, pattern: str | None) -> dict[str, PurePosixPath]:
    """One label file per split, by the split that its name, else its folder, speaks of; "all" where none does.

    Of several for one split `instances_*` is taken. A `pattern` (a glob below the source) narrows the choice.
    """
    found = [path for path in files.with_suffix(".json") if pattern is None or path.match(pattern)]
    if not found:
        todo = (
            "dataset.annotations is a glob below the source"
            if pattern
            else "a COCO source has .json label files; for XML use dataset=voc"
        )
        raise DataError(files.folder, f"has no label file {pattern or '*.json'}", todo)
    if len(found) > 1:
        found = [path for path in found if _can_be_coco(files.folder / path)] or found
        found = [path for path in found if not path.name.startswith("panoptic")] or found  # their lists may be empty
    if any(path.name.startswith("instances") for path in found):
        found = [path for path in found if path.name.startswith("instances")]
    by_split: dict[str, list[PurePosixPath]] = {}
    for path in found:
        by_split.setdefault(split_named(path.stem) or split_named(path.parent.name) or "all", []).append(path)
    for name, candidates in by_split.items():
        if len(candidates) > 1:
            where = "" if name == "all" else f" for the split {name}"
            raise DataError(
                files.folder,
                f"has several label files{where}: {_listed(candidates)}",
                f"choose by dataset.annotations='GLOB', such as '{candidates[0]}'",
            )
    if "all" in by_split and len(by_split) > 1:
        named = [path for name, paths in by_split.items() if name != "all" for path in paths]
        raise DataError(
            files.folder,
            f"names no split in {by_split['all'][0]}, beside {_listed(named)}",
            "choose by dataset.annotations='GLOB', or put train, val or test into its name",
        )
    return {name: candidates[0] for name, candidates in by_split.items()}


def caption_files(files: SourceFiles) -> dict[str, PurePosixPath]:
    """The file of captions of each split. DataError when two are of one split."""
    found: dict[str, PurePosixPath] = {}
    for path in files.with_suffix(".json"):
        if path.name.startswith("captions") and not _can_be_coco(files.folder / path):
            other = found.setdefault(split_named(path.stem) or split_named(path.parent.name) or "all", path)
            if other != path:
                raise DataError(files.folder, f"has two files of captions for one split: {other} and {path}", "keep one of them")
    return found


def add_captions(images: ImageTable, place: Path) -> None:
    """Give each image its captions, in the order of their ids, as the field `captions`. DataError with place and position.

    Captions of pictures that are not among the images are left alone, as their pictures are.
    """
    rows = {identity: row for row, identity in enumerate(images.ids_I.tolist())}
    texts: dict[int, list[tuple[int, str]]] = {}
    for number, record in enumerate(read_coco_json(place).annotations):
        where = f"{place}: annotations[{number}]"
        if not isinstance(record, dict):
            raise DataError(where, "must be an object")
        for field, kind in (("id", int), ("image_id", int), ("caption", str)):
            if not isinstance(record.get(field), kind):
                raise DataError(f"{where}.{field}", f"must be a {'text' if kind is str else 'whole number'}")
        if record["image_id"] in rows:
            texts.setdefault(rows[record["image_id"]], []).append((record["id"], record["caption"]))
    for row, told in texts.items():
        images.extra.setdefault(row, {})["captions"] = [text for _, text in sorted(told)]


def _split(
    name: str,
    path: PurePosixPath,
    content: CocoContent,
    categories: Sequence[Category],
    files: SourceFiles,
    captions: PurePosixPath | None,
    only: bool,
) -> Split:
    """The split with file names relative to the source folder."""
    place = files.folder / path
    images = image_table(content.images, place)
    if captions is not None:
        add_captions(images, files.folder / captions)
    stated = [stated_name(file_name, place) for file_name in images.file_names]
    for file_name, times in Counter(stated).items():
        if times > 1:
            todo = "merge the images: a picture has one entry"
            raise DataError(place, f"images: file_name {file_name!r} is listed {times} times", todo)
    last_parts = {PurePosixPath(file_name).name for file_name in stated}
    pictures = [p for p in files.paths if p.suffix.lower() in PICTURES or p.name in last_parts]  # whatever a label file calls one
    found = find_pictures(stated, name, path, pictures, only)
    images = replace(images, file_names=found)
    order = sorted(range(len(found)), key=found.__getitem__)
    images = images.take(order)
    annotations = annotation_table(content.annotations, images, place)
    annotations = replace(annotations, label_A=labels_of(annotations.category_A, [category.id for category in categories]))
    sources = [files.folder / file_name for file_name in images.file_names]
    given = files.folder / "proposals" / f"{path.stem}.npz"
    proposals = read_proposals(given, images.ids_I) if given.is_file() else None
    return Split(name, images, annotations, files.folder, content.header, sources, proposals=proposals)


def _can_be_coco(path: Path) -> bool:
    """Whether the file has COCO's three lists, and objects in them, or is no JSON at all: then it is read, its error reported."""
    try:
        top = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, ValueError, RecursionError, OSError):
        return True
    return {"images", "annotations", "categories"} <= top.keys() and b'"segments_info"' not in bytes(top["annotations"])[:HEAD]


def _joined(contents: dict[Path, CocoContent]) -> tuple[Category, ...]:
    """The categories of all label files. DataError when two files give one id two names."""
    joined: dict[int, tuple[Category, Path]] = {}
    for place, content in contents.items():
        for category in parse_categories(content.categories, place):
            other, where = joined.setdefault(category.id, (category, place))
            if other.name != category.name:
                raise DataError(place, f"categories: id {category.id} is {category.name!r} here and {other.name!r} in {where}")
    if not joined:
        raise DataError(
            _listed(contents), "categories: is empty", "captions and image lists name no classes; choose detection labels"
        )
    return tuple(joined[i][0] for i in sorted(joined))


def _listed(paths: object) -> str:
    names = [str(path) for path in paths]  # type: ignore[attr-defined]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
