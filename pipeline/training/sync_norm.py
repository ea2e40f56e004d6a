"""Batch norms whose statistics are taken over all processes.

Not torch's SyncBatchNorm: that one refuses the CPU, where tests prove this one, and drops the activation of timm's fused norms.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from pipeline.detector.norms import SyncBatchNorm2d


class _SumOverRanks(torch.autograd.Function):
    """Sum of each rank's tensor; a gradient of the sum flows back to every rank."""

    @staticmethod
    def forward(context: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm [N, C, H, W]; in training the mean and variance are those of all ranks' batches together."""

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return synced_norm(self, x_NCHW) if self.training else super().forward(x_NCHW)


def synced_norm(norm: nn.BatchNorm2d, x_NCHW: Tensor) -> Tensor:
    """`norm` of `x` by the statistics of all ranks, in float32; moves the running ones. Ranks have equally many pictures."""
    x = x_NCHW.float()
    cells = x.numel() // x.shape[1] * dist.get_world_size()
    mean_C = _SumOverRanks.apply(x.sum(dim=(0, 2, 3))) / cells
    centred = x - mean_C.view(1, -1, 1, 1)
    var_C = _SumOverRanks.apply(centred.square().sum(dim=(0, 2, 3))) / cells
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean_C, share)
            norm.running_var.lerp_(var_C * (cells / max(1, cells - 1)), share)
    scale_C = (var_C + norm.eps).rsqrt()
    if norm.affine:
        scale_C = scale_C * norm.weight
    y: Tensor = centred * scale_C.view(1, -1, 1, 1)
    y = y + norm.bias.view(1, -1, 1, 1) if norm.affine else y
    return y.type_as(x_NCHW)


def sync_norms(model: nn.Module, every: bool = True) -> nn.Module:
    """Make the batch norms in `model` synced ones, with the same parameters under the same names.

    Without `every` only those that the model's settings call `sync`.
    """
    for module in model.modules():
        if type(module) is SyncBatchNorm2d or (every and type(module) is nn.BatchNorm2d):
            module.__class__ = SyncedBatchNorm2d
        elif every and type(module).__name__ == "BatchNormAct2d":
            module.__class__ = _with_activation(type(module))
    return model


def _with_activation(fused: type[nn.Module]) -> type[nn.Module]:
    """timm's norm with its activation inside, synced."""
    if fused not in _SYNCED:

        def forward(self: Any, x_NCHW: Tensor) -> Tensor:
            y: Tensor = self.act(self.drop(synced_norm(self, x_NCHW))) if self.training else fused.forward(self, x_NCHW)
            return y

        _SYNCED[fused] = type("SyncedBatchNormAct2d", (fused,), {"forward": forward})
    return _SYNCED[fused]


_SYNCED: dict[type[nn.Module], type[nn.Module]] = {}
