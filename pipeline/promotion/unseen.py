"""The validation pictures that can judge: those that none of the compared detectors was trained on.

A split that is drawn anew, or that new pictures move (`dataset.split.stratify`, a source whose share of validation is counted),
puts pictures that the champion was trained on into validation: there it would look better than it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.data.dataset import Split
from pipeline.errors import UserError
from pipeline.files import digest_file
from pipeline.promotion.rules import Rule
from pipeline.training.lineage import learnt_by


@dataclass(frozen=True, slots=True)
class Unseen:
    """Pictures to compare on."""

    split: Split
    left_out: int
    """Pictures of the split that a detector was trained on."""
    untold: tuple[str, ...]
    """Detectors that do not say what they were trained on."""

    def rule(self, labels: int, least: int) -> Rule:
        """That enough is left to judge by: `labels` of them, and `least` are needed."""
        told = (
            f"{labels} labels on {len(self.split.images)} pictures; {self.left_out} that a detector was trained on are left out"
        )
        if self.untold:
            told += (
                f"; {' and '.join(self.untold)} was registered before this was kept, so its training pictures may be among them"
            )
        return Rule("unseen pictures", labels >= least, told, f"must be at least retrain.least_truths={least} labels")


def unseen(split: Split, detectors: Mapping[str, Path]) -> Unseen:
    """`split` without the pictures that one of the `detectors` (name and folder) was trained on. UserError when none is left."""
    learnt = {name: learnt_by(folder) for name, folder in detectors.items()}
    known = frozenset[str]().union(*(pictures for pictures in learnt.values() if pictures is not None))
    paths = [split.path(row) for row in range(len(split.images))]
    seen_I = np.array([path.is_file() and digest_file(path) in known for path in paths], np.bool_)
    if seen_I.all():
        raise UserError(
            f"retrain: no picture of {split.name} is left to compare {' with '.join(detectors)} on:"
            " each was trained on by one of them\n"
            "  give pictures that were never trained on to validation, or keep the split as it was (dataset.split)"
        )
    untold = tuple(name for name, pictures in learnt.items() if pictures is None)
    return Unseen(split.take_images(~seen_I) if seen_I.any() else split, int(seen_I.sum()), untold)
