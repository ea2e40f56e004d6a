"""Norm layers by name, and the convolution that owns one. Parameter names equal those of Detectron2 checkpoints.

Source: Ioffe and Szegedy 2015 (batch), Wu and He 2018 (group, of 32), Ba et al. 2016 (layer).
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError

Norm = Literal["none", "frozen", "affine", "batch", "sync", "group", "layer"]
GROUPS = 32
"""Groups of channels of a group norm, as in the paper and the reference."""


class FrozenBatchNorm2d(nn.Module):
    """Batch norm whose statistics, scale and shift are constants (buffers); eps 1e-5."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.eps = 1e-5

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """The norm as `x * scale + shift`, each [C]."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return functional.batch_norm(x_NCHW, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that takes its statistics over all processes, whatever `train.sync_norm` says; the trainer sees to it."""


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each cell; eps 1e-6."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.eps = 1e-6

    def forward(self, x_NCHW: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x_NCHW, dim=1, correction=0, keepdim=True)
        y_NCHW = (x_NCHW - mean) * (variance + self.eps).rsqrt()
        return y_NCHW * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


class LevelBatchNorms(nn.ModuleList):
    """Batch norms of one layer that serves several levels: statistics per level, one scale and shift for all."""

    def __init__(self, levels: int, channels: int, kind: type[nn.BatchNorm2d]) -> None:
        super().__init__(kind(channels, affine=False) for _ in range(levels))
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x_NCHW: Tensor, level: int) -> Tensor:
        """The norm of the features of level number `level`."""
        y_NCHW: Tensor = self[level](x_NCHW)
        return y_NCHW * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)


def _group(channels: int) -> nn.Module:
    if channels % GROUPS:
        raise ConfigError("model.*.norm", "group", f"needs channels in multiples of {GROUPS}; one layer has {channels}")
    return nn.GroupNorm(GROUPS, channels)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "frozen": FrozenBatchNorm2d,
    "affine": nn.BatchNorm2d,
    "batch": nn.BatchNorm2d,
    "sync": SyncBatchNorm2d,
    "group": _group,
    "layer": ChannelNorm,
}
"""Layer by name. `affine` is a batch norm that the owner of the backbone keeps in evaluation mode."""


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Every batch norm inside, timm's fused ones included."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


def when_frozen(norm: Norm) -> Norm:
    """The norm of a frozen stage: batch norms become constants, norms without statistics stay."""
    return "frozen" if norm in ("affine", "batch", "sync") else norm


class ConvNorm(nn.Conv2d):
    """Convolution, its norm as the child `norm`, and optionally ReLU; a bias only where there is no norm."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        norm: Norm,
        *,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        relu: bool = False,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(inputs, outputs, kernel, stride, padding, dilation, groups, bias=norm == "none")
        self.norm = None if norm == "none" else NORMS[norm](outputs)
        self.relu = relu
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if isinstance(self.norm, FrozenBatchNorm2d) and not torch.compiler.is_exporting():
            # A constant norm costs nothing inside the weights; as a layer of its own it is two more passes over the features.
            # An exported graph keeps the convolution's own weights: quantization reads them, and the runtime folds by itself.
            scale_C, shift_C = self.norm.scale_and_shift()
            y_NCHW = self._convolve(x_NCHW, self.weight * scale_C.view(-1, 1, 1, 1), shift_C)
        else:
            y_NCHW = self._convolve(x_NCHW, self.weight, self.bias)
            y_NCHW = y_NCHW if self.norm is None else self.norm(y_NCHW)
        return functional.relu(y_NCHW, inplace=True) if self.relu else y_NCHW

    def _convolve(self, x_NCHW: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(x_NCHW, weight, bias, self.stride, self.padding, self.dilation, self.groups)
