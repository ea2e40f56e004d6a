"""The labels that a detector is measured against, as columns."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipeline.data.annotations import ImageTable
from pipeline.data.dataset import Split
from pipeline.data.dense import DensePool
from pipeline.data.maps import SplitMaps
from pipeline.data.masks import require_masks, run_lengths
from pipeline.data.rotated import require_rotated, rotated_boxes
from pipeline.errors import DataError
from pipeline.predict.postprocess import Rle
from pipeline.tasks import BOXES, Task

Floats = NDArray[np.float64]


class CategoryLike(Protocol):
    """What evaluation needs of a class."""

    @property
    def id(self) -> int:
        """Category id in the labels."""

    @property
    def name(self) -> str:
        """Name for people."""


@dataclass(frozen=True, slots=True)
class AnyObject:
    """The one class of detectors that tell no classes apart."""

    id: int = 1
    name: str = "object"


OBJECT = AnyObject()


def found_categories(categories: Sequence[CategoryLike], tasks: Collection[Task]) -> Sequence[CategoryLike]:
    """The classes that a detector of these tasks gives out, ascending by id: of proposals the one class `object`."""
    return [OBJECT] if "proposals" in tasks else sorted(categories, key=lambda category: category.id)


@dataclass(slots=True)
class Truth:
    """The labels to measure against: A objects on I pictures, K classes in ascending category id."""

    image_ids_I: NDArray[np.int64]
    """All pictures, those without a label too: a detection there counts as false."""
    image_ids_A: NDArray[np.int64]
    category_ids_A: NDArray[np.int64]
    boxes_A4: Floats
    """(x1, y1, x2, y2) in pixels."""
    area_A: Floats
    """Decides between small, medium and large; the label's own (for COCO the mask's), else the box's."""
    crowd_A: NDArray[np.bool_]
    """Counts neither as found nor as missed, and may match any number of detections."""
    category_ids_K: NDArray[np.int64]
    names: tuple[str, ...]
    tasks: tuple[Task, ...] = BOXES
    """What is measured; the fields below hold what the tasks need."""
    masks_A: list[Rle] | None = None
    """Masks of the stored pictures; None where none are measured."""
    images: ImageTable | None = None
    """The pictures, where maps are measured."""
    maps: SplitMaps | None = None
    """Semantic and panoptic maps, where they are measured: read picture by picture."""
    rotated_A5: Floats | None = None
    """Rotated boxes (cx, cy, w, h, degrees); None where none are measured."""
    keypoints_AK3: NDArray[np.float32] | None = None
    """(x, y, visibility) as COCO writes them, in pixel indices, zero where not labelled; None where none are measured."""
    keypoint_names: tuple[tuple[str, ...], ...] = ()
    """Of each class, in label order, where keypoints are measured."""
    skeletons: tuple[tuple[tuple[int, int], ...], ...] = ()
    """Pairs of each class's keypoints to join when drawing, counted from 0."""
    keypoint_sigma: float = math.nan
    """Spread of a keypoint, as a share of its object's scale, where no published ones hold."""
    dense_A: DensePool | None = None
    """Dense pose labels; None where none are measured."""

    @classmethod
    def of(
        cls,
        split: Split,
        categories: Sequence[CategoryLike],
        tasks: Collection[Task] = BOXES,
        keypoint_sigma: float | None = None,
    ) -> "Truth":
        """The labels of `split` that evaluation can use: on one of its pictures, of a known class, with a finite box.

        A label marked `ignore` (VOC's difficult objects) is taken as crowd. Where masks are measured every label has
        its own; of a crowd without one its box counts as such. DataError when two pictures share an id, or a mask is missing or
        broken.
        """
        ids, counts = np.unique(split.images.ids_I, return_counts=True)
        if (counts > 1).any():
            raise DataError(
                split.name, f"image id {ids[counts > 1][0]} stands for several pictures", "run: python -m pipeline validate"
            )
        table = split.annotations
        ordered = sorted(categories, key=lambda category: category.id)
        known_A = np.isin(table.category_A, [category.id for category in ordered])
        rows = np.flatnonzero((table.image_A >= 0) & known_A & np.isfinite(table.boxes_A4).all(axis=1))
        boxes_A4 = table.boxes_A4[rows].astype(np.float64)
        found = found_categories(categories, tasks)
        class_free = "proposals" in tasks
        ignored_A = np.array([bool(table.extra.get(row, {}).get("ignore", 0)) for row in rows.tolist()], bool)
        stated_A = table.area_A[rows].astype(np.float64)
        return cls(
            image_ids_I=split.images.ids_I.astype(np.int64),
            image_ids_A=split.images.ids_I[table.image_A[rows]].astype(np.int64),
            category_ids_A=np.full(len(rows), OBJECT.id) if class_free else table.category_A[rows].astype(np.int64),
            boxes_A4=boxes_A4,
            area_A=np.where(np.isfinite(stated_A), stated_A, _area(boxes_A4)),
            crowd_A=table.crowd_A[rows] | ignored_A,
            category_ids_K=np.array([category.id for category in found], np.int64),
            names=tuple(category.name for category in found),
            tasks=tuple(tasks),
            masks_A=_masks(split, rows) if "segm" in tasks else None,
            images=split.images if "semantic" in tasks else None,
            maps=split.maps if "semantic" in tasks else None,
            rotated_A5=_rotated(split, rows) if "rotated" in tasks else None,
            **(_keypoints(split, rows, found, keypoint_sigma) if "keypoints" in tasks else {}),
            dense_A=table.dense.take(rows) if "densepose" in tasks and table.dense is not None else None,
        )

    def keypoint_counts(self) -> dict[int, int] | None:
        """Keypoints of each class by category id; None where none are measured."""
        if self.keypoints_AK3 is None:
            return None
        return dict(zip(self.category_ids_K.tolist(), map(len, self.keypoint_names), strict=True))


def _masks(split: Split, rows: NDArray[np.int64]) -> list[Rle]:
    """Run lengths of the annotations `rows`."""
    require_masks(split, split.name)
    table, images = split.annotations, split.images
    found: list[Rle] = []
    for row in rows.tolist():
        height, width = int(images.heights_I[table.image_A[row]]), int(images.widths_I[table.image_A[row]])
        if row in table.rle:
            found.append(_packed(table.rle[row], f"{split.name}.json: annotation {table.ids_A[row]}", (height, width)))
            continue
        polygons = [polygon for polygon in table.polygons.polygons_of(row) if len(polygon) >= 3]
        x1, y1, x2, y2 = table.boxes_A4[row].tolist()
        outlines = [polygon.reshape(-1).tolist() for polygon in polygons] or [[x1, y1, x2, y1, x2, y2, x1, y2]]
        found.append(coco_mask.merge(coco_mask.frPyObjects(outlines, height, width)))
    return found


def _keypoints(split: Split, rows: NDArray[np.int64], categories: Sequence[CategoryLike], sigma: float | None) -> dict[str, Any]:
    """The fields of Truth that hold keypoints of the annotations `rows`."""
    if sigma is None:
        raise ValueError("keypoints are measured with a spread: give keypoint_sigma")
    given_AK3 = split.annotations.keypoints_AK3
    taken_AK3 = np.zeros((len(rows), 0, 3), np.float32) if given_AK3 is None else given_AK3[rows]
    labelled_AK1 = (taken_AK3[..., 2:] > 0) & np.isfinite(taken_AK3).all(axis=-1, keepdims=True)
    names = tuple(tuple(getattr(category, "keypoints", ())) for category in categories)
    most = max(map(len, names), default=0)
    wide_AK3 = np.zeros((len(rows), max(most, taken_AK3.shape[1]), 3), np.float32)
    wide_AK3[:, : taken_AK3.shape[1]] = np.where(labelled_AK1, taken_AK3, 0)
    pairs = [getattr(category, "skeleton", ()) for category in categories]
    skeletons = tuple(tuple((a - 1, b - 1) for a, b in own) for own in pairs)
    return {"keypoints_AK3": wide_AK3, "keypoint_names": names, "skeletons": skeletons, "keypoint_sigma": sigma}


def _rotated(split: Split, rows: NDArray[np.int64]) -> Floats:
    """Rotated boxes of the annotations `rows`; a crowd without one counts by its upright box."""
    require_rotated(split, split.name)
    x1, y1, x2, y2 = split.annotations.boxes_A4[rows].astype(np.float64).T
    upright_A5 = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, np.zeros_like(x1)], axis=1)
    rotated_A5 = rotated_boxes(split, rows)
    return np.where(np.isfinite(rotated_A5).all(axis=1, keepdims=True), rotated_A5, upright_A5)


def _packed(rle: dict[str, Any], place: str, picture: tuple[int, int]) -> Rle:
    height, width, counts = run_lengths(rle, place, picture if min(picture) > 0 else None)
    packed: Rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    return packed


def _area(boxes_A4: Floats) -> Floats:
    return (boxes_A4[:, 2] - boxes_A4[:, 0]) * (boxes_A4[:, 3] - boxes_A4[:, 1])
