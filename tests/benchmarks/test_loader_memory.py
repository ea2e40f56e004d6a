"""What a loader worker more costs, small; that of an implementation known to be wrong is told apart."""

import copy
from typing import Any

from benchmarks.labels_speed import split
from benchmarks.loader_memory import Labels, measure_workers
from pipeline.data.loader import Sample


class Copied(Labels):
    """Every worker makes the dataset its own."""

    own: Any = None

    def _sample(self, row: int, position: int) -> Sample:
        if self.own is None:
            self.own = self.split = copy.deepcopy(self.split)
        return super()._sample(row, position)


def test_a_worker_more_takes_less_than_a_twentieth_of_the_dataset() -> None:
    labels = split("train", 100_000, 800)
    assert measure_workers(labels)["share_per_worker"] < 0.05
    assert measure_workers(labels, Copied)["share_per_worker"] > 0.5
