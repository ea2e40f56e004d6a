"""The reader of each format, and which one a source needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.data.config import AutoDataset, FormatDataset, SourceDataset
from pipeline.data.dataset import open_dataset
from pipeline.data.formats.cityscapes import read_cityscapes
from pipeline.data.formats.coco import read_coco
from pipeline.data.formats.csv_boxes import read_csv
from pipeline.data.formats.cvat import read_cvat
from pipeline.data.formats.datumaro import read_datumaro
from pipeline.data.formats.detect import detect
from pipeline.data.formats.kitti import read_kitti
from pipeline.data.formats.labelme import read_labelme
from pipeline.data.formats.mask_folders import read_masks
from pipeline.data.formats.openimages import read_openimages
from pipeline.data.formats.panoptic import read_panoptic
from pipeline.data.formats.supervisely import read_supervisely
from pipeline.data.formats.voc import read_voc
from pipeline.data.formats.yolo import read_yolo
from pipeline.data.sources import SourceData

READERS: dict[str, Callable[[Any, Path], SourceData]] = {
    "coco": read_coco,
    "voc": read_voc,
    "yolo": read_yolo,
    "csv": read_csv,
    "labelme": read_labelme,
    "cvat": read_cvat,
    "kitti": read_kitti,
    "openimages": read_openimages,
    "datumaro": read_datumaro,
    "supervisely": read_supervisely,
    "cityscapes": read_cityscapes,
    "masks": read_masks,
    "panoptic": read_panoptic,
}
"""By the `kind` of the settings that they take."""


def resolved(cfg: SourceDataset, source: Path) -> tuple[FormatDataset, str]:
    """The settings of the format to read, and the evidence for it in words where `dataset=auto` asks for that; else "".

    DataError when the content shows no format, or several equally.
    """
    if not isinstance(cfg, AutoDataset):
        return cfg, ""
    evidence = detect(source)
    return cfg.as_format(evidence.kind), f"dataset=auto: {evidence.kind}: {evidence.text}"


def read_ingested(folder: Path) -> SourceData:
    """What `ingest` or `validate` wrote, with its maps and proposals, as if a reader had found it."""
    dataset = open_dataset(folder)
    for split in dataset.splits.values():
        split.sources = [split.path(row) for row in range(len(split.images))]
    info = dataset.info
    return SourceData(info.categories, dataset.splits, (), stuff=info.stuff, semantic=info.semantic)


def read_format(cfg: FormatDataset, source: Path) -> SourceData:
    """What the reader of the format finds in an opened source. DataError names file and position."""
    return READERS[cfg.kind](cfg, source)
