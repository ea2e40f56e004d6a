"""The batch that a step is timed on: the dataset's own pictures, with all that the model's tasks learn from."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.advice.statistics import teaching
from pipeline.data.dataset import Dataset, Split
from pipeline.data.keypoints import mirror_table
from pipeline.data.loader import Sample, collate
from pipeline.data.truths import Truths
from pipeline.detector.config import ModelConfig, takes_proposals
from pipeline.errors import UserError
from pipeline.predict.preprocess import read_image
from pipeline.structures import Images, Targets
from pipeline.tasks import Task


@dataclass(frozen=True, slots=True)
class TimedPictures:
    """Training pictures, the fullest first: what they cost the others do not exceed by objects."""

    split: Split
    rows: NDArray[np.int64]
    mirrors_CK: NDArray[np.int64]
    """`keypoints.mirror_table` of the classes."""

    @classmethod
    def of(cls, dataset: Dataset, task: Task) -> "TimedPictures":
        """Those that teach `task`, by falling number of objects that teach it; ties in the dataset's order."""
        split = teaching(dataset.split("train"), task)
        table = split.annotations
        learnt_A = (table.image_A >= 0) & (table.label_A >= 0) & ~table.crowd_A
        if task == "densepose" and table.dense is not None:
            learnt_A &= table.dense.has()
        count_I = np.bincount(table.image_A[learnt_A], minlength=len(split.images))
        return cls(split, np.argsort(-count_I, kind="stable"), mirror_table(dataset.info.categories))

    def batch(self, cfg: ModelConfig, height: int, width: int, batch: int) -> tuple[Images, Targets]:
        """The first `batch` pictures, each resized to height x width and none padded. UserError names an unreadable one."""
        rows = np.resize(self.rows, batch).tolist()  # from the beginning again where there are fewer
        made = collate([self._sample(cfg, row, height, width) for row in rows], divisor=1)
        if isinstance(made, UserError):
            raise made
        return made.images, made.targets

    def _sample(self, cfg: ModelConfig, row: int, height: int, width: int) -> Sample:
        pixels_HW3 = read_image(self.split.path(row))
        truths = Truths.read(self.split, row, cfg.tasks, takes_proposals(cfg), self.mirrors_CK)
        truths = truths.moved((width / pixels_HW3.shape[1], height / pixels_HW3.shape[0]), (0, 0))
        if truths.semantic_HW is not None:
            truths = replace(truths, semantic_HW=_resized(truths.semantic_HW, height, width, Image.Resampling.NEAREST))
        resized_HW3 = _resized(pixels_HW3, height, width, Image.Resampling.BILINEAR)
        ordered = resized_HW3 if cfg.input.channels == "rgb" else resized_HW3[..., ::-1]
        return Sample(np.ascontiguousarray(ordered.transpose(2, 0, 1)), truths, self.split.images.file_names[row])


def _resized(values: NDArray[np.uint8], height: int, width: int, how: Image.Resampling) -> NDArray[np.uint8]:
    """[height, width, ...] by Pillow."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(values)).resize((width, height), how))
