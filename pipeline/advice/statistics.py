"""What the advice is drawn from: sizes of pictures and truths of a validated dataset. numpy only."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Dataset
from pipeline.data.needs import require_labels
from pipeline.errors import DataError
from pipeline.tasks import Task


@dataclass(frozen=True, slots=True)
class Statistics:
    """The training split: I pictures, A truths that are no crowds."""

    sizes_I2: NDArray[np.float64]
    """(height, width) in pixels."""
    boxes_A4: NDArray[np.float64]
    image_A: NDArray[np.int64]
    classes: int
    semantic_classes: int

    @property
    def sides_A(self) -> NDArray[np.float64]:
        """Square root of each truth's area, in pixels."""
        return np.asarray(np.sqrt(np.prod(self.boxes_A4[:, 2:] - self.boxes_A4[:, :2], axis=1)))

    @property
    def short_side(self) -> float:
        """Median shorter side of the pictures, in pixels."""
        return float(np.median(self.sizes_I2.min(axis=1)))

    @property
    def most_objects(self) -> int:
        """Most truths of one picture."""
        return int(np.bincount(self.image_A, minlength=1).max())

    def scales_I(self, short_side: int, long_side: int) -> NDArray[np.float64]:
        """How much each picture is enlarged on its way into a network of that input size."""
        return np.asarray(np.minimum(short_side / self.sizes_I2.min(axis=1), long_side / self.sizes_I2.max(axis=1)))


def statistics_of(dataset: Dataset, place: Path, task: Task) -> Statistics:
    """Of the training split; DataError when it lacks what `task` learns from, or truths with area where it is objects."""
    require_labels(dataset, "train", [task], place)
    split = dataset.split("train")
    sizes_I2 = np.stack([split.images.heights_I, split.images.widths_I], axis=1).astype(np.float64)
    truths = split.annotations
    area_A4 = truths.boxes_A4[:, 2:] - truths.boxes_A4[:, :2]
    usable_A = (area_A4 > 0).all(axis=1) & ~truths.crowd_A & (truths.image_A >= 0)
    usable_A &= (sizes_I2[truths.image_A] > 0).all(axis=1)
    if not usable_A.any() and task != "semantic":
        raise DataError(place, "the train split has no object with area", "ingest a dataset with objects first")
    rows_A = truths.image_A[usable_A].astype(np.int64)
    return Statistics(sizes_I2, truths.boxes_A4[usable_A], rows_A, max(1, len(dataset.classes)), len(dataset.info.semantic))
