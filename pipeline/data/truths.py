"""What a picture's labels teach, and how it moves with the picture: all geometry of labels in one place. No torch."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.annotations import PolygonPool, Rows
from pipeline.data.dataset import Split
from pipeline.data.dense import DenseTruths
from pipeline.data.keypoints import keypoints_of
from pipeline.data.masks import outlines
from pipeline.data.rotated import mirrored, rotated_boxes, stretched
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
    semantic_HW: NDArray[np.uint8] | None = None
    """Class of each pixel; 255 teaches nothing. Of the whole picture, whatever objects are taken."""
    rotated_G5: NDArray[np.float32] | None = None
    """Rotated boxes (cx, cy, w, h, degrees counter-clockwise). A crop moves them without clipping; what is dropped is decided by
    the upright boxes."""
    proposals_P4: NDArray[np.float32] | None = None
    """Proposals of the picture by falling score, not one per object. A crop clips them; those left without area stay, empty."""
    keypoints_GK3: NDArray[np.float32] | None = None
    """(x, y, visibility 0 not labelled, 1 hidden, 2 seen); x and y are 0 where the visibility is."""
    mirror_GK: NDArray[np.int64] | None = None
    """The keypoint that each becomes in a mirror, -1 for none of the class's."""
    dense: DenseTruths | None = None
    """Dense pose labels."""

    @classmethod
    def read(
        cls,
        split: Split,
        row: int,
        tasks: Collection[Task],
        proposals: bool = False,
        mirrors_CK: NDArray[np.int64] | None = None,
    ) -> "Truths":
        """The labels of picture `row` that can be learnt from: of a known class, and no crowd; and maybe its proposals.

        `mirrors_CK` is `keypoints.mirror_table` of the dataset's classes, needed where keypoints are learnt.
        """
        annotations, rows = split.annotations, split.rows_of(row)
        learn_A = ~annotations.crowd_A[rows] & (annotations.label_A[rows] >= 0)
        boxes_G4 = annotations.boxes_A4[rows][learn_A].astype(np.float32).reshape(-1, 4)
        dense = None
        if "densepose" in tasks and annotations.dense is not None:
            place = f"{split.name}.json: {split.images.file_names[row]}"
            dense = DenseTruths.read(annotations.dense.take(rows).take(learn_A), boxes_G4, place)
        labels_G = annotations.label_A[rows][learn_A]
        keypoints = {} if "keypoints" not in tasks else _keypoints(keypoints_of(annotations, rows)[learn_A], labels_G, mirrors_CK)
        return cls(
            boxes_G4=boxes_G4,
            labels_G=labels_G,
            **keypoints,
            polygons=outlines(split, rows).take(learn_A) if "segm" in tasks else None,
            semantic_HW=split.maps.classes_of(row) if "semantic" in tasks and split.maps is not None else None,
            rotated_G5=rotated_boxes(split, rows)[learn_A].astype(np.float32) if "rotated" in tasks else None,
            proposals_P4=split.proposals.of(row) if proposals and split.proposals is not None else None,
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
            keypoints_GK3=None if self.keypoints_GK3 is None else self.keypoints_GK3[rows],
            mirror_GK=None if self.mirror_GK is None else self.mirror_GK[rows],
            rotated_G5=None if self.rotated_G5 is None else self.rotated_G5[rows],
            dense=None if self.dense is None else self.dense.take(rows),
        )

    def moved(self, scale: tuple[float, float], shift: tuple[float, float]) -> "Truths":
        """x and y scaled by positive factors, then shifted by pixels. A map is scaled with the whole picture, not shifted."""
        four = np.array([*scale, *scale], np.float32), np.array([*shift, *shift], np.float32)
        return replace(
            self,
            boxes_G4=self.boxes_G4 * four[0] + four[1],
            proposals_P4=None if self.proposals_P4 is None else self.proposals_P4 * four[0] + four[1],
            polygons=_moved(self.polygons, scale, shift),
            keypoints_GK3=_moved_points(self.keypoints_GK3, scale, shift),
            semantic_HW=None if self.semantic_HW is None else _resized(self.semantic_HW, scale),
            rotated_G5=None if self.rotated_G5 is None else stretched(self.rotated_G5, scale) + _centre(shift),
            dense=None if self.dense is None else self.dense.moved(scale, shift),
        )

    def flipped(self, width: float) -> "Truths":
        """Mirrored left to right in a picture of `width` pixels."""
        return replace(
            self,
            boxes_G4=_mirrored(self.boxes_G4, width),
            proposals_P4=None if self.proposals_P4 is None else _mirrored(self.proposals_P4, width),
            polygons=_moved(self.polygons, (-1, 1), (width, 0)),
            keypoints_GK3=_swapped(_moved_points(self.keypoints_GK3, (-1, 1), (width, 0)), self.mirror_GK),
            semantic_HW=None if self.semantic_HW is None else self.semantic_HW[:, ::-1],
            rotated_G5=None if self.rotated_G5 is None else mirrored(self.rotated_G5, width),
            dense=None if self.dense is None else self.dense.flipped(width),
        )

    def cropped(self, left: int, top: int, width: int, height: int) -> "Truths":
        """Within a window of the picture; boxes are clipped, and objects of which too little is left are dropped."""
        moved = self.moved((1, 1), (-left, -top))
        window = np.array([width, height, width, height], np.float32)
        boxes_G4 = np.clip(moved.boxes_G4, 0, window)
        proposals_P4 = None if moved.proposals_P4 is None else np.clip(moved.proposals_P4, 0, window)
        side_G2 = boxes_G4[:, 2:] - boxes_G4[:, :2]
        keep_G = (side_G2 >= LEAST_SIDE).all(axis=1) & (_area(boxes_G4) >= LEAST_SHARE * _area(self.boxes_G4))
        points_GK3 = None if moved.keypoints_GK3 is None else _within(moved.keypoints_GK3, width, height)
        window_HW = None if self.semantic_HW is None else self.semantic_HW[top : top + height, left : left + width]
        return replace(moved, boxes_G4=boxes_G4, proposals_P4=proposals_P4, semantic_HW=window_HW, keypoints_GK3=points_GK3).take(
            keep_G
        )


def _keypoints(
    points_GK3: NDArray[np.float32], labels_G: NDArray[np.int64], mirrors_CK: NDArray[np.int64] | None
) -> dict[str, NDArray[Any]]:
    """The fields of keypoints, as wide as the class with most of them whatever this picture's labels hold."""
    if mirrors_CK is None:
        raise ValueError("keypoints are learnt with the table of their mirrors")
    wide_GK3 = np.zeros((len(points_GK3), mirrors_CK.shape[1], 3), np.float32)
    wide_GK3[:, : points_GK3.shape[1]] = points_GK3
    return {"keypoints_GK3": wide_GK3, "mirror_GK": mirrors_CK[labels_G]}


def _moved_points(
    points_GK3: NDArray[np.float32] | None, scale: tuple[float, float], shift: tuple[float, float]
) -> NDArray[np.float32] | None:
    if points_GK3 is None:
        return None
    moved_GK3 = points_GK3 * np.array([*scale, 1], np.float32) + np.array([*shift, 0], np.float32)
    return np.where(points_GK3[..., 2:] > 0, moved_GK3, np.float32(0))


def _swapped(points_GK3: NDArray[np.float32] | None, mirror_GK: NDArray[np.int64] | None) -> NDArray[np.float32] | None:
    """Each keypoint under the name that it has in a mirror; one without such a name is not labelled any more."""
    if points_GK3 is None or mirror_GK is None:
        return points_GK3
    swapped_GK3 = np.take_along_axis(points_GK3, np.maximum(mirror_GK, 0)[..., None], axis=1)
    return np.where(mirror_GK[..., None] >= 0, swapped_GK3, np.float32(0))


def _within(points_GK3: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Without the keypoints that lie outside the window."""
    x_GK, y_GK = points_GK3[..., 0], points_GK3[..., 1]
    inside_GK = (x_GK >= 0) & (x_GK <= width) & (y_GK >= 0) & (y_GK <= height)
    return np.where(inside_GK[..., None], points_GK3, np.float32(0))


def _moved(polygons: PolygonPool | None, scale: tuple[float, float], shift: tuple[float, float]) -> PolygonPool | None:
    return None if polygons is None else replace(polygons, points_P2=polygons.points_P2 * scale + shift)


def _resized(map_HW: NDArray[np.uint8], scale: tuple[float, float]) -> NDArray[np.uint8]:
    """The nearest pixel's value, as Pillow's nearest filter takes it (the reference's for maps)."""
    if scale == (1, 1):
        return map_HW
    width, height = round(map_HW.shape[1] * scale[0]), round(map_HW.shape[0] * scale[1])
    return np.asarray(Image.fromarray(np.ascontiguousarray(map_HW)).resize((width, height), Image.Resampling.NEAREST))


def _centre(shift: tuple[float, float]) -> NDArray[np.float32]:
    return np.array([*shift, 0, 0, 0], np.float32)


def _mirrored(boxes_M4: NDArray[np.float32], width: float) -> NDArray[np.float32]:
    x1, y1, x2, y2 = boxes_M4.T
    return np.stack([np.float32(width) - x2, y1, np.float32(width) - x1, y2], axis=1)


def _area(boxes_G4: NDArray[np.float32]) -> NDArray[np.float32]:
    area_G: NDArray[np.float32] = (boxes_G4[:, 2] - boxes_G4[:, 0]) * (boxes_G4[:, 3] - boxes_G4[:, 1])
    return area_G
