"""Classification losses of the second stage: softmax, independent sigmoids, and sigmoids over drawn classes (federated).

Source: Girshick 2015 (softmax); Gupta et al. 2019 (LVIS); Zhou et al. 2021 (federated loss as used here); drawing without
replacement by Gumbel keys: Kool et al. 2019.
"""

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.detector.part import Part


class ClassLoss(nn.Module):
    """What the logits [M, classes + 1], background last, mean: probabilities at test, a loss in training."""

    prior: float | None = None
    """Probability that every class starts with; None leaves the predictor's bias at zero."""

    @abstractmethod
    def probabilities(self, logits_MK: Tensor) -> Tensor:
        """[M, classes], without the background."""

    @abstractmethod
    def losses(
        self, logits_MK: Tensor, class_M: Tensor, valid_M: Tensor, generator: torch.Generator | None, part: Part
    ) -> Tensor:
        """Loss [M] of each row, not divided; 0 where `valid` is False. The background's class is the number of classes."""


class SoftmaxLoss(ClassLoss):
    """One class or background per region: cross-entropy."""

    def probabilities(self, logits_MK: Tensor) -> Tensor:
        return logits_MK.softmax(dim=1)[:, :-1]

    def losses(
        self, logits_MK: Tensor, class_M: Tensor, valid_M: Tensor, generator: torch.Generator | None, part: Part
    ) -> Tensor:
        return functional.cross_entropy(logits_MK, class_M, reduction="none").masked_fill(~valid_M, 0)


class SigmoidLoss(ClassLoss):
    """Each class on its own: binary cross-entropy, the background being no class. `prior` is 0.01.

    With `drawn_classes` (federated loss) a step counts the classes of its regions, the background as one of them, and as many
    others as make up that number, drawn without replacement with weights frequency ** `power`.
    """

    prior = 0.01
    weight_C: Tensor

    def __init__(self, classes: int, drawn_classes: int | None = None, power: float = 0.0) -> None:
        super().__init__()
        self.classes, self.drawn_classes, self.power = classes, drawn_classes, power
        # Not part of the weights: a checkpoint of training keeps it, a detector does not need it.
        self.register_buffer("weight_C", torch.ones(classes), persistent=False)

    def probabilities(self, logits_MK: Tensor) -> Tensor:
        return logits_MK[:, :-1].sigmoid()

    def losses(
        self, logits_MK: Tensor, class_M: Tensor, valid_M: Tensor, generator: torch.Generator | None, part: Part
    ) -> Tensor:
        numbers_C = torch.arange(self.classes, device=class_M.device)
        target_MC = (class_M.unsqueeze(1) == numbers_C).to(logits_MK.dtype)
        loss_MC = functional.binary_cross_entropy_with_logits(logits_MK[:, :-1], target_MC, reduction="none")
        counted_MC = valid_M.unsqueeze(1)
        if self.drawn_classes is not None:
            counted_MC = counted_MC & self.draw(class_M, valid_M, generator, part)
        return torch.where(counted_MC, loss_MC, torch.zeros_like(loss_MC)).sum(dim=1)

    @torch.no_grad()
    def draw(self, class_M: Tensor, valid_M: Tensor, generator: torch.Generator | None, part: Part) -> Tensor:
        """bool [classes]: the classes that count, the same on all processes of the step."""
        if self.drawn_classes is None:
            raise ValueError("this loss counts every class: it draws none")
        seen_K = torch.zeros(self.classes + 1, device=class_M.device)
        seen_K = part.sum(seen_K.scatter_add(0, class_M, valid_M.to(seen_K.dtype))) > 0
        missing = self.drawn_classes - seen_K.sum()
        seen_C = seen_K[:-1]
        key_C = self.weight_C.log() + _gumbel(part.shared(self.classes, generator, class_M.device))
        key_C = key_C.masked_fill(seen_C, float("-inf"))
        order_C = key_C.argsort(descending=True)
        rank_C = torch.empty_like(order_C).scatter_(0, order_C, torch.arange(self.classes, device=order_C.device))
        return seen_C | ((rank_C < missing) & torch.isfinite(key_C))


def _gumbel(uniform_C: Tensor) -> Tensor:
    """Gumbel-distributed numbers: the k largest of log(weight) + these are k draws without replacement."""
    tiny = torch.finfo(uniform_C.dtype).tiny
    return -torch.log(-torch.log(uniform_C.clamp(min=tiny, max=1 - 2**-24)))


def tell_frequencies(model: nn.Module, pictures_C: Tensor) -> None:
    """Give every federated loss inside the number of training pictures that hold each class; until then all weigh the same.

    A class without pictures is never drawn.
    """
    for module in model.modules():
        if isinstance(module, SigmoidLoss) and module.drawn_classes is not None:
            module.weight_C.copy_(pictures_C.to(module.weight_C) ** module.power * (pictures_C > 0).to(module.weight_C))
