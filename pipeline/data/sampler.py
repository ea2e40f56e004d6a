"""Which pictures a process sees at which step: the same global order whatever the number of processes and passes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
