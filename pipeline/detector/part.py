"""A batch as a part of a training step that several processes, or several passes, share.

What a step learns must not depend on how its pictures are dealt out: each picture gets the same random numbers, and losses that
are divided by a number of samples are divided by the number in the whole step. Nothing here knows how processes talk.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.detector.compact import Rows
from pipeline.structures import Targets


def _itself(count: Tensor) -> Tensor:
    return count


@dataclass(frozen=True, slots=True)
class Part:
    """Where a batch stands in its step. Gradients are averaged over `processes` and `passes`; all parts are equally large."""

    first: int = 0
    """Place of the batch's first picture among the step's."""
    pictures: int = 0
    """Pictures of the whole step; 0 when this batch is all there is."""
    processes: int = 1
    passes: int = 1
    """Batches that one process takes one after the other before the step's update."""
    number: int = 0
    """Which of these passes this batch is."""
    later: tuple[Targets, ...] = ()
    """Truths of this process's later passes, for counts that must be known before the first loss of the step."""
    sum: Callable[[Tensor], Tensor] = _itself
    """Sum of a count over the processes."""

    def uniform(self, images: int, candidates: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Random numbers [images, candidates] in 0..1. On the CPU a picture's do not depend on how many others are in its part.

        Drawn for the whole step with the candidates as rows, so that further candidates (a longer list of truths) change nothing.
        """
        drawn_AN = torch.rand(candidates, self.pictures or images, generator=generator, device=device)
        return drawn_AN[:, self.first : self.first + images].T

    def points(self, rows: Rows, points: int, generator: torch.Generator | None) -> Tensor:
        """Random points [M, points, 2] of the unit square for rows of a padded batch, the same whatever padding was dropped."""
        images, regions = rows.valid_NS.shape
        drawn_NR = self.uniform(images, regions * points * 2, generator, rows.valid_NS.device)
        return rows.take(drawn_NR.reshape(images, regions, points, 2))

    def shared(self, count: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """Random numbers [count] in 0..1 that belong to no picture: the same in every part of the step."""
        return torch.rand(count, generator=generator, device=device)

    def divisor(self, count: Tensor) -> Tensor:
        """What to divide a sum over samples by: the mean of `count` over the processes, as if the whole step had at least one."""
        return self.sum(count).clamp(min=1) / self.processes


WHOLE = Part()
"""A step of one batch in one process."""
