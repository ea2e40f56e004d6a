"""Backbones: ResNet in the reference's layout, and any timm model. Each gives a list of features, one per wanted stage.

Source: He et al. 2015 (ResNet), Xie et al. 2016 (ResNeXt). Parameter names equal those of Detectron2 checkpoints.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.errors import ConfigError, did_you_mean

Norm = Literal["frozen", "affine", "batch"]
STAGES = ("res2", "res3", "res4", "res5")
STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


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


NORMS: dict[str, type[nn.Module]] = {"frozen": FrozenBatchNorm2d, "affine": nn.BatchNorm2d, "batch": nn.BatchNorm2d}
"""`affine` is a batch norm that the owner of the backbone keeps in evaluation mode."""


class ConvNorm(nn.Conv2d):
    """Convolution without bias, its norm as the child `norm`, and optionally ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        norm: Norm,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = False,
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = NORMS[norm](outputs)
        self.relu = relu
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_NCHW: Tensor) -> Tensor:
        if isinstance(self.norm, FrozenBatchNorm2d) and not torch.compiler.is_exporting():
            # A constant norm costs nothing inside the weights; as a layer of its own it is two more passes over the features.
            # An exported graph keeps the convolution's own weights: quantization reads them, and the runtime folds by itself.
            scale_C, shift_C = self.norm.scale_and_shift()
            weight = self.weight * scale_C.view(-1, 1, 1, 1)
            y_NCHW = functional.conv2d(x_NCHW, weight, shift_C, self.stride, self.padding, self.dilation, self.groups)
        else:
            y_NCHW = self.norm(super().forward(x_NCHW))
        return functional.relu(y_NCHW, inplace=True) if self.relu else y_NCHW


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, 3, norm, stride=stride, relu=True)
        self.conv2 = ConvNorm(outputs, outputs, 3, norm)
        self.shortcut = ConvNorm(inputs, outputs, 1, norm, stride=stride) if inputs != outputs else None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        shortcut = x_NCHW if self.shortcut is None else self.shortcut(x_NCHW)
        return functional.relu(self.conv2(self.conv1(x_NCHW)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut."""

    def __init__(
        self, inputs: int, outputs: int, middle: int, stride: int, norm: Norm, *, groups: int, stride_in_1x1: bool
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(inputs, middle, 1, norm, stride=first, relu=True)
        self.conv2 = ConvNorm(middle, middle, 3, norm, stride=second, groups=groups, relu=True)
        self.conv3 = ConvNorm(middle, outputs, 1, norm)
        self.shortcut = ConvNorm(inputs, outputs, 1, norm, stride=stride) if inputs != outputs else None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        shortcut = x_NCHW if self.shortcut is None else self.shortcut(x_NCHW)
        return functional.relu(self.conv3(self.conv2(self.conv1(x_NCHW))) + shortcut)


class Stem(nn.Module):
    """7x7 convolution of stride 2, then 3x3 max-pooling of stride 2."""

    def __init__(self, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, outputs, 7, norm, stride=2, relu=True)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        return functional.max_pool2d(self.conv1(x_N3HW), kernel_size=3, stride=2, padding=1)


class ResNet(nn.Module):
    """ResNet 18 to 152 up to the last wanted stage; `channels` of the wanted stages in order."""

    def __init__(
        self,
        depth: int,
        stages: Sequence[str],
        *,
        norm: Norm,
        freeze_at: int,
        stride_in_1x1: bool,
        groups: int,
        width_per_group: int,
        stem_channels: int,
        res2_channels: int,
    ) -> None:
        super().__init__()
        self.wanted = tuple(stages)
        self.built = STAGES[: STAGES.index(self.wanted[-1]) + 1]
        self.stem = Stem(stem_channels, "frozen" if freeze_at >= 1 else norm)
        self.channels: tuple[int, ...] = ()
        inputs, outputs, middle = stem_channels, res2_channels, groups * width_per_group
        for number, stage in enumerate(self.built):
            stride = 1 if stage == "res2" else 2
            stage_norm: Norm = "frozen" if freeze_at >= number + 2 else norm
            blocks: list[nn.Module] = []
            for block in range(BLOCKS[depth][number]):
                step = stride if block == 0 else 1
                blocks.append(
                    BasicBlock(inputs, outputs, step, stage_norm)
                    if depth < 50
                    else Bottleneck(
                        inputs,
                        outputs,
                        middle,
                        step,
                        stage_norm,
                        groups=groups,
                        stride_in_1x1=stride_in_1x1,
                    )
                )
                inputs = outputs
            setattr(self, stage, nn.Sequential(*blocks))
            if stage in self.wanted:
                self.channels += (outputs,)
            outputs, middle = outputs * 2, middle * 2
        for name in ("stem", *self.built)[:freeze_at]:
            getattr(self, name).requires_grad_(False)

    def forward(self, x_N3HW: Tensor) -> list[Tensor]:
        """Normalised pixels [N, 3, H, W] -> features [N, C, H / stride, W / stride] of the wanted stages, finest first."""
        x, features = self.stem(x_N3HW), []
        for stage in self.built:
            x = getattr(self, stage)(x)
            if stage in self.wanted:
                features.append(x)
        return features


def timm_backbone(name: str, stages: Sequence[str], norm: Norm, freeze_at: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A timm model that gives the features of the stages, and their channels. Its parameters keep timm's names.

    `freeze_at` fixes every parameter that the features of stride 2**freeze_at depend on. Nothing is downloaded. ConfigError when
    timm does not know the name or the model has no features at a wanted stride.
    """
    import timm  # seconds of import, needed by this branch alone

    if not timm.is_model(name):
        raise ConfigError("model.backbone.name", name, f"is not a timm model. {did_you_mean(name, timm.list_models())}")
    try:
        probe: Any = timm.create_model(name, features_only=True, pretrained=False)
    except (RuntimeError, AttributeError) as error:
        raise ConfigError("model.backbone.name", name, f"gives no features: {error}") from error
    strides: list[int] = probe.feature_info.reduction()
    wanted = [STRIDES[stage] for stage in stages]
    if missing := [stride for stride in wanted if stride not in strides]:
        raise ConfigError("model.backbone.name", name, f"has no features at stride {missing}; it has {sorted(set(strides))}")
    last = {stride: index for index, stride in enumerate(strides)}  # of several features of one stride, the deepest
    indices = [last[stride] for stride in wanted]
    model: Any = timm.create_model(name, features_only=True, out_indices=indices, pretrained=False)
    fix_same_padding(model)
    if norm == "frozen":
        for module in batch_norms(model):
            module.requires_grad_(False)
    if freeze_at:
        if 2**freeze_at not in last:
            rule = f"needs features at stride {2**freeze_at}; {name} has {sorted(set(strides))}"
            raise ConfigError("model.backbone.freeze_at", freeze_at, rule)
        frozen = _parameters_behind(probe, last[2**freeze_at])
        for parameter_name, parameter in model.named_parameters():
            if parameter_name in frozen:
                parameter.requires_grad_(False)
    return model, tuple(model.feature_info.channels())


class FixedSameConv2d(nn.Conv2d):
    """TensorFlow's SAME padding where every side is a multiple of the stride: then the padding does not depend on the side.

    timm computes it from the side, which makes a symbolic one (tracing with a free height and width) so involved that
    torch.export takes minutes. The detector's batches are multiples of its divisor, so each strided layer's sides are even.
    """

    def forward(self, x_NCHW: Tensor) -> Tensor:
        around: list[int] = []
        for axis in (1, 0):
            total = max(self.dilation[axis] * (self.kernel_size[axis] - 1) + 1 - self.stride[axis], 0)
            around += [total // 2, total - total // 2]
        padded = functional.pad(x_NCHW, around)
        return functional.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def fix_same_padding(model: nn.Module) -> None:
    """Put a `FixedSameConv2d` with the same parameters in the place of each of timm's Conv2dSame, under the same name."""
    from timm.layers.conv2d_same import Conv2dSame

    for parent in list(model.modules()):
        for name, conv in list(parent.named_children()):
            if isinstance(conv, Conv2dSame):
                fixed = FixedSameConv2d(
                    conv.in_channels,
                    conv.out_channels,
                    conv.kernel_size,  # type: ignore[arg-type]  # torch declares the general tuple that it keeps
                    conv.stride,  # type: ignore[arg-type]
                    dilation=conv.dilation,  # type: ignore[arg-type]
                    groups=conv.groups,
                    bias=conv.bias is not None,
                )
                fixed.weight, fixed.bias = conv.weight, conv.bias
                setattr(parent, name, fixed)


def _parameters_behind(model: nn.Module, number: int) -> set[str]:
    """Names of the parameters that feature `number` of a timm model depends on: those that get a gradient from it."""
    parameters = dict(model.named_parameters())
    feature = model.eval()(torch.zeros(1, 3, 64, 64))[number]
    gradients = torch.autograd.grad(feature.sum(), list(parameters.values()), allow_unused=True)
    return {name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None}


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Every batch norm inside, timm's fused ones included."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
