"""Optimizers and learning-rate schedules from their settings."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from pipeline.training.config import AdamW, Cosine, Sgd, Steps

PICTURES_PER_STEP = 16
"""The batch that an SGD learning rate is quoted for: the reference's, and Goyal et al.'s linear rule scales it from there."""


def build_optimizer(model: nn.Module, cfg: Sgd | AdamW, batch: int) -> torch.optim.Optimizer:
    """The optimizer over `model`'s trainable parameters; norms and their biases are not decayed."""
    decayed, free = _by_decay(model)
    groups = [{"params": decayed, "weight_decay": cfg.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if isinstance(cfg, Sgd):
        return torch.optim.SGD(groups, lr=cfg.lr * batch / PICTURES_PER_STEP, momentum=cfg.momentum)
    return torch.optim.AdamW(groups, lr=cfg.lr)


def build_schedule(optimizer: torch.optim.Optimizer, cfg: Cosine | Steps, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """The learning rate over `steps` steps, as a factor on the optimizer's peak."""
    warmup = min(cfg.warmup, steps // 10)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor_at(step, cfg, steps, warmup))


def factor_at(step: int, cfg: Cosine | Steps, steps: int, warmup: int) -> float:
    """Share of the peak learning rate at `step`: rises over `warmup` steps, then follows `cfg`."""
    rise = (step + 1) / (warmup + 1) if step < warmup else 1.0
    if isinstance(cfg, Steps):
        return rise * cfg.factor ** sum(step >= share * steps for share in cfg.milestones)
    progress = min(1.0, max(0.0, (step - warmup) / max(1, steps - warmup)))
    return rise * (cfg.final + (1 - cfg.final) * 0.5 * (1 + math.cos(math.pi * progress)))


def _by_decay(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for module in model.modules():
        own: Iterable[nn.Parameter] = (p for p in module.parameters(recurse=False) if p.requires_grad)
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.LayerNorm)
        (free if is_norm else decayed).extend(own)
    return decayed, free
