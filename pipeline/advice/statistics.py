"""What the advice is drawn from: sizes of pictures and truths of a validated dataset. numpy only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Dataset, Split
from pipeline.data.keypoints import mirror_table, pictures_with_keypoints
from pipeline.errors import DataError
from pipeline.tasks import Task


@dataclass(frozen=True, slots=True)
class Statistics:
    """The training split's pictures that teach the task: I pictures, A truths that are no crowds."""

    sizes_I2: NDArray[np.float64]
    """(height, width) in pixels."""
    boxes_A4: NDArray[np.float64]
    image_A: NDArray[np.int64]
    classes: int
    keypoints: int = 0
    """Most keypoints that a class names."""
    parts: int = 0
    """Parts of the surface of dense poses."""
    mirrored: bool = True
    """The labels say what they become in a mirrored picture."""

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


def teaching(split: Split, task: Task) -> Split:
    """The pictures of known size that training looks at for this task: with keypoints where these are learnt, else all."""
    sized = np.flatnonzero((split.images.heights_I > 0) & (split.images.widths_I > 0))
    split = split.take_images(sized)
    return split.take_images(pictures_with_keypoints(split, 1)) if task == "keypoints" else split


def statistics_of(dataset: Dataset, task: Task, place: object) -> Statistics:
    """Of the training split; DataError when it has no picture with a size, or no truth with area where objects are learnt."""
    split = teaching(dataset.split("train"), task)
    if not len(split.images):
        raise DataError(place, "the train split has no picture of known size", "run: python -m pipeline validate")
    sizes_I2 = np.stack([split.images.heights_I, split.images.widths_I], axis=1).astype(np.float64)
    truths = split.annotations
    area_A4 = truths.boxes_A4[:, 2:] - truths.boxes_A4[:, :2]
    usable_A = (area_A4 > 0).all(axis=1) & ~truths.crowd_A & (truths.image_A >= 0) & (truths.label_A >= 0)
    if not usable_A.any() and task != "semantic":
        raise DataError(place, "the train split has no object with area", "ingest a dataset with objects first")
    surface = dataset.info.surface
    return Statistics(
        sizes_I2,
        truths.boxes_A4[usable_A],
        truths.image_A[usable_A].astype(np.int64),
        len(dataset.classes),
        keypoints=mirror_table(dataset.info.categories).shape[1],
        parts=0 if surface is None else len(surface.parts),
        mirrored=task != "densepose" or (surface is not None and surface.mirror is not None),
    )
