"""COCO as a source: label files wherever they lie, each with the picture folder that fits it.

Known layouts: `annotations/instances_*.json` beside `train2017/` or `images/train/`; one JSON beside `images/`; Roboflow's
`train/_annotations.coco.json`; a dataset that `ingest` wrote. Pictures are found by evidence (`best_root`), not by layout.
Precomputed proposals are taken from `proposals/<label file's stem>.npz` below the source (`data.proposals`).
"""

import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import msgspec

from pipeline.data.config import CocoDataset
from pipeline.data.dataset import Category, Split, labels_of, parse_categories
from pipeline.data.formats.coco_json import CocoContent, annotation_table, image_table, read_coco_json
from pipeline.data.proposals import read_proposals
from pipeline.data.sources import PICTURES, SourceData, SourceFiles, best_root, describe_unlisted, list_files
from pipeline.data.splits import WORDS, split_named
from pipeline.errors import DataError


def read_coco(cfg: CocoDataset, source: Path) -> SourceData:
    """All splits of a COCO source. DataError names label file and position, or lists the candidates when the choice is open."""
    files = list_files(source)
    chosen = choose_label_files(files, cfg.annotations)
    contents = {name: read_coco_json(files.folder / path) for name, path in chosen.items()}
    categories = _joined({files.folder / chosen[name]: content for name, content in contents.items()})
    splits, used = {}, set(chosen.values())
    for name, path in chosen.items():
        splits[name] = _split(name, path, contents[name], categories, files, only=len(chosen) == 1)
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
        found = [
            path for path in found if not path.name.startswith("panoptic")
        ] or found  # segments of maps, not labels of objects
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


def _split(
    name: str, path: PurePosixPath, content: CocoContent, categories: Sequence[Category], files: SourceFiles, only: bool
) -> Split:
    """The split with file names relative to the source folder."""
    place = files.folder / path
    images = image_table(content.images, place)
    stated = [_normal(file_name) for file_name in images.file_names]
    for file_name, times in Counter(stated).items():
        if times > 1:
            todo = "merge the images: a picture has one entry"
            raise DataError(place, f"images: file_name {file_name!r} is listed {times} times", todo)
    last_parts = {PurePosixPath(file_name).name for file_name in stated}
    pictures = [p for p in files.paths if p.suffix.lower() in PICTURES or p.name in last_parts]  # whatever a label file calls one
    spelled = _one_spelling(stated, pictures)
    there = {PurePosixPath(spelled(picture.as_posix())): picture.as_posix() for picture in pictures}
    found = _find_pictures([spelled(file_name) for file_name in stated], name, path, list(there), only)
    found = [there.get(PurePosixPath(file_name), file_name) for file_name in found]
    images = replace(images, file_names=found)
    order = sorted(range(len(found)), key=found.__getitem__)
    images = images.take(order)
    annotations = annotation_table(content.annotations, images, place)
    annotations = replace(annotations, label_A=labels_of(annotations.category_A, [category.id for category in categories]))
    sources = [files.folder / file_name for file_name in images.file_names]
    given = files.folder / "proposals" / f"{path.stem}.npz"
    proposals = read_proposals(given, images.ids_I) if given.is_file() else None
    return Split(name, images, annotations, files.folder, content.header, sources, proposals=proposals)


def _find_pictures(stated: list[str], name: str, path: PurePosixPath, pictures: list[PurePosixPath], only: bool) -> list[str]:
    """Each stated name as a path below the source, where the picture is or would be.

    If no folder fits the names as they are (absolute paths of another machine), their last parts decide. With one label file in
    the source a picture outside the best folder is taken too if its name is unique; with several it could be another split's.
    """
    own = [word for word, split in WORDS.items() if split == name]
    others = [word for word in WORDS if word not in own and name != "all"]
    near = path.parent.as_posix()
    root, fitting = best_root(stated, pictures, near, own, others)
    if not fitting:
        last = [PurePosixPath(file_name).name for file_name in stated]
        root, fitting = best_root(last, pictures, near, own, others)
        stated = last if fitting and len(set(last)) == len(last) else stated
    there = {picture.as_posix() for picture in pictures}
    by_name: dict[str, list[str]] = {}
    for picture in pictures:
        by_name.setdefault(picture.name, []).append(picture.as_posix())
    found = [(PurePosixPath(root) / file_name).as_posix() for file_name in stated]
    free = there.difference(found)
    for row, expected in enumerate(found):
        elsewhere = by_name.get(PurePosixPath(expected).name, [])
        if only and expected not in there and len(elsewhere) == 1 and elsewhere[0] in free:
            found[row] = elsewhere[0]
            free.discard(elsewhere[0])
    return found


def _one_spelling(stated: list[str], pictures: list[PurePosixPath]) -> Callable[[str], str]:
    """Names in Unicode's composed form (NFC): a Mac writes é as e and an accent into file names, label files have one letter.

    The function given back leaves a name alone when that would make two files, or two stated names, one.
    """

    def composed(text: str) -> str:
        return unicodedata.normalize("NFC", text)

    times = Counter(composed(picture.as_posix()) for picture in pictures)
    wanted = Counter(composed(file_name) for file_name in stated)
    unclear = {PurePosixPath(name).name for counts in (times, wanted) for name, count in counts.items() if count > 1}
    return lambda name: name if composed(PurePosixPath(name).name) in unclear else composed(name)


def _normal(file_name: str) -> str:
    """Forward slashes, no `./`, and never out of the source folder: a path that tries is taken by its last part."""
    path = PurePosixPath(file_name.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":"))
    return path.name or "_" if outside else path.as_posix()


def _can_be_coco(path: Path) -> bool:
    """Whether the file has COCO's three lists, or is no JSON at all: then it is read, and its error reported."""
    try:
        top = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return False
    except (msgspec.DecodeError, ValueError, RecursionError, OSError):
        return True
    return {"images", "annotations", "categories"} <= top.keys()


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
