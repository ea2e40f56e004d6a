"""What a further head of the second stage is: it looks at boxes that were found, for masks, keypoints or dense poses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.detector.losses import Losses
from pipeline.detector.part import Part
from pipeline.structures import Detections, Targets


@dataclass(frozen=True, slots=True)
class Regions:
    """S regions per image to learn from: positives first, then negatives, then padding."""

    boxes_NS4: Tensor
    truths_NS4: Tensor
    """Box of the matched truth."""
    truth_NS: Tensor
    """Index of the matched truth among the batch's N * G."""
    classes_NS: Tensor
    """Background is the number of classes."""
    valid_NS: Tensor

    def counts(self, classes: int) -> dict[str, Tensor]:
        """Positive and negative regions per image, under the reference's names."""
        positives = (self.valid_NS & (self.classes_NS < classes)).sum() / len(self.valid_NS)
        negatives = self.valid_NS.sum() / len(self.valid_NS) - positives
        return {"roi_head/num_fg_samples": positives, "roi_head/num_bg_samples": negatives}

    def positive(self, most: int, classes: int) -> "Regions":
        """The first `most` regions, of which those of a class are valid."""
        boxes_NS4, truths_NS4, truth_NS, classes_NS, valid_NS = (
            values[:, :most] for values in (self.boxes_NS4, self.truths_NS4, self.truth_NS, self.classes_NS, self.valid_NS)
        )
        return Regions(boxes_NS4, truths_NS4, truth_NS, classes_NS, valid_NS & (classes_NS < classes))


class Branch(Protocol):
    """A head beside the box head. It is no module itself: its parts hang directly below `roi_heads`, as checkpoints name them.

    `maps` are the features of the second stage's levels. `compact_rows` False keeps padded rows on the CPU too.
    """

    def parts(self) -> dict[str, nn.Module]:
        """The modules by their names below `roi_heads`."""

    def losses(
        self,
        maps: Sequence[Tensor],
        regions: Regions,
        targets: Targets,
        generator: torch.Generator | None,
        part: Part,
        compact_rows: bool,
    ) -> Losses:
        """Losses of the positive regions. ValueError when the targets lack what the branch learns from."""

    def detect(self, maps: Sequence[Tensor], found: Detections, compact_rows: bool) -> Detections:
        """`found` with the branch's own field set, and `finite_N` also False where the branch gave a non-finite value."""
