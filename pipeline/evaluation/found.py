"""What a detector found over pictures, as columns, and one picture's raw results in that form."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.predict.dense import DensePose, dense_pose
from pipeline.predict.postprocess import DENSE, RawDetections, Rle, encode_mask, paste_mask, to_picture


@dataclass(slots=True)
class Predictions:
    """Detections over pictures, one row each (D in all), picture by picture in falling score order.

    Every field is an array or a list with a row per detection; those with a default are None where the detector has no such head.
    """

    image_ids_D: NDArray[np.int64]
    boxes_D4: NDArray[np.float64]
    """(x1, y1, x2, y2) in pixels of the stored picture."""
    scores_D: NDArray[np.float64]
    category_ids_D: NDArray[np.int64]
    masks_D: list[Rle] | None = None
    """Masks of the stored pictures as run lengths; None where the detector finds boxes alone."""
    dense_D: list[DensePose] | None = None
    """Dense poses in the stored pictures; None where the detector finds none."""

    def __len__(self) -> int:
        return len(self.scores_D)

    def of(self, image_id: int) -> "Predictions":
        """The rows of one picture."""
        return self.take(np.flatnonzero(self.image_ids_D == image_id))

    def take(self, rows: NDArray[Any]) -> "Predictions":
        """The rows at these places (or where a boolean mask is True), in that order."""
        places = np.arange(len(self))[rows]
        return Predictions(**{f.name: _rows(getattr(self, f.name), places) for f in fields(self)})

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """All rows of `parts`, one after the other."""
        if not parts:
            return cls(np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
        return cls(**{f.name: _joined([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def to_coco(self) -> list[dict[str, Any]]:
        """COCO's results format: [{image_id, category_id, bbox [x, y, w, h], score}], unrounded so that it measures the same.

        Where there are masks each has a segmentation; to measure masks by pycocotools drop bbox first, or its area counts.
        """
        xywh_D4 = np.concatenate([self.boxes_D4[:, :2], self.boxes_D4[:, 2:] - self.boxes_D4[:, :2]], axis=1)
        columns = (column.tolist() for column in (self.image_ids_D, self.category_ids_D, xywh_D4, self.scores_D))
        rows = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in zip(*columns, strict=True)]
        for row, rle in zip(rows, self.masks_D or (), strict=False):
            row["segmentation"] = {"size": rle["size"], "counts": rle["counts"].decode()}
        return rows


def picture_of(raw: RawDetections, place: int) -> dict[str, NDArray[Any]]:
    """One picture's share of a batch, its padded detections dropped."""
    count = int(raw["count"][place])
    return {name: values[place] if name == "count" else values[place, :count] for name, values in raw.items()}  # type: ignore[index]


def found_in(
    raw: dict[str, NDArray[Any]],
    image_id: int,
    categories: NDArray[np.int64],
    size: tuple[int, int],
    out_size: tuple[int, int],
) -> Predictions:
    """One picture's detections in its own frame; class `k` becomes category `categories[k]`.

    `size` is (height, width) of the picture inside the network's input, `out_size` its own.
    """
    boxes_D4, kept_D = to_picture(raw["boxes"], size, out_size)
    masks_D: list[Rle] | None = None
    if "masks" in raw:  # encoded picture by picture: all of a split's bitmaps would not fit
        pairs = zip(raw["masks"][kept_D], boxes_D4, strict=True)
        masks_D = [encode_mask(paste_mask(mask_MM, box_4, *out_size)) for mask_MM, box_4 in pairs]
    dense_D: list[DensePose] | None = None
    if DENSE[0] in raw:
        maps = zip(*(raw[name][kept_D] for name in DENSE), boxes_D4, strict=True)
        dense_D = [dense_pose(*of_one) for of_one in maps]
    return Predictions(
        image_ids_D=np.full(len(kept_D), image_id, np.int64),
        boxes_D4=boxes_D4.astype(np.float64),
        scores_D=raw["scores"][kept_D].astype(np.float64),
        category_ids_D=categories[raw["labels"][kept_D]],
        masks_D=masks_D,
        dense_D=dense_D,
    )


def _rows(values: Any, places: NDArray[np.int64]) -> Any:
    if values is None:
        return None
    return values[places] if isinstance(values, np.ndarray) else [values[place] for place in places.tolist()]


def _joined(values: Sequence[Any]) -> Any:
    """The column of all parts; None when a part has none."""
    if any(value is None for value in values):
        return None
    return np.concatenate(values) if isinstance(values[0], np.ndarray) else [row for part in values for row in part]
