"""Instance masks as PNG files: a folder of masks per picture, or one PNG of object numbers per picture.

Known layouts: Kaggle's Data Science Bowl 2018 (`<id>/images/<id>.png` and `<id>/masks/*.png`, an object each), and pairs of
folders whose files have equal stems, maybe with `_mask` behind (`PNGImages/` and `PedMasks/`, `images/` and `masks/`): each
number, or colour, other than 0 is an object. There are no classes: all are "object".
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pipeline.data.config import MasksDataset
from pipeline.data.formats.labelled import Labelled, Record, assemble
from pipeline.data.formats.pixel_masks import decode_numbers, mask_fields
from pipeline.data.sources import SourceData, SourceFiles, list_files
from pipeline.errors import DataError

ONE_CLASS = "object"
MOST = 10_000
"""Objects of one picture: a PNG with more numbers is a photo or a depth map, not instance masks."""


@dataclass(slots=True)
class MaskedPicture:
    """A picture and the PNG files of its objects."""

    picture: PurePosixPath
    masks: list[PurePosixPath]
    numbered: bool
    """One file in which each number is an object, not a file per object."""


def read_masks(cfg: MasksDataset, source: Path) -> SourceData:
    """All splits of a source of mask pictures. DataError names the mask that cannot be read."""
    files = list_files(source)
    found = find_masks(files)
    if not found:
        raise DataError(files.folder, "has no masks", "PNG files in a folder whose name has `mask` or `instance` in it")
    used = {mask for one in found for mask in one.masks}
    entries = []
    for one in found:
        entry = Labelled(one.picture, one.masks[0])
        for mask in one.masks:
            entry.objects += _objects(files, mask, one.numbered, entry)
        entries.append(entry)
    pictures = [picture for picture in files.pictures if picture not in used and not _is_mask_folder(picture.parent.name)]
    return assemble(files, entries, pictures=pictures, used=used)


def find_masks(files: SourceFiles) -> list[MaskedPicture]:
    """Pictures with their masks, by the names of folders and files; nothing is opened."""
    masks = [path for path in files.with_suffix(".png") if _is_mask_folder(path.parent.name)]
    pictures = [path for path in files.pictures if not _is_mask_folder(path.parent.name)]
    by_stem: dict[str, list[PurePosixPath]] = {}
    in_folder: dict[PurePosixPath, list[PurePosixPath]] = {}
    for picture in pictures:
        by_stem.setdefault(picture.stem, []).append(picture)
        in_folder.setdefault(picture.parent, []).append(picture)
    found: dict[PurePosixPath, MaskedPicture] = {}
    for mask in masks:
        alone = in_folder.get(mask.parent.parent / "images", [])
        if len(alone) == 1 and alone[0].stem == mask.parent.parent.name:
            found.setdefault(alone[0], MaskedPicture(alone[0], [], numbered=False)).masks.append(mask)
            continue
        stem = re.sub(r"[_-](mask|masks|instance|instances|instanceIds)$", "", mask.stem)
        same = by_stem.get(mask.stem) or by_stem.get(stem) or []
        if same:
            picture = max(same, key=lambda path: _shared(path, mask))
            found.setdefault(picture, MaskedPicture(picture, [mask], numbered=True))
    return list(found.values())


def _is_mask_folder(name: str) -> bool:
    return "mask" in name.lower() or "instance" in name.lower()


def _shared(picture: PurePosixPath, mask: PurePosixPath) -> int:
    return len({*picture.parents} & {*mask.parents})


def _objects(files: SourceFiles, path: PurePosixPath, numbered: bool, entry: Labelled) -> list[Record]:
    place = files.folder / path
    try:
        numbers = decode_numbers(place.read_bytes(), place)
    except OSError as error:
        raise DataError(place, f"cannot be read: {error.strerror}") from error
    entry.height, entry.width = numbers.shape
    if not numbered:
        return [{"class": ONE_CLASS, "mask_file": path.name} | mask_fields(numbers > 0, 0, 0, *numbers.shape)]
    there = [int(number) for number in np.unique(numbers) if number]
    if len(there) > MOST:
        raise DataError(place, f"has {len(there)} different numbers: no instance masks", "choose the format by dataset=FORMAT")
    return [{"class": ONE_CLASS} | mask_fields(numbers == number, 0, 0, *numbers.shape) for number in there]
