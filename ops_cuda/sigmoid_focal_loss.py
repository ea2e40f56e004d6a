"""Focal loss of independent sigmoids, with its gradient in closed form.

What: alpha_t (1 - p_t)^gamma * -log(p_t) per element, where p_t is the probability of the truth; alpha < 0 means no weighting.
`class_focal_loss` is its sum where each row has one class at most: on CUDA without the one-hot targets, loss and gradient in one
pass over the logits.
Limits: targets are exactly 0 or 1, in the logits' dtype. No gradient to the targets.
Source: Lin et al. 2017 (RetinaNet), equation 5.
CUDA: one kernel each way; half types are computed in float32.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ops_cuda._registration import LIBRARY, on_cuda


def sigmoid_focal_loss(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    """Loss per element, in the shape of `logits`."""
    loss: Tensor = torch.ops.detectline.sigmoid_focal_loss(logits, targets, alpha, gamma)
    return loss


def class_focal_loss(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum over logits [..., C] of rows with classes [...] (int64): 0..C-1, -1 for background, -2 for rows that do not count."""
    if not logits.is_cuda or logits.dtype is torch.float64:  # the plain form, whose gradient's roundings CPU runs have always had
        loss = sigmoid_focal_loss(logits, _one_hot(logits, classes), alpha, gamma)
        return loss.masked_fill((classes == -2).unsqueeze(-1), 0).sum()
    if logits.dtype is torch.float16:  # the gradient is stored before a loss scale could keep it from vanishing
        logits = logits.float()
    total: Tensor = torch.ops.detectline.class_focal_loss(logits, classes, alpha, gamma)[0]
    return total


# -- CPU twin: z is the logit of the truth, so that both classes are one formula --


def _weight(targets: Tensor, alpha: float) -> Tensor | float:
    return targets * (2 * alpha - 1) + (1 - alpha) if alpha >= 0 else 1.0


def _forward(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    logits, targets = logits.contiguous(), targets.contiguous()  # so is the loss, as that of CUDA
    z = logits * (2 * targets - 1)
    return _weight(targets, alpha) * torch.sigmoid(-z) ** gamma * functional.softplus(-z)


def _backward(upstream: Tensor, logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    upstream, logits, targets = upstream.contiguous(), logits.contiguous(), targets.contiguous()
    sign = 2 * targets - 1
    z = logits * sign
    wrong, right = torch.sigmoid(-z), torch.sigmoid(z)
    slope = wrong**gamma * (gamma * right * functional.softplus(-z) + wrong)
    return -upstream * sign * _weight(targets, alpha) * slope


def _one_hot(logits: Tensor, classes: Tensor) -> Tensor:
    numbers = torch.arange(logits.shape[-1], device=classes.device)
    return (classes.unsqueeze(-1) == numbers).to(logits.dtype)


def _class_forward(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    """The sum, in float32 of half types, and its gradient."""
    targets, counts = _one_hot(logits, classes), (classes != -2).unsqueeze(-1).to(logits.dtype)
    loss = _forward(logits, targets, alpha, gamma) * counts
    total = loss.sum(dtype=torch.promote_types(logits.dtype, torch.float32))
    return total, _backward(counts.expand_as(logits), logits, targets, alpha, gamma)


def _class_fake(logits: Tensor, classes: Tensor, alpha: float, gamma: float) -> tuple[Tensor, Tensor]:
    total = logits.new_empty((), dtype=torch.promote_types(logits.dtype, torch.float32))
    return total, torch.empty_like(logits, memory_format=torch.contiguous_format)


# -- registration: schema, fake (from the composite form), autograd --

LIBRARY.define("sigmoid_focal_loss(Tensor logits, Tensor targets, float alpha, float gamma) -> Tensor")
LIBRARY.define("sigmoid_focal_loss_backward(Tensor upstream, Tensor logits, Tensor targets, float alpha, float gamma) -> Tensor")
LIBRARY.impl("sigmoid_focal_loss", _forward, "CompositeExplicitAutograd")
LIBRARY.impl("sigmoid_focal_loss_backward", _backward, "CompositeExplicitAutograd")
on_cuda("sigmoid_focal_loss", "sigmoid_focal_loss", "forward")
on_cuda("sigmoid_focal_loss_backward", "sigmoid_focal_loss", "backward")


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    logits, targets, ctx.alpha, ctx.gamma = inputs
    ctx.save_for_backward(logits, targets)


def _autograd(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    logits, targets = ctx.saved_tensors
    gradient = torch.ops.detectline.sigmoid_focal_loss_backward(upstream, logits, targets, ctx.alpha, ctx.gamma)
    return gradient, None, None, None


torch.library.register_autograd("detectline::sigmoid_focal_loss", _autograd, setup_context=_setup, lib=LIBRARY)

LIBRARY.define("class_focal_loss(Tensor logits, Tensor classes, float alpha, float gamma) -> (Tensor total, Tensor slope)")
LIBRARY.impl("class_focal_loss", _class_forward, "CPU")
on_cuda("class_focal_loss", "sigmoid_focal_loss", "of_classes")
torch.library.register_fake("detectline::class_focal_loss", _class_fake, lib=LIBRARY)


def _class_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])


def _class_autograd(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    (slope,) = ctx.saved_tensors
    return (slope * upstream).to(slope.dtype), None, None, None


torch.library.register_autograd("detectline::class_focal_loss", _class_autograd, setup_context=_class_setup, lib=LIBRARY)
