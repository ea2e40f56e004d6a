"""What a loader worker more costs, small; that of an implementation known to be wrong is told apart."""

import copy
import tracemalloc
from typing import Any

from benchmarks.data import in_child
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


def share() -> dict[str, Any]:
    """In a process of its own: what other tests left in this one's memory would be copied too."""
    return measure_workers(split("train", 100_000, 800))


def share_of_copies() -> dict[str, Any]:
    return measure_workers(split("train", 100_000, 800), Copied)


def test_a_worker_more_takes_less_than_a_twentieth_of_the_dataset() -> None:
    assert in_child(share)["share_per_worker"] < 0.05
    assert in_child(share_of_copies)["share_per_worker"] > 0.5


def test_rows_of_a_picture_are_found_without_a_copy_of_the_column() -> None:
    """A copy of it for every picture grew with the dataset, in time and in every worker's memory."""
    labels = split("train", 100_000, 800)
    tracemalloc.start()
    rows = [labels.rows_of(row) for row in range(800)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < labels.annotations.image_A.nbytes / 2
    assert [one.start for one in rows[1:]] == [one.stop for one in rows[:-1]] and rows[-1].stop == 100_000
