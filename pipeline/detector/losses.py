"""What a detector's training step gives, and the box losses that heads share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from ops_cuda import aligned_box_iou
from pipeline.detector.box_coding import Coder


@dataclass(frozen=True, slots=True)
class Losses:
    """Losses of one batch. Nothing here waits for the device: read `finite` and `counts` a step late."""

    terms: dict[str, Tensor]
    """Scalar losses by name, already weighted: their sum is what to minimise."""
    finite_N: Tensor
    """bool: False for an image whose logits, boxes or targets hold a NaN or an infinity; the loss is then meaningless."""
    counts: dict[str, Tensor] = field(default_factory=dict)
    """Scalars for the log, such as positives per image; no gradient."""

    def joined(self, other: "Losses") -> "Losses":
        """Both of one batch: all terms and counts, finite where both are."""
        return Losses(self.terms | other.terms, self.finite_N & other.finite_N, self.counts | other.counts)

    def total(self) -> Tensor:
        """Sum of the terms."""
        return torch.stack(list(self.terms.values())).sum()


@dataclass(frozen=True, slots=True)
class BoxLoss:
    """Regression loss per box, summed over the rows that count.

    smooth_l1 compares deltas (quadratic below `beta`, 0 is L1); giou, diou and ciou compare the decoded boxes.
    """

    kind: Literal["smooth_l1", "giou", "diou", "ciou"]
    beta: float
    weight: float

    def __call__(self, coder: Coder, deltas_M4: Tensor, source_M4: Tensor, target_M4: Tensor, counted_M: Tensor) -> Tensor:
        """Scalar; rows with counted False give neither loss nor gradient, whatever boxes they hold."""
        counted = counted_M.unsqueeze(-1)
        # A unit box where nothing counts: a box without area has no deltas, and a gradient of 0 * NaN is NaN.
        unit_M4 = torch.cat([torch.zeros_like(source_M4[..., :2]), torch.ones_like(source_M4[..., 2:])], dim=-1)
        source, target = torch.where(counted, source_M4, unit_M4), torch.where(counted, target_M4, unit_M4)
        deltas = torch.where(counted, deltas_M4, torch.zeros_like(deltas_M4))
        loss_M = self.per_box(coder, deltas, source, target)
        return torch.where(counted_M, loss_M, torch.zeros_like(loss_M)).sum() * self.weight

    def per_box(self, coder: Coder, deltas: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Loss [...] of each row."""
        if self.kind == "smooth_l1":
            wanted = coder.encode(source, target)
            return functional.smooth_l1_loss(deltas, wanted, reduction="none", beta=self.beta).sum(dim=-1)
        return 1 - aligned_box_iou(coder.decode(deltas, source), target, self.kind)


class CustomBoxLoss(BoxLoss):
    """A user's loss between decoded boxes and their truths, in the place of ours; it sees rows with area only."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor], weight: float) -> None:
        super().__init__("smooth_l1", 0.0, weight)
        object.__setattr__(self, "_of", loss)

    def per_box(self, coder: Coder, deltas: Tensor, source: Tensor, target: Tensor) -> Tensor:
        loss_M: Tensor = self._of(coder.decode(deltas, source), target)  # type: ignore[attr-defined]
        return loss_M


def float32(values: Tensor) -> Tensor:
    """`values` in float32: losses and boxes are computed in full also where a head runs in bfloat16. Traces to nothing else."""
    return values if values.dtype == torch.float32 else values.float()


def finite_rows(*values: Tensor) -> Tensor:
    """bool [N]: everything of image n in every tensor [N, ...] is finite."""
    flags = [torch.isfinite(value).flatten(1).all(dim=1) for value in values]
    return torch.stack(flags).all(dim=0)
