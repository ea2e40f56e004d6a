"""What a detector found over pictures, as columns, and one picture's raw results in that form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.predict.dense import DensePose, dense_pose
from pipeline.predict.keypoints import decode_keypoints, to_picture_points
from pipeline.predict.map_files import encode_classes, encode_segments
from pipeline.predict.panoptic import Merging, merged, semantic_map
from pipeline.predict.postprocess import DENSE, RawDetections, Rle, encode_mask, paste_mask, to_picture
from pipeline.predict.rotated import enclosing, rotated_to_picture

HALF = 0.5
"""COCO's keypoints are indices of pixels, whose centres lie half a pixel further."""
OF_PICTURES = ("count", "semantic")
"""Raw results with one entry per picture; all others have one per detection."""


@dataclass(frozen=True, slots=True)
class SegmentMap:
    """The panoptic map of a picture."""

    png: bytes
    """Segment numbers, from 1."""
    category_ids: tuple[int, ...]
    """Category of segment 1, 2, ..."""


@dataclass(slots=True)
class Predictions:
    """Detections over pictures, one row each (D in all), picture by picture in falling score order.

    Every field is an array or a list with a row per detection, or a dict by image id; those with a default are None where the
    detector has no such head.
    """

    image_ids_D: NDArray[np.int64]
    boxes_D4: NDArray[np.float64]
    """(x1, y1, x2, y2) in pixels of the stored picture."""
    scores_D: NDArray[np.float64]
    category_ids_D: NDArray[np.int64]
    masks_D: list[Rle] | None = None
    """Masks of the stored pictures as run lengths; None where the detector finds boxes alone."""
    keypoints_DK3: NDArray[np.float32] | None = None
    """(x, y, score) in continuous pixels of the stored picture; a class's own keypoints come first. None without keypoints."""
    semantic: dict[int, bytes] | None = None
    """By image id: PNG of the picture's semantic classes. Encoded, as all of a split's maps would not fit."""
    panoptic: dict[int, SegmentMap] | None = None
    """By image id."""
    rotated_D5: NDArray[np.float64] | None = None
    """(cx, cy, w, h, degrees) in pixels of the stored picture, where the detector finds rotated boxes; `boxes_D4` are then the
    upright boxes around them."""
    dense_D: list[DensePose] | None = None
    """Dense poses in the stored pictures; None where the detector finds none."""

    def __len__(self) -> int:
        return len(self.scores_D)

    def of(self, image_id: int) -> "Predictions":
        """The rows of one picture."""
        return self.take(np.flatnonzero(self.image_ids_D == image_id))

    def take(self, rows: NDArray[Any]) -> "Predictions":
        """The rows at these places (or where a boolean mask is True), in that order, and the maps of all pictures."""
        places = np.arange(len(self))[rows]
        return Predictions(**{f.name: _rows(getattr(self, f.name), places) for f in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """All rows of `parts`, one after the other."""
        if not parts:
            return cls(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
        return cls(**{f.name: _joined([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def to_coco(self, keypoints: Mapping[int, int] | None = None) -> list[dict[str, Any]]:
        """COCO's results format: [{image_id, category_id, bbox [x, y, w, h], score}], unrounded so that it measures the same.

        `keypoints` is the number of them by category id: each row then has its class's own (x, y, score) in COCO's pixel indices.

        Where there are masks each has a segmentation; to measure masks by pycocotools drop bbox first, or its area counts.
        """
        xywh_D4 = np.concatenate([self.boxes_D4[:, :2], self.boxes_D4[:, 2:] - self.boxes_D4[:, :2]], axis=1)
        columns = (column.tolist() for column in (self.image_ids_D, self.category_ids_D, xywh_D4, self.scores_D))
        rows = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in zip(*columns, strict=True)]
        for row, rle in zip(rows, self.masks_D or (), strict=False):
            row["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        if self.rotated_D5 is not None:
            for row, box in zip(rows, self.rotated_D5.tolist(), strict=True):
                row["rbox"] = box
        if keypoints is not None and self.keypoints_DK3 is not None:
            for row, points_K3 in zip(rows, self.keypoints_DK3 - np.array([HALF, HALF, 0], np.float32), strict=True):
                row["keypoints"] = points_K3[: keypoints.get(row["category_id"], 0)].reshape(-1).tolist()
        return rows


def picture_of(raw: RawDetections, place: int) -> dict[str, NDArray[Any]]:
    """One picture's share of a batch, its padded detections dropped."""
    count = int(raw["count"][place]) if "count" in raw else 0
    return {
        name: values[place] if name in OF_PICTURES else values[place, :count]  # type: ignore[index]
        for name, values in raw.items()
    }


def found_in(
    raw: dict[str, NDArray[Any]],
    image_id: int,
    categories: NDArray[np.int64],
    size: tuple[int, int],
    out_size: tuple[int, int],
    stride: int = 0,
    merging: Merging | None = None,
) -> Predictions:
    """One picture's results in its own frame; class `k` becomes category `categories[k]`.

    `size` is (height, width) of the picture inside the network's input, `out_size` its own, `stride` that of semantic logits;
    `merging` says how panoptic maps are made, where there are any.
    """
    maps = maps_in(raw, image_id, categories, size, out_size, stride, merging)
    if "scores" not in raw:
        return Predictions(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), **maps)
    if "rotated" in raw:
        rotated_D5, kept_D = rotated_to_picture(raw["rotated"], size, out_size)
        boxes_D4: NDArray[Any] = enclosing(rotated_D5)
    else:
        boxes_D4, kept_D = to_picture(raw["boxes"], size, out_size)
    masks_D: list[Rle] | None = None
    if "masks" in raw:  # encoded picture by picture: all of a split's bitmaps would not fit
        pairs = zip(raw["masks"][kept_D], boxes_D4, strict=True)
        masks_D = [encode_mask(paste_mask(mask_MM, box_4, *out_size)) for mask_MM, box_4 in pairs]
    dense_D: list[DensePose] | None = None
    if DENSE[0] in raw:
        grids = zip(*(raw[name][kept_D] for name in DENSE), boxes_D4, strict=True)
        dense_D = [dense_pose(*of_one) for of_one in grids]
    return Predictions(
        image_ids_D=np.full(len(kept_D), image_id, np.int64),
        boxes_D4=boxes_D4.astype(np.float64),
        scores_D=raw["scores"][kept_D].astype(np.float64),
        category_ids_D=categories[raw["labels"][kept_D]],
        masks_D=masks_D,
        keypoints_DK3=keypoints_in(raw, size, out_size, kept_D),
        **maps,
        rotated_D5=rotated_D5.astype(np.float64) if "rotated" in raw else None,
        dense_D=dense_D,
    )


def keypoints_in(
    raw: dict[str, NDArray[Any]], size: tuple[int, int], out_size: tuple[int, int], kept_D: NDArray[np.int64]
) -> NDArray[np.float32] | None:
    """Keypoints of the detections `kept` of one picture, in its own frame."""
    if "heatmaps" not in raw:
        return None
    return to_picture_points(decode_keypoints(raw["heatmaps"][kept_D], raw["boxes"][kept_D]), size, out_size)


def maps_in(
    raw: dict[str, NDArray[Any]],
    image_id: int,
    categories: NDArray[np.int64],
    size: tuple[int, int],
    out_size: tuple[int, int],
    stride: int,
    merging: Merging | None,
) -> dict[str, Any]:
    """The columns of Predictions that hold maps of one picture."""
    if "semantic" not in raw:
        return {}
    classes_HW = semantic_map(raw["semantic"], stride, size, out_size)
    maps: dict[str, Any] = {"semantic": {image_id: encode_classes(classes_HW)}}
    if merging is not None:
        boxes_D4, kept_D = to_picture(raw["boxes"], size, out_size)
        scores_D, labels_D = raw["scores"][kept_D], raw["labels"][kept_D]
        found = merged(raw["masks"][kept_D], boxes_D4, scores_D, labels_D, classes_HW, merging)
        owners = [int(categories[one.label]) if one.thing else merging.stuff_ids[one.label - 1] for one in found.listed]
        maps["panoptic"] = {image_id: SegmentMap(encode_segments(found.ids_HW), tuple(owners))}
    return maps


def _rows(values: Any, places: NDArray[np.int64]) -> Any:
    if values is None or isinstance(values, dict):
        return values
    return values[places] if isinstance(values, np.ndarray) else [values[place] for place in places.tolist()]


def _joined(values: Sequence[Any]) -> Any:
    """The column of all parts; None when a part has none."""
    if any(value is None for value in values):
        return None
    if isinstance(values[0], dict):
        return {key: value for part in values for key, value in part.items()}
    return np.concatenate(values) if isinstance(values[0], np.ndarray) else [row for part in values for row in part]
