"""Keypoints of labels: from COCO's pixel indices to continuous coordinates, and what a mirror makes of them. numpy only."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations
from pipeline.data.dataset import Category, Dataset, Split
from pipeline.errors import DataError

HALF = np.float32(0.5)
"""COCO's keypoints are indices of pixels, whose centres lie half a pixel further."""
SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
"""Words of a keypoint's name that a mirror changes."""


def mirrored(names: Sequence[str]) -> tuple[int, ...]:
    """For each keypoint the one that it becomes in a mirror: the same name with left for right.

    A name without a side stays itself. -1 marks one whose other side has no name here: mirrored it is none of these keypoints.
    """
    place = {name: number for number, name in enumerate(names)}
    return tuple(place.get(_other_side(name), -1) for name in names)


def mirror_table(categories: Sequence[Category]) -> NDArray[np.int64]:
    """`mirrored` of every class [C, K] in label order, K the most keypoints of a class; -1 beyond a class's own."""
    most = max((len(category.keypoints) for category in categories), default=0)
    table_CK = np.full((len(categories), most), -1, np.int64)
    for row, category in zip(table_CK, categories, strict=True):
        row[: len(category.keypoints)] = mirrored(category.keypoints)
    return table_CK


def continuous(keypoints_AK3: NDArray[np.float32]) -> NDArray[np.float32]:
    """Labels' keypoints (x, y, visibility) in continuous pixels; zero where nothing is labelled."""
    labelled_AK1 = (keypoints_AK3[..., 2:] > 0) & np.isfinite(keypoints_AK3).all(axis=-1, keepdims=True)
    moved_AK3 = keypoints_AK3 + np.array([HALF, HALF, 0], np.float32)
    return np.where(labelled_AK1, moved_AK3, np.float32(0)).astype(np.float32)


def keypoints_of(annotations: Annotations, rows: slice) -> NDArray[np.float32]:
    """Continuous keypoints [A, K, 3] of the annotations in `rows`; K is the split's."""
    if annotations.keypoints_AK3 is None:
        return np.zeros((len(annotations.label_A[rows]), 0, 3), np.float32)
    return continuous(annotations.keypoints_AK3[rows])


def most_keypoints(split: Split) -> int:
    """Keypoints of the label that has most."""
    column = split.annotations.keypoints_AK3
    return 0 if column is None else column.shape[1]


def pictures_with_keypoints(split: Split, least: int) -> NDArray[np.int64]:
    """Rows of the pictures on which at least so many keypoints are labelled; crowds teach none."""
    table = split.annotations
    visible_I = np.zeros(len(split.images), np.int64)
    if table.keypoints_AK3 is not None:
        learnt_A = (table.image_A >= 0) & ~table.crowd_A & (table.label_A >= 0)
        visible_A = (continuous(table.keypoints_AK3)[..., 2] > 0).sum(axis=1)
        np.add.at(visible_I, table.image_A[learnt_A], visible_A[learnt_A])
    return np.flatnonzero(visible_I >= least)


def require_keypoints(split: Split, dataset: Dataset, place: object) -> None:
    """DataError unless a class names keypoints and a label of the split has one."""
    boxes = "train a detector of boxes, such as model=faster_rcnn_r50_fpn"
    if not any(category.keypoints for category in dataset.info.categories):
        raise DataError(
            place, "no class names keypoints: nothing to learn keypoints from", f"add `keypoints` to a class, or {boxes}"
        )
    if not len(pictures_with_keypoints(split, 1)):
        raise DataError(place, f"no label of the split {split.name} has keypoints", f"label some, or {boxes}")
    most = max(len(category.keypoints) for category in dataset.info.categories)
    if most_keypoints(split) > most:
        wrong = f"a label of the split {split.name} has {most_keypoints(split)} keypoints, no class names more than {most}"
        raise DataError(place, wrong, "name all keypoints of the class, or take the others out of the labels")


def _other_side(name: str) -> str:
    """The name with each word that is a side replaced by the other side, in its own capitals."""

    def swapped(match: re.Match[str]) -> str:
        word = match.group()
        other = SIDES.get(word.lower(), word)
        if word.isupper():
            return other.upper()
        return other.capitalize() if word[0].isupper() else other

    return re.sub(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", swapped, name)
