"""The real datasets that faults are planted in, as `ingest` would write them."""

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import yaml
from pycocotools import mask as coco
from pydantic import TypeAdapter

from benchmarks.faults.draft import Real
from pipeline.data.config import DatasetConfig, watched_by_dvc
from pipeline.data.dataset import Dataset, DatasetInfo, Split, panoptic_categories, parse_categories, read_split, write_dataset
from pipeline.data.maps import Segments, SplitMaps, map_name
from pipeline.predict.map_files import decode_segments
from pipeline.stages.ingest import read_source

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared/data"
BCCD = "bccd"
SETS = {
    BCCD: "BCCD: blood cells in Pascal VOC, boxes of 3 classes",
    "coco": "51 pictures of COCO 2017: boxes and masks of 80 classes",
    "people": "the same pictures with COCO's person keypoints",
    "panoptic": "53 pictures of COCO 2017 with panoptic maps; masks as run lengths",
}
"""By the name that tables use."""


def make(name: str, folder: Path, max_pixels: int) -> Real:
    """Write the dataset into the empty `folder`."""
    if name == BCCD:
        dataset = read_voc(DATA / "bccd_voc")
    elif name == "panoptic":
        dataset = panoptic(folder / "labels")
    else:
        chosen = {"annotations": "*person_keypoints*"} if name == "people" else {}
        dataset = ingested("coco", DATA / "coco_mini_by", **chosen)
    write_dataset(folder / "data", dataset)
    return Real(name, folder / "data", max_pixels)


def read_voc(source: Path) -> Dataset:
    """A VOC folder."""
    return ingested("voc", source)


def ingested(kind: str, source: Path, **chosen: Any) -> Dataset:
    """A source as the shipped settings of its format read it."""
    values = yaml.safe_load((ROOT / f"conf/dataset/{kind}.yaml").read_text()) | {"source": str(source)} | chosen
    values["watched"] = watched_by_dvc(values["source"])
    return read_source(TypeAdapter(DatasetConfig).validate_python(values), 0, source)


def panoptic(work: Path) -> Dataset:
    """The panoptic set; things are labels too, with their masks as run lengths, as `ingest` would give them."""
    root, splits = DATA / "coco128_by/panoptic_segmentation/annotations", {}
    work.mkdir(parents=True)
    for name in ("train", "val"):
        content = orjson.loads((root / f"panoptic_{name}2017.json").read_bytes())
        things = parse_categories([one for one in content["categories"] if one["isthing"]], name)
        stuff = parse_categories([one for one in content["categories"] if not one["isthing"]], name)
        splits[name] = _panoptic_split(name, content, root / f"panoptic_{name}2017", [one.id for one in things], work)
        splits[name].maps.categories = panoptic_categories(things, stuff)
    return Dataset(DatasetInfo(things, "coco128 panoptic", "as published", stuff=stuff), splits)


def _panoptic_split(name: str, content: dict[str, Any], maps: Path, things: list[int], work: Path) -> Split:
    labels, segments = [], []
    row_of = {image["id"]: row for row, image in enumerate(sorted(content["images"], key=lambda image: image["file_name"]))}
    for entry in content["annotations"]:
        ids_HW = decode_segments(maps / entry["file_name"])
        for segment in entry["segments_info"]:
            number, category, area, box = (segment[key] for key in ("id", "category_id", "area", "bbox"))
            label = 0
            if category in things:
                coded = coco.encode(np.asfortranarray(ids_HW == number))
                label = len(labels) + 1
                labels.append(
                    {"id": label, "image_id": entry["image_id"], "category_id": category, "bbox": box, "area": area}
                    | {"iscrowd": segment["iscrowd"]}
                    | {"segmentation": {"size": coded["size"], "counts": coded["counts"].decode()}}
                )
            segments.append((row_of[entry["image_id"]], number, category, label, bool(segment["iscrowd"]), area, box))
    path = work / f"{name}.json"
    path.write_bytes(orjson.dumps({"images": content["images"], "annotations": labels, "categories": []}))
    split = read_split(path, name, things, DATA / f"coco128_by/images/{name}2017")
    split.maps = SplitMaps([map_name(one) for one in split.images.file_names], None, (), maps, Segments.of(segments), [])
    return split
