"""A balanced sample of positives and negatives per image, in padded form: no list of indices, no synchronisation."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pipeline.detector.part import WHOLE, Part


@dataclass(frozen=True, slots=True)
class Sample:
    """S drawn rows per image: positives first, then negatives, then padding."""

    index_NS: Tensor
    """int64 row of the candidates; 0 in padding."""
    positive_NS: Tensor
    valid_NS: Tensor

    def take(self, values_NAx: Tensor) -> Tensor:
        """Rows [N, S, ...] of values [N, A, ...]."""
        return take_rows(values_NAx, self.index_NS)


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws `count` candidates per image, at most `positive_fraction` of them positive."""

    count: int
    positive_fraction: float
    order: Literal["random", "first"]
    """random: uniform keys of the injected generator; first: by index."""

    def most_positive(self, candidates: int) -> int:
        """Largest number of positives that a sample of so many candidates holds; they come first."""
        return min(int(self.count * self.positive_fraction), candidates)

    def __call__(self, label_NA: Tensor, generator: torch.Generator | None, part: Part = WHOLE) -> Sample:
        """`label` is 1 positive, 0 negative, anything else never drawn. The generator must live on the labels' device."""
        images, candidates = label_NA.shape
        if self.order == "first":
            key_NA = torch.arange(candidates, device=label_NA.device, dtype=torch.float64).expand(images, -1)
        else:
            key_NA = part.uniform(images, candidates, generator, label_NA.device)
        most_positive = self.most_positive(candidates)
        positive_NP, positives_N = _draw(label_NA == 1, key_NA, most_positive)
        positives_N = positives_N.clamp(max=most_positive)
        slots = min(self.count, candidates)
        negative_NS, negatives_N = _draw(label_NA == 0, key_NA, slots)
        total_N = positives_N + torch.minimum(negatives_N, self.count - positives_N)
        slot_S = torch.arange(slots, device=label_NA.device)
        is_positive_NS = slot_S < positives_N.unsqueeze(1)
        valid_NS = slot_S < total_N.unsqueeze(1)
        negative_slot_NS = (slot_S - positives_N.unsqueeze(1)).clamp(min=0)
        index_NS = negative_NS.gather(1, negative_slot_NS)
        if most_positive:
            from_positive_NS = positive_NP.gather(1, slot_S.clamp(max=most_positive - 1).expand(images, -1))
            index_NS = torch.where(is_positive_NS, from_positive_NS, index_NS)
        return Sample(torch.where(valid_NS, index_NS, torch.zeros_like(index_NS)), is_positive_NS & valid_NS, valid_NS)


def _draw(where_NA: Tensor, key_NA: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The `most` candidates of smallest key [N, most] and how many there are at all [N]."""
    key_NA = torch.where(where_NA, key_NA, torch.full_like(key_NA, float("inf")))
    return key_NA.topk(most, dim=1, largest=False, sorted=True).indices, where_NA.sum(dim=1)


def take_rows(values_NAx: Tensor, index_NS: Tensor) -> Tensor:
    """values[n, index[n, s]] as [N, S, ...]."""
    index = index_NS.view(*index_NS.shape, *([1] * (values_NAx.dim() - 2))).expand(-1, -1, *values_NAx.shape[2:])
    return values_NAx.gather(1, index)
