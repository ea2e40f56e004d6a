"""Semantic and panoptic maps of a split: PNG files below `semantic/` and `panoptic/`, and the panoptic segments as columns.

On disk: `semantic/<picture>.png` has a class per pixel (dataset.json's `semantic` lists their names, 255 = ignored),
`panoptic/<picture>.png` a segment number per pixel (0 = none), and `panoptic_<split>.json` says in COCO's panoptic format what
each segment is; a segment of a labelled object names it by `annotation_id`. Other tools read both as they are.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.data.annotations import ImageTable, Rows, row_indices
from pipeline.errors import DataError
from pipeline.files import digest_bytes, write_atomically
from pipeline.predict.map_files import decode_classes, decode_segments, encode_classes, encode_segments

IGNORED = 255
"""Semantic class of pixels that teach nothing and count nowhere."""
THINGS = "things"
"""Name of semantic class 0 where the maps stand for panoptic stuff: all objects."""


@dataclass(slots=True)
class Segments:
    """S panoptic segments of a split, sorted by image row."""

    image_S: NDArray[np.int32]
    """Row in the ImageTable."""
    number_S: NDArray[np.int64]
    """In the picture's map, from 1."""
    category_S: NDArray[np.int64]
    annotation_S: NDArray[np.int64]
    """Id of the label that says the same of this object; 0 = none."""
    crowd_S: NDArray[np.bool_]
    area_S: NDArray[np.int64]
    """Pixels."""
    boxes_S4: NDArray[np.int64]
    """(x, y, width, height) of the pixels, COCO's form."""

    def __len__(self) -> int:
        return len(self.number_S)

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int, int, bool, int, list[int]]]) -> "Segments":
        """From (image row, number, category, annotation, crowd, area, box) in any order."""
        listed = sorted(rows, key=lambda row: row[:2])
        whole = np.array([row[1:4] for row in listed], np.int64).reshape(-1, 3)
        return cls(
            image_S=np.array([row[0] for row in listed], np.int32),
            number_S=whole[:, 0],
            category_S=whole[:, 1],
            annotation_S=whole[:, 2],
            crowd_S=np.array([row[4] for row in listed], np.bool_),
            area_S=np.array([row[5] for row in listed], np.int64),
            boxes_S4=np.array([row[6] for row in listed], np.int64).reshape(-1, 4),
        )

    def take(self, rows: Rows) -> "Segments":
        """The segments of `rows`, in that order."""
        index = row_indices(rows, len(self))
        return Segments(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def rows_of(self, image: int) -> slice:
        """The segments of image row `image`."""
        first, last = np.searchsorted(self.image_S, [image, image + 1])
        return slice(int(first), int(last))


@dataclass(slots=True)
class SplitMaps:
    """Where a split's maps are."""

    names: list[str]
    """Per image row: file name below the folders."""
    semantic: Path | None
    """Folder of the semantic maps; None without any."""
    class_names: tuple[str, ...]
    """Of the semantic classes."""
    panoptic: Path | None
    segments: Segments | None
    """Of the panoptic maps; None without any."""
    categories: list[dict[str, Any]]
    """Things and stuff of the panoptic maps, as COCO lists them: id, name, isthing."""
    made: Callable[[str], dict[str, bytes]] | None = None
    """While ingesting: a picture's maps by its name here, as PNG bytes by "semantic" and "panoptic". None: they are files."""

    def take_images(self, rows: Rows) -> "SplitMaps":
        """The maps of the images `rows`, in that order."""
        index = row_indices(rows, len(self.names))
        segments = None
        if self.segments is not None:
            new_row = np.full(len(self.names), -1, np.int32)
            new_row[index] = np.arange(len(index))
            image_S = new_row[self.segments.image_S]
            kept = np.argsort(image_S, kind="stable")
            kept = kept[image_S[kept] >= 0]
            segments = replace(self.segments.take(kept), image_S=image_S[kept])
        return replace(self, names=[self.names[i] for i in index.tolist()], segments=segments)

    def files_of(self, row: int) -> dict[str, bytes]:
        """The maps of image `row` that there are, as PNG bytes by "semantic" and "panoptic"."""
        if self.made is not None:
            return self.made(self.names[row])
        folders = {"semantic": self.semantic, "panoptic": self.panoptic}
        paths = {kind: folder / self.names[row] for kind, folder in folders.items() if folder is not None}
        return {kind: path.read_bytes() for kind, path in paths.items() if path.is_file()}

    def classes_of(self, row: int) -> NDArray[np.uint8]:
        """The semantic map of image `row`. DataError when it is missing, or holds a class that there is not."""
        assert self.semantic is not None
        path = self.semantic / self.names[row]
        classes_HW = decode_classes(path)
        wrong = np.setdiff1d(np.unique(classes_HW), [*range(len(self.class_names)), IGNORED])
        if len(wrong):
            raise DataError(
                path, f"holds class {wrong[0]}; there are {len(self.class_names)}, from 0, and {IGNORED} for ignored pixels"
            )
        return classes_HW

    def segments_of(self, row: int) -> NDArray[np.int32]:
        """The segment numbers of image `row`."""
        assert self.panoptic is not None
        return decode_segments(self.panoptic / self.names[row])


def map_name(file_name: str) -> str:
    """Name of the maps of a picture."""
    return str(PurePosixPath(file_name).with_suffix(".png"))


def read_maps(
    folder: Path, split: str, images: ImageTable, class_names: tuple[str, ...], panoptic: bool, categories: list[dict[str, Any]]
) -> SplitMaps:
    """The maps of a dataset on disk; files are not opened but for the list of segments."""
    segments = read_segments(folder / f"panoptic_{split}.json", images) if panoptic else None
    return SplitMaps(
        names=[map_name(name) for name in images.file_names],
        semantic=folder / "semantic" if class_names else None,
        class_names=class_names,
        panoptic=folder / "panoptic" if panoptic else None,
        segments=segments,
        categories=categories,
    )


class _Segment(msgspec.Struct, gc=False):
    id: int
    category_id: int
    area: int
    bbox: list[int]
    iscrowd: int = 0
    annotation_id: int = 0


class _Picture(msgspec.Struct):
    image_id: int
    segments_info: msgspec.Raw


class _File(msgspec.Struct):
    annotations: list[_Picture]


def read_segments(path: Path, images: ImageTable) -> Segments:
    """The segments that a COCO panoptic file lists for `images`. DataError names the file and what is wrong in it."""
    row_of = {int(number): row for row, number in enumerate(images.ids_I.tolist())}
    try:
        pictures = msgspec.json.decode(path.read_bytes(), type=_File).annotations
        return Segments.of(
            (row_of[picture.image_id], s.id, s.category_id, s.annotation_id, bool(s.iscrowd), s.area, s.bbox)
            for picture in pictures
            for s in msgspec.json.decode(picture.segments_info, type=list[_Segment])
        )
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DataError(path, f"is not a list of panoptic segments: {error}") from error
    except KeyError as error:
        raise DataError(path, f"has segments of image {error}, which the split does not list") from error


def write_maps(out: Path, split: str, images: ImageTable, maps: SplitMaps, known: Collection[int]) -> list[str]:
    """Write the split's maps into the dataset folder `out`; lines for its digest.

    A segment of a label that is gone (an `annotation_id` not in `known`) goes too: its pixels belong to no segment, and teach no
    class. A map that is missing stays missing; `require_labels` says so when something needs it.
    """
    names = [map_name(name) for name in images.file_names]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(out / "semantic" / twice, "would be the map of two pictures", "name them apart, not by suffix alone")
    kept, segments = maps, maps.segments
    if segments is not None:
        gone_S = (segments.annotation_S > 0) & ~np.isin(segments.annotation_S, np.fromiter(known, np.int64, len(known)))
        kept = replace(maps, segments=segments.take(~gone_S))
    lines = []
    for row, name in enumerate(names):
        numbers: list[int] = []
        if segments is not None:
            own = segments.rows_of(row)
            numbers = segments.number_S[own][gone_S[own]].tolist()
        lines += _place_maps(out, maps, row, name, numbers)
    if kept.segments is not None:
        content = coco_panoptic(images, names, kept.segments, maps.categories)
        data = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        write_atomically(out / f"panoptic_{split}.json", data)
        lines.append(f"panoptic_{split}.json {digest_bytes(data)}")
    return lines


def coco_panoptic(images: ImageTable, names: list[str], segments: Segments, categories: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO's panoptic format."""
    listed = []
    for row, name in enumerate(names):
        own = segments.take(segments.rows_of(row))
        columns = (own.number_S, own.category_S, own.area_S, own.boxes_S4, own.crowd_S.astype(int), own.annotation_S)
        infos = [
            {"id": i, "category_id": c, "area": a, "bbox": b, "iscrowd": w} | ({"annotation_id": label} if label else {})
            for i, c, a, b, w, label in zip(*(column.tolist() for column in columns), strict=True)
        ]
        listed.append({"image_id": int(images.ids_I[row]), "file_name": name, "segments_info": infos})
    pictures = zip(images.ids_I.tolist(), images.file_names, images.widths_I.tolist(), images.heights_I.tolist(), strict=True)
    return {
        "images": [{"id": i, "file_name": name, "width": width, "height": height} for i, name, width, height in pictures],
        "annotations": listed,
        "categories": categories,
    }


def _place_maps(out: Path, maps: SplitMaps, row: int, name: str, gone: list[int]) -> list[str]:
    """Write both maps of one picture without the segments `gone`; lines for the digest."""
    written = maps.files_of(row)
    if gone and "panoptic" in written:
        ids_HW = decode_segments(written["panoptic"])
        gone_HW = np.isin(ids_HW, gone)
        written["panoptic"] = encode_segments(np.where(gone_HW, 0, ids_HW))
        if "semantic" in written:
            written["semantic"] = encode_classes(np.where(gone_HW, IGNORED, decode_classes(written["semantic"])).astype(np.uint8))
    for kind, data in written.items():
        path = out / kind / name
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return [f"{kind}/{name} {digest_bytes(data)}" for kind, data in written.items()]
