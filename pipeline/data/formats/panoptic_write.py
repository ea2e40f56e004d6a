"""Pictures as COCO panoptic: the maps that there are, else the objects' masks painted over each other in their order."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from pipeline.data.annotations import ImageTable
from pipeline.data.dataset import Category, Split, panoptic_categories
from pipeline.data.formats.painting import painted
from pipeline.data.formats.pixel_masks import cropped
from pipeline.data.formats.things import Export, Losses, Picture
from pipeline.data.maps import Segments, coco_panoptic, map_name
from pipeline.errors import DataError
from pipeline.files import write_atomically
from pipeline.predict.map_files import encode_segments


def write_panoptic(splits: dict[str, Split], stuff: tuple[Category, ...], data: Export, out: Path) -> None:
    """annotations/panoptic_<split>.json, a folder of that name with a PNG per labelled picture, and images/."""
    categories = panoptic_categories(data.categories, stuff)
    for name, pictures in data.splits.items():
        split = splits[name]
        stem = "panoptic" if name == "all" else f"panoptic_{name}"
        folder = out / "annotations" / stem
        folder.mkdir(parents=True)
        kept = _copied(split, pictures, folder, data.losses) if has_segments(split) else _painted(data, pictures, folder)
        images = replace(
            split.images,
            file_names=[picture.name for picture in pictures],
            widths_I=np.array([picture.width for picture in pictures], np.int32),
            heights_I=np.array([picture.height for picture in pictures], np.int32),
        )
        content = split.header | _json(images, kept, categories, [picture.labelled for picture in pictures])
        write_atomically(out / "annotations" / f"{stem}.json", orjson.dumps(content, option=orjson.OPT_SORT_KEYS))
        for picture in pictures:
            picture.copy_to(out / "images" / picture.name)


def has_segments(split: Split) -> bool:
    """Whether the split has panoptic maps."""
    return split.maps is not None and split.maps.segments is not None


def _json(images: ImageTable, segments: Segments, categories: list[dict[str, Any]], labelled: list[bool]) -> dict[str, Any]:
    """The label file; pictures that nobody labelled have no entry in `annotations`."""
    content = coco_panoptic(images, [map_name(name) for name in images.file_names], segments, categories)
    listed = zip(content["annotations"], labelled, strict=True)
    extra = [
        {key: value for key, value in images.extra.get(row, {}).items() if key != "unlabelled"} for row in range(len(images))
    ]
    return content | {
        "annotations": [entry for entry, there in listed if there],
        "images": [more | image for more, image in zip(extra, content["images"], strict=True)],
    }


def _place(folder: Path, picture: Picture, data: bytes) -> None:
    path = folder / map_name(picture.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _copied(split: Split, pictures: list[Picture], folder: Path, losses: Losses) -> Segments:
    """The split's own maps and segments."""
    assert split.maps is not None and split.maps.segments is not None
    segments = split.maps.segments
    for row, picture in enumerate(pictures):
        files = split.maps.files_of(row)
        if "panoptic" in files:
            _place(folder, picture, files["panoptic"])
        elif picture.labelled:
            losses.add("panoptic maps", "are not in the source; their segments are listed")
    known = set(segments.annotation_S.tolist())
    losses.add("labels", "without a segment of the map are left out", int((~np.isin(split.annotations.ids_A, list(known))).sum()))
    return replace(segments, annotation_S=np.zeros_like(segments.annotation_S))


def _painted(data: Export, pictures: list[Picture], folder: Path) -> Segments:
    rows = []
    for row, picture in enumerate(pictures):
        if not picture.labelled:
            continue
        if min(picture.width, picture.height) < 1:
            raise DataError(picture.path, "has no known size: its map cannot be drawn", "add the picture to the source")
        numbers_HW, lost = painted(picture.things, picture.width, picture.height, picture.path)
        for number, thing in enumerate(picture.things, 1):
            mask_HW = numbers_HW == number
            if mask_HW.any():
                left, top, own = cropped(mask_HW)
                box = [left, top, own.shape[1], own.shape[0]]
                rows.append((row, number, data.categories[thing.label].id, 0, thing.ignored, int(own.sum()), box))
        for why, count in lost.items():
            data.losses.add("objects", why, count)
        _place(folder, picture, encode_segments(numbers_HW))
    return Segments.of(rows)
