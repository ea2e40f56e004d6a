"""Any source as another format: labels and pictures written into a folder, and what that folder does not hold."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pipeline.data.annotations import ImageTable
from pipeline.data.dataset import Split
from pipeline.data.formats import kitti, labelme_write, voc_write
from pipeline.data.formats.catalogue import FORMATS
from pipeline.data.formats.coco_write import write_coco_json
from pipeline.data.formats.csv_boxes import write_csv
from pipeline.data.formats.cvat_write import write_cvat
from pipeline.data.formats.datumaro import write_datumaro
from pipeline.data.formats.panoptic_write import has_segments, write_panoptic
from pipeline.data.formats.things import Export, Losses, copy_picture, export
from pipeline.data.formats.yolo_write import write_yolo
from pipeline.data.sources import SourceData, with_safe_names
from pipeline.errors import DataError
from pipeline.files import write_json


@dataclass(frozen=True, slots=True)
class Writer:
    """How a target is written."""

    write: Callable[[Export, Path], None]
    flat: bool
    """Its pictures lie in one folder."""
    extra: frozenset[str] | None = frozenset()
    """Extra fields of objects that it holds; None: all that are texts, numbers or yes/no."""
    lists_classes: bool = False
    """It names its classes somewhere; else they are those of its objects."""
    keeps_records: bool = False
    """It holds all fields of classes, pictures and the file, as COCO does."""


WRITERS: dict[str, Writer] = {
    "csv": Writer(write_csv, flat=False),
    "cvat": Writer(write_cvat, flat=False, extra=None, lists_classes=True),
    "datumaro": Writer(write_datumaro, flat=False, extra=None, lists_classes=True),
    "kitti": Writer(kitti.write_kitti, flat=True, extra=kitti.EXTRA),
    "labelme": Writer(labelme_write.write_labelme, flat=False, extra=labelme_write.EXTRA),
    "panoptic": Writer(partial(write_panoptic, {}, ()), flat=False, lists_classes=True, keeps_records=True),
    "voc": Writer(voc_write.write_voc, flat=True, extra=voc_write.EXTRA),
    **{
        name: Writer(partial(write_yolo, name), flat=False, lists_classes=True)
        for name in ("yolo", "yolo-polygons", "yolo-pose", "yolo-oriented")
    },
}
"""By target; COCO goes its own way, since it holds everything."""


def write_source(kind: str, found: SourceData, out: Path) -> list[str]:
    """Write what a reader found as the target `kind` into the empty folder `out`; a line for each kind of content that is lost.

    Splits are kept; a trainval split beside train or val is left out, since it is both together, and is train without them.
    """
    losses = Losses()
    filled = {name: split for name, split in found.splits.items() if len(split.images)}
    splits = with_safe_names(_without_trainval(filled, losses))
    if not splits:
        raise DataError("source", "has no pictures")
    for line in found.unlisted:
        folder, _, count = line.rpartition(": ")
        losses.add("files of the source", f"are not read, or of no split: {folder}", int(count))
    for split in splits.values():
        _count_beside(split, losses, kept=kind == "panoptic" and has_segments(split))
    if kind == "coco":
        _write_coco(found, splits, out, losses)
        return losses.lines()
    writer, target = WRITERS[kind], FORMATS[kind]
    if kind == "panoptic":
        writer = replace(writer, write=partial(write_panoptic, splits, found.stuff))
    _count_fields(found, splits, writer, losses)
    assert target.writes is not None
    exported = export(found.categories, splits, target.writes, writer.flat, losses)
    writer.write(exported, out)
    return losses.lines()


def _write_coco(found: SourceData, splits: dict[str, Split], out: Path, losses: Losses) -> None:
    (out / "annotations").mkdir(parents=True)
    categories = [category.as_json() for category in found.categories]
    for name, split in splits.items():
        file = "instances.json" if name == "all" else f"instances_{name}.json"
        numbered = split.annotations.renumbered()
        images = _write_captions(split, out / "annotations" / file.replace("instances", "captions"))
        write_coco_json(out / "annotations" / file, images, numbered, categories, split.header)
        for row, picture in enumerate(split.images.file_names):
            there = copy_picture(split.path(row), out / "images" / picture)
            losses.add("pictures", "not in the source; their labels are written", int(not there))


def _write_captions(split: Split, path: Path) -> ImageTable:
    """The pictures' captions as COCO has them, in a file beside the labels; the images without them."""
    told = {row: extra["captions"] for row, extra in split.images.extra.items() if _are_texts(extra.get("captions"))}
    if not told:
        return split.images
    pairs = [(int(split.images.ids_I[row]), text) for row, texts in sorted(told.items()) for text in texts]
    records = [{"id": number, "image_id": image, "caption": text} for number, (image, text) in enumerate(pairs, 1)]
    extra = {row: dict(fields) for row, fields in split.images.extra.items()}
    for row in told:
        del extra[row]["captions"]
    images = replace(split.images, extra={row: fields for row, fields in extra.items() if fields})
    listed = [{"id": int(identity), "file_name": name} for identity, name in zip(images.ids_I, images.file_names, strict=True)]
    write_json(path, {**split.header, "images": listed, "annotations": records})
    return images


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(text, str) for text in value)


def _without_trainval(splits: dict[str, Split], losses: Losses) -> dict[str, Split]:
    whole = splits.pop("trainval", None)
    if whole is None:
        return splits
    if "train" in splits or "val" in splits:
        losses.add("splits", "trainval is left out: its pictures are those of train and val")
        return splits
    return {"train": replace(whole, name="train"), **splits}


def _count_beside(split: Split, losses: Losses, kept: bool) -> None:
    """What no target takes; maps where they are not `kept`."""
    if split.maps is not None and not kept:
        losses.add("semantic or panoptic maps", "cannot be kept", len(split.images))
    if split.proposals is not None:
        losses.add("sets of proposals", "cannot be kept")


def _count_fields(found: SourceData, splits: dict[str, Split], writer: Writer, losses: Losses) -> None:
    """Fields of classes, pictures and objects that only COCO holds."""
    labelled = {int(label) for split in splits.values() for label in split.annotations.label_A}
    if not writer.lists_classes:
        unused = [category.name for place, category in enumerate(found.categories) if place not in labelled]
        losses.add("classes", f"without objects are not named: {', '.join(unused[:5])}", len(unused))
    if not writer.keeps_records:
        losses.add("supercategories", "cannot be kept", sum(bool(category.supercategory) for category in found.categories))
    for split in splits.values():
        for extra in split.images.extra.values() if not writer.keeps_records else ():
            for name in extra.keys() - {"unlabelled"}:
                losses.add(f"fields {name!r} of pictures", "cannot be kept")
        for extra in split.annotations.extra.values():
            for name, value in extra.items():
                kept = name in writer.extra if writer.extra is not None else isinstance(value, str | int | float | bool)
                if not kept and name != "ignore":
                    losses.add(f"fields {name!r} of objects", "cannot be kept")
        if split.annotations.dense is not None:
            losses.add("dense poses", "cannot be kept", int(split.annotations.dense.has().sum()))
        if not writer.keeps_records:
            losses.add("fields of the COCO file", f"cannot be kept: {', '.join(sorted(split.header))}", len(split.header))
