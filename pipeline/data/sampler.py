"""Which pictures a process sees at which step: the same global order whatever the number of processes and passes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class StepSampler:
    """Positions in the endless stream, batch by batch: step s holds the positions from s * batch to (s + 1) * batch.

    Process `rank` of `ranks` takes its run of them, in `passes` batches. `step` is where the sampler starts and all the state
    it has: a checkpoint keeps the number of the steps done.
    """

    batch: int
    """Pictures of a step, over all processes and passes."""
    last: int
    """Steps of the run."""
    rank: int = 0
    ranks: int = 1
    passes: int = 1
    step: int = 0

    def __post_init__(self) -> None:
        if self.batch % (self.ranks * self.passes):
            rule = f"must be a multiple of {self.ranks} processes x train.accumulate={self.passes}: all parts are equally large"
            raise ConfigError("train.batch", self.batch, rule)

    @property
    def pictures(self) -> int:
        """Pictures of one batch."""
        return self.batch // (self.ranks * self.passes)

    def first(self, number: int) -> int:
        """Place in its step of the first picture of pass `number`."""
        return (self.rank * self.passes + number) * self.pictures

    def starting(self, step: int) -> "StepSampler":
        """The same sampler after `step` steps."""
        return replace(self, step=step)

    def __iter__(self) -> Iterator[range]:
        for step in range(self.step, self.last):
            for number in range(self.passes):
                start = step * self.batch + self.first(number)
                yield range(start, start + self.pictures)

    def __len__(self) -> int:
        return (self.last - self.step) * self.passes


class PictureOrder:
    """The endless stream of training pictures: every lap is a new seeded shuffle of all of them.

    With `repeats` [I] picture i comes floor(repeats[i]) times in a lap, and once more with the chance of the rest: on the average
    repeats[i] times.
    """

    def __init__(self, pictures: int, seed: int, repeats: NDArray[np.float64] | None = None) -> None:
        self.pictures, self.seed, self.repeats = pictures, seed, repeats
        self._starts = [0]
        """First position of every lap met so far, and of the one after."""
        self._lap, self._rows = -1, np.zeros(0, np.int64)

    def row(self, position: int) -> int:
        """The picture at `position`, whatever was asked before."""
        if self.repeats is None:
            lap, place = divmod(position, self.pictures)
        else:
            while self._starts[-1] <= position:
                self._starts.append(self._starts[-1] + len(self._rows_of(len(self._starts) - 1)))
            lap = int(np.searchsorted(self._starts, position, side="right")) - 1
            place = position - self._starts[lap]
        if lap != self._lap:
            self._lap, self._rows = lap, self._rows_of(lap)
        return int(self._rows[place])

    def _rows_of(self, lap: int) -> NDArray[np.int64]:
        random = np.random.Generator(np.random.PCG64([self.seed, lap]))
        if self.repeats is None:
            return random.permutation(self.pictures)
        whole = np.floor(self.repeats)
        times = (whole + (random.random(self.pictures) < self.repeats - whole)).astype(np.int64)
        return random.permutation(np.repeat(np.arange(self.pictures), times))


def repeat_factors(annotations: Annotations, pictures: int, threshold: float) -> NDArray[np.float64]:
    """How often each of the `pictures` is worth showing, at least 1: the largest of its classes' sqrt(threshold / frequency).

    A class's frequency is the share of pictures that hold it; crowds and labels of no known class do not count.
    Source: Gupta et al. 2019 (LVIS), section 5 and appendix.
    """
    pairs_P2 = _pictures_and_classes(annotations)
    share_C = np.bincount(pairs_P2[:, 1]) / pictures
    factors = np.ones(pictures)
    np.maximum.at(factors, pairs_P2[:, 0], np.sqrt(threshold / share_C[pairs_P2[:, 1]]))
    return factors


def pictures_per_class(annotations: Annotations, classes: int) -> NDArray[np.int64]:
    """Pictures [classes] that hold each class; crowds and labels of no known class do not count."""
    return np.bincount(_pictures_and_classes(annotations)[:, 1], minlength=classes)


def _pictures_and_classes(annotations: Annotations) -> NDArray[np.int64]:
    """Every (picture, class) [P, 2] that has a label, once."""
    counts_A = (annotations.image_A >= 0) & (annotations.label_A >= 0) & ~annotations.crowd_A
    return np.unique(np.stack([annotations.image_A[counts_A], annotations.label_A[counts_A]], axis=1), axis=0).astype(np.int64)
