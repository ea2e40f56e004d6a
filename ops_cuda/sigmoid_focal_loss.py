"""Focal loss of independent sigmoids, with its gradient in closed form.

What: alpha_t (1 - p_t)^gamma * -log(p_t) per element, where p_t is the probability of the truth; alpha < 0 means no weighting.
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


# -- CPU twin: z is the logit of the truth, so that both classes are one formula --


def _weight(targets: Tensor, alpha: float) -> Tensor | float:
    return targets * (2 * alpha - 1) + (1 - alpha) if alpha >= 0 else 1.0


def _forward(logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    z = logits * (2 * targets - 1)
    return _weight(targets, alpha) * torch.sigmoid(-z) ** gamma * functional.softplus(-z)


def _backward(upstream: Tensor, logits: Tensor, targets: Tensor, alpha: float, gamma: float) -> Tensor:
    sign = 2 * targets - 1
    z = logits * sign
    wrong, right = torch.sigmoid(-z), torch.sigmoid(z)
    slope = wrong**gamma * (gamma * right * functional.softplus(-z) + wrong)
    return -upstream * sign * _weight(targets, alpha) * slope


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
