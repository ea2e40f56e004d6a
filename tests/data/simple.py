"""A dataset small enough to know by heart, for tests that need some pictures with labels and care little which."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.data.annotations import Annotations, ImageTable, PolygonPool
from pipeline.data.dataset import Category, Dataset, DatasetInfo, Split, open_dataset, write_dataset


def simple_dataset(folder: Path, pictures: int = 6, side: int = 64, seed: int = 0) -> Dataset:
    """`pictures` pictures in train and as many in val, each with two coloured rectangles of classes "red" and "blue" on noise.

    The last annotation of every third picture is a crowd. Read back from `folder`, as a stage would.
    """
    chance = np.random.default_rng(seed)
    categories = (Category(id=1, name="red"), Category(id=4, name="blue"))
    splits = {name: _split(name, folder / "made" / name, pictures, side, chance, categories) for name in ("train", "val")}
    info = DatasetInfo(categories=categories, source="simple", splitting="made so")
    write_dataset(folder / "dataset", Dataset(info, splits))
    return open_dataset(folder / "dataset")


def _split(
    name: str, folder: Path, pictures: int, side: int, chance: np.random.Generator, categories: tuple[Category, ...]
) -> Split:
    folder.mkdir(parents=True)
    names = [f"{name}_{place}.png" for place in range(pictures)]
    boxes, labels = [], []
    for file_name in names:
        pixels_HW3 = chance.integers(90, 140, (side, side, 3), dtype=np.uint8)
        for label in range(2):
            w, h = chance.integers(side // 5, side // 3, 2).tolist()
            x, y = int(chance.integers(0, side - w)), int(chance.integers(0, side - h))
            pixels_HW3[y : y + h, x : x + w] = (230, 30, 30) if label == 0 else (30, 30, 230)
            boxes.append((x, y, x + w, y + h))
            labels.append(label)
        Image.fromarray(pixels_HW3).save(folder / file_name)
    count = len(labels)
    sizes = np.full(pictures, side, np.int32)
    boxes_A4, labels_A = np.array(boxes, np.float64), np.array(labels, np.int64)
    annotations = replace(
        Annotations.empty(),
        ids_A=np.arange(1, count + 1, dtype=np.int64),
        image_A=np.repeat(np.arange(pictures, dtype=np.int32), 2),
        category_A=np.array([categories[label].id for label in labels], np.int64),
        label_A=labels_A,
        boxes_A4=boxes_A4,
        area_A=np.prod(boxes_A4[:, 2:] - boxes_A4[:, :2], axis=1),
        crowd_A=np.arange(count) % 6 == 5,
        source_ids=[None] * count,
        polygons=PolygonPool.empty(count),
    )
    return Split(name, ImageTable(np.arange(1, pictures + 1), names, sizes, sizes, {}), annotations, folder)
