"""What a picture's labels teach, and how it moves with the picture: all geometry of labels in one place. numpy only."""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import PolygonPool, Rows
from pipeline.data.dataset import Split
from pipeline.data.dense import DenseTruths
from pipeline.data.masks import outlines
from pipeline.tasks import Task

LEAST_SIDE, LEAST_SHARE = 1.0, 0.25
"""A crop drops a box of which less is left: pixels of its shorter side, share of its area."""


@dataclass(frozen=True, slots=True)
class Truths:
    """G objects of one picture; the fields that a task does not need are None. Coordinates are continuous pixels."""

    boxes_G4: NDArray[np.float32]
    """(x1, y1, x2, y2)."""
    labels_G: NDArray[np.int64]
    polygons: PolygonPool | None = None
    """Outlines. A crop moves them without clipping: masks are rasterised within boxes."""

    dense: DenseTruths | None = None
    """Dense pose labels."""

    @classmethod
    def read(cls, split: Split, row: int, tasks: Collection[Task]) -> "Truths":
        """The labels of picture `row` that can be learnt from: of a known class, and no crowd."""
        annotations, rows = split.annotations, split.rows_of(row)
        learn_A = ~annotations.crowd_A[rows] & (annotations.label_A[rows] >= 0)
        boxes_G4 = annotations.boxes_A4[rows][learn_A].astype(np.float32).reshape(-1, 4)
        dense = None
        if "densepose" in tasks and annotations.dense is not None:
            place = f"{split.name}.json: {split.images.file_names[row]}"
            dense = DenseTruths.read(annotations.dense.take(rows).take(learn_A), boxes_G4, place)
        return cls(
            boxes_G4=boxes_G4,
            labels_G=annotations.label_A[rows][learn_A],
            polygons=outlines(split, rows).take(learn_A) if "segm" in tasks else None,
            dense=dense,
        )

    def __len__(self) -> int:
        return len(self.labels_G)

    def take(self, rows: Rows) -> "Truths":
        """The objects of `rows`, in that order."""
        return replace(
            self,
            boxes_G4=self.boxes_G4[rows],
            labels_G=self.labels_G[rows],
            polygons=None if self.polygons is None else self.polygons.take(rows),
            dense=None if self.dense is None else self.dense.take(rows),
        )

    def moved(self, scale: tuple[float, float], shift: tuple[float, float]) -> "Truths":
        """x and y scaled by positive factors, then shifted by pixels."""
        four = np.array([*scale, *scale], np.float32), np.array([*shift, *shift], np.float32)
        return replace(
            self,
            boxes_G4=self.boxes_G4 * four[0] + four[1],
            polygons=_moved(self.polygons, scale, shift),
            dense=None if self.dense is None else self.dense.moved(scale, shift),
        )

    def flipped(self, width: float) -> "Truths":
        """Mirrored left to right in a picture of `width` pixels."""
        x1, y1, x2, y2 = self.boxes_G4.T
        return replace(
            self,
            boxes_G4=np.stack([np.float32(width) - x2, y1, np.float32(width) - x1, y2], axis=1),
            polygons=_moved(self.polygons, (-1, 1), (width, 0)),
            dense=None if self.dense is None else self.dense.flipped(width),
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> "Truths":
        """Within a window of the picture; boxes are clipped, and objects of which too little is left are dropped."""
        moved = self.moved((1, 1), (-left, -top))
        boxes_G4 = np.clip(moved.boxes_G4, 0, np.array([width, height, width, height], np.float32))
        side_G2 = boxes_G4[:, 2:] - boxes_G4[:, :2]
        keep_G = (side_G2 >= LEAST_SIDE).all(axis=1) & (_area(boxes_G4) >= LEAST_SHARE * _area(self.boxes_G4))
        return replace(moved, boxes_G4=boxes_G4).take(keep_G)


def _moved(polygons: PolygonPool | None, scale: tuple[float, float], shift: tuple[float, float]) -> PolygonPool | None:
    return None if polygons is None else replace(polygons, points_P2=polygons.points_P2 * scale + shift)


def _area(boxes_G4: NDArray[np.float32]) -> NDArray[np.float32]:
    area_G: NDArray[np.float32] = (boxes_G4[:, 2] - boxes_G4[:, 0]) * (boxes_G4[:, 3] - boxes_G4[:, 1])
    return area_G
