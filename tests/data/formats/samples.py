"""A source with every kind of label, as a reader would give it, and what two sources have in common."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.data.dataset import Category, Split, labels_of
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.sources import SourceData

WIDTH, HEIGHT = 60, 40
CLASSES = (
    Category(1, "cat", keypoints=("nose", "left ear", "right ear")),
    Category(2, "dog, large", supercategory="animal"),
)
POLYGON = [10.25, 5.5, 30.5, 6.0, 28.75, 20.25, 12.0, 18.5]
PART = [40.0, 30.0, 50.0, 30.0, 45.0, 38.0]
BOX = {"bbox": [3.25, 4.5, 20.5, 10.25], "area": 210.125}
CORNERS = {"bbox": [10.25, 5.5, 20.25, 14.75], "area": 250.0}
RECORDS: dict[str, dict[str, Any]] = {
    "box": BOX,
    "polygon": {"segmentation": [POLYGON], **CORNERS},
    "parts": {"segmentation": [POLYGON, PART], "bbox": [10.25, 5.5, 39.75, 32.5], "area": 290.0},
    "rle": {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [85, 10, 30, 10, 2265]}, "bbox": [2, 5, 2, 10], "area": 20},
    "keypoints": {**BOX, "keypoints": [5, 6, 2, 10, 8, 1, 0, 0, 0], "num_keypoints": 2},
    "rotated": {"rbox": [30.0, 20.0, 16.0, 8.0, 30.0], "bbox": [21.0718, 12.5359, 17.8564, 14.9282], "area": 128.0},
    "crowd": {**BOX, "iscrowd": 1},
}
"""One annotation of each kind; the crowd and the box are alike, so that a lost mark shows."""


def source(folder: Path, *kinds: str, splits: tuple[str, ...] = ("train", "val")) -> SourceData:
    """Three pictures a split: the first with an object of each kind, of both classes in turn; the second without objects; the
    third unlabelled."""
    made = {}
    for split in splits:
        (folder / split / "deep").mkdir(parents=True)
        names = [f"{split}/deep/{split} a.png", f"{split}/b é.png", f"{split}/c.png"]
        for place, name in enumerate(names):
            Image.fromarray(np.full((HEIGHT, WIDTH, 3), 40 * place + len(split), np.uint8)).save(folder / name)
        images = [{"id": 7 + i, "file_name": name, "width": WIDTH, "height": HEIGHT} for i, name in enumerate(names)]
        images[2]["unlabelled"] = 1
        first = kinds.index("keypoints") if "keypoints" in kinds else 0
        objects = [
            {"id": i + 1, "image_id": 7, "category_id": 1 + (i - first) % 2} | RECORDS[kind] for i, kind in enumerate(kinds)
        ]
        table = image_table(images, "made")
        columns = annotation_table(objects, table, "made")
        columns = replace(columns, label_A=labels_of(columns.category_A, [1, 2]))
        made[split] = Split(split, table, columns, folder, {}, [folder / name for name in table.file_names])
    return SourceData(CLASSES, made, ())


Objects = list[tuple[Any, ...]]


def content(found: SourceData, digits: int = 6, name: Callable[[str], str] = lambda name: Path(name).stem) -> dict[str, Any]:
    """Splits, pictures by `name`, and their objects as sorted tuples: class, box, polygons, run lengths, keypoints by name,
    rotated box, crowd."""
    result: dict[str, Any] = {}
    for key, split in found.splits.items():
        table = split.annotations
        for row, file_name in enumerate(split.images.file_names):
            rows = split.rows_of(row)
            objects = [_object(split, one, found.categories, digits) for one in range(rows.start, rows.stop)]
            unlabelled = bool(split.images.extra.get(row, {}).get("unlabelled"))
            size = Image.open(split.path(row)).size
            result[f"{key}: {name(file_name)}"] = (unlabelled, size, sorted(objects, key=repr))
        assert (table.image_A >= 0).all()
    return result


def _object(split: Split, row: int, categories: tuple[Category, ...], digits: int) -> tuple[Any, ...]:
    table = split.annotations

    def rounded(values: Any) -> Any:
        return (np.round(np.asarray(values, np.float64), digits) + 0.0).tolist()

    category = categories[int(table.label_A[row])]
    points: dict[str, Any] = {}
    if table.keypoints_AK3 is not None and np.isfinite(table.keypoints_AK3[row]).all():
        points = dict(zip(category.keypoints, rounded(table.keypoints_AK3[row]), strict=False))
        points = {name: point for name, point in points.items() if point[2]}
    rotated = None if table.rotated_A5 is None or np.isnan(table.rotated_A5[row]).any() else rounded(table.rotated_A5[row])
    return (
        category.name,
        rounded(table.boxes_A4[row]),
        [rounded(polygon) for polygon in table.polygons.polygons_of(row)],
        table.rle.get(row),
        sorted(points.items()),
        rotated,
        bool(table.crowd_A[row]) or bool(table.extra.get(row, {}).get("ignore")),
    )
