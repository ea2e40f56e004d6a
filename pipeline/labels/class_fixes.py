"""What mends the list of classes: those of one name become one. Every table that names a class by its id follows."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Category, Dataset, Split, labels_of

LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
"""Fields of LVIS's pictures that list classes."""


def repeated(categories: Iterable[Category]) -> list[tuple[Category, Category]]:
    """The first class of each name, with every later one of the same name."""
    first: dict[str, Category] = {}
    return [(first[one.name], one) for one in categories if first.setdefault(one.name, one) is not one]


def can_unite(first: Category, other: Category) -> bool:
    """Whether labels of `other` mean the same as labels of `first`: their keypoints, if any, stand in the same order."""
    return first.keypoints == other.keypoints


def united(dataset: Dataset, target: dict[int, int]) -> Dataset:
    """The dataset with each class of an id in `target` gone, its labels given to the class of the id there."""
    info = dataset.info
    kept = tuple(category for category in info.categories if category.id not in target)
    stated = None if info.stated_classes is None else info.stated_classes - len(target)
    ids = [category.id for category in kept]
    splits = {name: _renamed(split, target, ids) for name, split in dataset.splits.items()}
    return replace(dataset, info=replace(info, categories=kept, stated_classes=stated), splits=splits)


def _renamed(split: Split, target: dict[int, int], ids: list[int]) -> Split:
    annotations, images, maps = split.annotations, split.images, split.maps
    category_A = _mapped(annotations.category_A, target)
    annotations = replace(annotations, category_A=category_A, label_A=labels_of(category_A, ids))
    images = replace(images, extra={row: _listed(extra, target) for row, extra in images.extra.items()})
    if maps is not None:
        segments = maps.segments
        if segments is not None:
            segments = replace(segments, category_S=_mapped(segments.category_S, target))
        maps = replace(maps, segments=segments, categories=[one for one in maps.categories if one["id"] not in target])
    return replace(split, annotations=annotations, images=images, maps=maps)


def _mapped(ids: NDArray[np.int64], target: dict[int, int]) -> NDArray[np.int64]:
    changed = ids.copy()
    for old, new in target.items():
        changed[ids == old] = new
    return changed


def _listed(extra: dict[str, Any], target: dict[int, int]) -> dict[str, Any]:
    """A picture's fields with its lists of classes renamed, each class once; what is no list of ids stays as it is."""
    found = {name: extra[name] for name in LISTS if isinstance(extra.get(name), list)}
    sound = {name: ids for name, ids in found.items() if all(isinstance(one, int) for one in ids)}
    return extra | {name: list(dict.fromkeys(target.get(one, one) for one in ids)) for name, ids in sound.items()}
