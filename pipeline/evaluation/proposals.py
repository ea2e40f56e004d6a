"""Recall of class-free proposals: how many objects a proposal network finds, whatever their class.

Source: COCO's average recall (cocodataset.org/#detection-eval) with all classes taken as one, at 10, 100 and 1,000 proposals.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from pipeline.evaluation.coco import ALL, ENGINES, LARGE, MEDIUM, SMALL, Engine, mean_defined
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.metrics import Metrics, Table, defined
from pipeline.evaluation.truth import OBJECT, Truth
from pipeline.tasks import TITLE, Task

LIMITS = (10, 100, 1000)
"""Proposals per picture."""
SIZES = {"s": SMALL, "m": MEDIUM, "l": LARGE}


@dataclass(frozen=True, slots=True)
class ProposalMetrics(Metrics):
    """Average recall over IoU 0.50 to 0.95; -1 where no object is."""

    numbers: Mapping[str, float]
    """proposals/AR10, AR100, AR1000, and at 100 by size of object: AR100s, AR100m, AR100l."""

    task: ClassVar[Task] = "proposals"  # type: ignore[misc]
    shown: ClassVar[tuple[str, ...]] = ("AR100", "AR10", "AR1000")

    @property
    def per_class(self) -> dict[str, float]:
        return {OBJECT.name: self.value} if self.value >= 0 else {}

    def tables(self) -> list[Table]:
        """All figures."""
        row = {name.removeprefix("proposals/"): defined(value) for name, value in self.numbers.items()}
        note = "Averaged over IoU 0.50 to 0.95; s, m, l: areas below 32², below 96² and above, at 100 proposals."
        return [Table(f"Recall of {TITLE['proposals']}", tuple(row), [tuple(row.values())], note)]


def measure_proposals(truth: Truth, predictions: Predictions, engine: Engine, max_detections: int) -> ProposalMetrics:
    """Recall at 10, 100 and 1,000 proposals per picture; `max_detections` is of detections, and does not matter here."""
    if len(truth.image_ids_I):
        recall_TKSM = ENGINES[engine](truth, predictions, list(LIMITS), "bbox").recall_TKSM
    else:
        recall_TKSM = np.full((10, 1, 4, len(LIMITS)), -1.0)
    numbers = {f"proposals/AR{limit}": mean_defined(recall_TKSM[:, :, ALL, at]) for at, limit in enumerate(LIMITS)}
    at_hundred = LIMITS.index(100)
    by_size = {f"proposals/AR100{size}": mean_defined(recall_TKSM[:, :, place, at_hundred]) for size, place in SIZES.items()}
    return ProposalMetrics(numbers | by_size)
