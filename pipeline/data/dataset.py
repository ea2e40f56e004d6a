"""The dataset on disk and in memory: `images/`, one COCO file per split, `dataset.json`."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations, ImageTable, Rows, row_indices
from pipeline.data.dense import Surface
from pipeline.data.formats.coco_json import annotation_table, image_table, read_coco_json
from pipeline.data.formats.coco_write import write_coco_json
from pipeline.data.maps import SplitMaps, read_maps, write_maps
from pipeline.data.proposals import ProposalPool, read_proposals, write_proposals
from pipeline.errors import DataError, did_you_mean
from pipeline.files import digest_file, read_json, write_json

SPLITS = ("train", "val", "test")
"""Names that a split can have, in the order in which they are listed."""
VERSION = 1


@dataclass(slots=True)
class Category:
    """A class of the dataset."""

    id: int
    name: str
    supercategory: str = ""
    keypoints: tuple[str, ...] = ()
    """Names of the keypoints, in the order of the annotations' rows."""
    skeleton: tuple[tuple[int, int], ...] = ()
    """Pairs of keypoints to join when drawing, counted from 1 as COCO does."""

    def as_json(self) -> dict[str, Any]:
        """COCO's form; keypoint fields only where there are keypoints."""
        plain: dict[str, Any] = {"id": self.id, "name": self.name, "supercategory": self.supercategory}
        return plain | (
            {"keypoints": list(self.keypoints), "skeleton": [list(p) for p in self.skeleton]} if self.keypoints else {}
        )


@dataclass(slots=True)
class DatasetInfo:
    """What dataset.json says."""

    categories: tuple[Category, ...]
    """Ascending id; a class's label is its place here."""
    source: str
    """Format and name of what was ingested, without its path: the same data gives the same bytes wherever it lies."""
    splitting: str
    """How the splits were made, in words."""
    licence: str | None = None
    tasks: tuple[str, ...] = ()
    """What the labels can teach: "box", "mask", "keypoints", "semantic", "panoptic", "densepose"."""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    """Per split: images, annotations, missing (pictures that are not there)."""
    unlisted: tuple[str, ...] = ()
    """Pictures or label files of the source that belong to no split: left out, never unsaid."""
    stated_classes: int | None = None
    """Number of classes that the source states beside their names, where it is another than theirs."""
    digest: str = ""
    """Over labels, maps and picture bytes; set by `write_dataset`."""
    stuff: tuple[Category, ...] = ()
    """Classes of ground in panoptic maps, ascending id; no object is labelled as one."""
    semantic: tuple[str, ...] = ()
    """Names of the classes 0, 1, ... in semantic maps. Beside panoptic maps: "things", then the stuff classes."""
    surface: Surface | None = None
    """What the dense pose labels mean, where there are any."""


@dataclass(slots=True)
class Split:
    """Images and annotations of one split."""

    name: str
    images: ImageTable
    annotations: Annotations
    folder: Path
    """The `images/` folder that file names are relative to."""
    header: dict[str, Any] = field(default_factory=dict)
    """Other top-level fields of the COCO file (info, licenses), kept and written back."""
    sources: list[Path] | None = None
    """While ingesting: where each picture lies now. None: in `folder`."""
    maps: SplitMaps | None = None
    """Semantic and panoptic maps, where there are any."""
    proposals: ProposalPool | None = None
    """Boxes worth a look that something else made, where the dataset brings them."""

    def path(self, row: int) -> Path:
        """Where the picture of image `row` is, or would be: it can be missing."""
        return self.folder / self.images.file_names[row] if self.sources is None else self.sources[row]

    def class_counts(self, classes: int) -> np.ndarray:
        """Labels of each of the dataset's `classes` classes."""
        label_A = self.annotations.label_A
        return np.bincount(label_A[label_A >= 0], minlength=classes)

    def rows_of(self, row: int) -> slice:
        """The annotation rows of image `row`; -1 gives the dangling ones."""
        image_A = self.annotations.image_A
        first, last = np.searchsorted(image_A, np.array([row, row + 1], image_A.dtype))  # another type copies the whole column
        return slice(int(first), int(last))

    def renumber(self) -> None:
        """Number the annotations 1..A, and name them so in the panoptic segments."""
        old_A = self.annotations.ids_A
        self.annotations = self.annotations.renumbered()
        if self.maps is not None and self.maps.segments is not None:
            new = dict(zip(old_A.tolist(), self.annotations.ids_A.tolist(), strict=True))
            named = [new.get(label, 0) for label in self.maps.segments.annotation_S.tolist()]
            segments = replace(self.maps.segments, annotation_S=np.array(named, np.int64))
            self.maps = replace(self.maps, segments=segments)

    def take_images(self, rows: Rows) -> Self:
        """The split with the images of `rows`, in that order, and their annotations; dangling annotations stay."""
        index = row_indices(rows, len(self.images))
        new_row = np.full(len(self.images) + 1, -2, np.int32)  # the last element serves image_A == -1
        new_row[index], new_row[-1] = np.arange(len(index)), -1
        image_A = new_row[self.annotations.image_A]
        kept = np.argsort(image_A, kind="stable")
        kept = kept[image_A[kept] > -2]
        annotations = replace(self.annotations.take(kept), image_A=image_A[kept])
        sources = None if self.sources is None else [self.sources[i] for i in index]
        maps = None if self.maps is None else self.maps.take_images(index)
        proposals = None if self.proposals is None else self.proposals.take(index)
        images = self.images.take(index)
        return replace(self, images=images, annotations=annotations, sources=sources, maps=maps, proposals=proposals)


@dataclass(slots=True)
class Dataset:
    """A dataset with its splits, "train" and "val" and maybe "test"."""

    info: DatasetInfo
    splits: dict[str, Split]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""
        return tuple(category.name for category in self.info.categories)

    def split(self, name: str) -> Split:
        """The split of that name. DataError lists the existing ones."""
        if name not in self.splits:
            raise DataError("dataset", f"has no split {name!r}", did_you_mean(name, self.splits))
        return self.splits[name]


def open_dataset(folder: Path) -> Dataset:
    """Read a dataset that `write_dataset` wrote; pictures are not opened. DataError names file and position of what is wrong."""
    if not (folder / "dataset.json").is_file():
        maker = "validate" if folder.name == "validated" else "ingest"
        raise DataError(folder, "is not a dataset: it has no dataset.json", f"make it by: python -m pipeline {maker}")
    info = _read_info(folder / "dataset.json")
    return Dataset(info, {name: _read_split(folder, name, info) for name in info.counts})


def write_dataset(out: Path, dataset: Dataset, copy_images: bool = True) -> None:
    """Write the dataset into the folder `out`; the same content gives the same bytes.

    Splits are written in `SPLITS` order. Pictures that exist are copied to `out/images` unless they are already there;
    `copy_images=False` writes labels alone. Sets counts, tasks and digest, which in `dataset.info` may be stale.
    """
    splits = {name: dataset.splits[name] for name in SPLITS if name in dataset.splits}
    (out / "images").mkdir(parents=True, exist_ok=True)
    categories = [category.as_json() for category in dataset.info.categories]
    digest = hashlib.blake2b(digest_size=16)
    counts = {}
    for name, split in splits.items():
        write_coco_json(out / f"{name}.json", split.images, split.annotations, categories, split.header)
        digest.update(f"{name}.json {digest_file(out / f'{name}.json')}\n".encode())
        if split.proposals is not None:
            write_proposals(_proposals(out, name), split.proposals, split.images.ids_I)
            digest.update(f"{name} proposals {digest_file(_proposals(out, name))}\n".encode())
        missing = 0
        for row, file_name in enumerate(split.images.file_names):
            content = _place_picture(split.path(row), out / "images" / file_name, copy_images)
            missing += content is None
            digest.update(f"{file_name} {content}\n".encode())
        if split.maps is not None:
            known = split.annotations.ids_A.tolist()
            for line in write_maps(out, name, split.images, split.maps, known):
                digest.update(f"{line}\n".encode())
        counts[name] = {"images": len(split.images), "annotations": len(split.annotations), "missing": missing}
    info = replace(dataset.info, counts=counts, tasks=tasks_of(list(splits.values())), digest=digest.hexdigest())
    _write_info(out / "dataset.json", info)


def panoptic_categories(things: Sequence[Category], stuff: Sequence[Category]) -> list[dict[str, Any]]:
    """Things and stuff as COCO's panoptic format lists them."""
    listed = [category.as_json() | {"isthing": 1} for category in things]
    return listed + [category.as_json() | {"isthing": 0} for category in stuff]


def read_info(folder: Path) -> DatasetInfo:
    """What the dataset in `folder` says of itself, without reading its labels."""
    return _read_info(folder / "dataset.json")


def written_digest(folder: Path) -> str:
    """The content digest of the dataset in `folder`, without reading its labels."""
    return read_info(folder).digest


def tasks_of(splits: Sequence[Split]) -> tuple[str, ...]:
    """What the labels of `splits` can teach."""
    tables = [split.annotations for split in splits]
    has = {
        "box": any(np.isfinite(t.boxes_A4).all(axis=1).any() for t in tables),
        "mask": any(len(t.polygons.polygon_starts) > 1 or t.rle for t in tables),
        "keypoints": any(t.keypoints_AK3 is not None for t in tables),
        "semantic": any(split.maps is not None and split.maps.semantic is not None for split in splits),
        "panoptic": any(split.maps is not None and split.maps.panoptic is not None for split in splits),
        "densepose": any(t.dense is not None and t.dense.has().any() for t in tables),
    }
    return tuple(name for name, there in has.items() if there)


def labels_of(category_A: NDArray[np.int64], category_ids: Sequence[int]) -> NDArray[np.int64]:
    """Class 0..K-1 of each category id, -1 where it is not in `category_ids` (ascending)."""
    known = np.asarray(category_ids, np.int64)
    if not len(known):
        return np.full(len(category_A), -1, np.int64)
    place = np.minimum(np.searchsorted(known, category_A), len(known) - 1)
    return np.where(known[place] == category_A, place, -1)


def read_split(path: Path, name: str, category_ids: Sequence[int], folder: Path) -> Split:
    """A COCO file as a split with its own ids and file names, images in file-name order. Errors name file and position."""
    content = read_coco_json(path)
    images = image_table(content.images, path)
    annotations = annotation_table(content.annotations, images, path)
    annotations = replace(annotations, label_A=labels_of(annotations.category_A, category_ids))
    return Split(name, images, annotations, folder, content.header)


def parse_categories(records: object, place: object) -> tuple[Category, ...]:
    """COCO's categories, ascending by id. DataError for a wrong type, or for one id with two names."""
    if not isinstance(records, list):
        raise DataError(place, "categories: must be a list of {id, name}")
    found: dict[int, Category] = {}
    for number, record in enumerate(records):
        try:
            category = Category(
                record["id"],
                record["name"],
                record.get("supercategory") or "",
                tuple(record.get("keypoints") or ()),
                tuple((int(a), int(b)) for a, b in record.get("skeleton") or ()),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"{place}: categories[{number}]", f"not a category: {error!r}", "it needs an integer id and a name"
            ) from error
        if type(category.id) is not int or not 0 <= category.id < 2**63 or not isinstance(category.name, str):
            raise DataError(
                f"{place}: categories[{number}]",
                f"id {category.id!r}, name {category.name!r}: must be an integer from 0 and a text",
            )
        other = found.setdefault(category.id, category)
        if other.name != category.name:
            raise DataError(
                f"{place}: categories[{number}]", f"id {category.id} is {category.name!r} here and {other.name!r} before"
            )
    return tuple(found[i] for i in sorted(found))


def _read_split(folder: Path, name: str, info: DatasetInfo) -> Split:
    split = read_split(folder / f"{name}.json", name, [category.id for category in info.categories], folder / "images")
    if "semantic" in info.tasks or "panoptic" in info.tasks:
        panoptic, things_and_stuff = "panoptic" in info.tasks, panoptic_categories(info.categories, info.stuff)
        split.maps = read_maps(folder, name, split.images, info.semantic, panoptic, things_and_stuff)
    if _proposals(folder, name).is_file():
        split.proposals = read_proposals(_proposals(folder, name), split.images.ids_I)
    if split.annotations.dense is not None:
        split.annotations.dense.surface = info.surface
    return split


def _proposals(folder: Path, name: str) -> Path:
    return folder / "proposals" / f"{name}.npz"


def _read_info(path: Path) -> DatasetInfo:
    content = read_json(path)
    try:
        if not isinstance(content, dict) or content["version"] != VERSION:
            raise DataError(path, f"is not version {VERSION} of dataset.json", "ingest again")
        return DatasetInfo(
            categories=parse_categories(content["categories"], path),
            source=content["source"],
            splitting=content["splitting"],
            licence=content["licence"],
            tasks=tuple(content["tasks"]),
            counts=content["splits"],
            unlisted=tuple(content["unlisted"]),
            stated_classes=content.get("stated_classes"),
            digest=content["digest"],
            stuff=parse_categories(content.get("stuff", []), path),
            semantic=tuple(content.get("semantic", [])),
            surface=None if content.get("surface") is None else Surface.from_json(content["surface"]),
        )
    except (KeyError, TypeError) as error:
        raise DataError(path, f"field missing or of the wrong type: {error}", "ingest again") from error


def _write_info(path: Path, info: DatasetInfo) -> None:
    content = {
        "version": VERSION,
        "categories": [category.as_json() for category in info.categories],
        "classes": [category.name for category in info.categories],
        "source": info.source,
        "splitting": info.splitting,
        "licence": info.licence,
        "tasks": list(info.tasks),
        "splits": info.counts,
        "unlisted": list(info.unlisted),
        "digest": info.digest,
    }
    if info.stated_classes is not None:
        content["stated_classes"] = info.stated_classes
    if info.stuff:
        content["stuff"] = [category.as_json() for category in info.stuff]
    if info.semantic:
        content["semantic"] = list(info.semantic)
    if info.surface is not None:
        content["surface"] = info.surface.as_json()
    write_json(path, content)


def _place_picture(source: Path, target: Path, copy: bool) -> str | None:
    """Digest of the picture at `source`, copied to `target`; None when it is not a readable file."""
    try:
        if copy and source != target and source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        return digest_file(source) if source.is_file() else None
    except OSError as error:
        raise DataError(source, f"cannot be read or copied: {error.strerror}") from error
