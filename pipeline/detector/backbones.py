"""Backbones: ResNet in the reference's layout, and any timm model. Each gives a list of features, one per wanted stage.

Source: He et al. 2015 (ResNet), Xie et al. 2016 (ResNeXt). Parameter names equal those of Detectron2 checkpoints.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from ops_cuda import deform_conv2d
from pipeline.detector.norms import NORMS, ConvNorm, Norm, batch_norms, when_frozen
from pipeline.errors import ConfigError, did_you_mean

STAGES = ("res2", "res3", "res4", "res5")
STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


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


class DeformConv(nn.Module):
    """3x3 deformable convolution without bias, and its norm (parameters `weight`, `norm.*`); offsets come from the caller."""

    def __init__(self, channels: int, norm: Norm, *, stride: int, groups: int, dilation: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, 3, 3))
        self.norm = NORMS[norm](channels)
        self.stride, self.groups, self.dilation = stride, groups, dilation
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x_NCHW: Tensor, offset_NOHW: Tensor, mask_NTHW: Tensor | None) -> Tensor:
        """relu(norm(convolution))."""
        # In float32 also where the network computes in bfloat16: torchvision's kernels know no other on the CPU, and offsets of
        # many pixels lose theirs.
        x, offset, mask = (None if value is None else value.float() for value in (x_NCHW, offset_NOHW, mask_NTHW))
        assert x is not None and offset is not None
        with torch.autocast(x.device.type, enabled=False):
            y = deform_conv2d(x, offset, self.weight, mask, self.stride, self.dilation, self.dilation, self.groups)
        return functional.relu(self.norm(y), inplace=True)


@dataclass(frozen=True, slots=True)
class Deform:
    """How a stage's 3x3 convolutions are deformed."""

    modulated: bool
    """Also a learnt weight per tap (version 2)."""
    groups: int
    """Groups of channels with offsets of their own."""


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 and a shortcut; with `deform` the 3x3 reads where `conv2_offset` puts it."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        middle: int,
        stride: int,
        norm: Norm,
        *,
        groups: int,
        stride_in_1x1: bool,
        dilation: int = 1,
        deform: Deform | None = None,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(inputs, middle, 1, norm, stride=first, relu=True)
        self.conv2: nn.Module
        self.conv2_offset: nn.Module | None = None
        self.taps = 0 if deform is None else 9 * deform.groups
        if deform is None:
            self.conv2 = ConvNorm(middle, middle, 3, norm, stride=second, groups=groups, dilation=dilation, relu=True)
        else:
            wide = self.taps * (3 if deform.modulated else 2)
            self.conv2_offset = nn.Conv2d(middle, wide, 3, stride=second, padding=dilation, dilation=dilation)
            nn.init.zeros_(self.conv2_offset.weight)
            nn.init.zeros_(self.conv2_offset.bias)  # type: ignore[arg-type]
            self.conv2 = DeformConv(middle, norm, stride=second, groups=groups, dilation=dilation)
        self.conv3 = ConvNorm(middle, outputs, 1, norm)
        self.shortcut = ConvNorm(inputs, outputs, 1, norm, stride=stride) if inputs != outputs else None

    def forward(self, x_NCHW: Tensor) -> Tensor:
        shortcut = x_NCHW if self.shortcut is None else self.shortcut(x_NCHW)
        y_NCHW = self.conv1(x_NCHW)
        if self.conv2_offset is None:
            y_NCHW = self.conv2(y_NCHW)
        else:
            moves_NOHW = self.conv2_offset(y_NCHW)
            offset_NOHW, mask_NTHW = moves_NOHW[:, : 2 * self.taps], moves_NOHW[:, 2 * self.taps :]
            modulation = mask_NTHW.sigmoid() if mask_NTHW.shape[1] else None
            y_NCHW = self.conv2(y_NCHW, offset_NOHW, modulation)
        return functional.relu(self.conv3(y_NCHW) + shortcut)


class Stem(nn.Module):
    """7x7 convolution of stride 2, then 3x3 max-pooling of stride 2."""

    def __init__(self, outputs: int, norm: Norm) -> None:
        super().__init__()
        self.conv1 = ConvNorm(3, outputs, 7, norm, stride=2, relu=True)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        return functional.max_pool2d(self.conv1(x_N3HW), kernel_size=3, stride=2, padding=1)


class ResNet(nn.Module):
    """ResNet 18 to 152 up to the last wanted stage; `channels` and `strides` of the wanted stages in order.

    `deform` has an entry per stage, None for plain convolutions. With `res5_dilation` 2, res5 keeps res4's stride.
    """

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
        res5_dilation: int = 1,
        deform: Sequence[Deform | None] = (None,) * 4,
    ) -> None:
        super().__init__()
        self.wanted = tuple(stages)
        self.built = STAGES[: STAGES.index(self.wanted[-1]) + 1]
        self.stem = Stem(stem_channels, when_frozen(norm) if freeze_at >= 1 else norm)
        self.channels: tuple[int, ...] = ()
        self.strides: tuple[int, ...] = ()
        inputs, outputs, middle, total = stem_channels, res2_channels, groups * width_per_group, 4
        for number, stage in enumerate(self.built):
            dilation = res5_dilation if stage == "res5" else 1
            stride = 1 if stage == "res2" or dilation > 1 else 2
            stage_norm = when_frozen(norm) if freeze_at >= number + 2 else norm
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
                        dilation=dilation,
                        deform=deform[number],
                    )
                )
                inputs = outputs
            setattr(self, stage, nn.Sequential(*blocks))
            total *= stride
            if stage in self.wanted:
                self.channels, self.strides = (*self.channels, outputs), (*self.strides, total)
            outputs, middle = outputs * 2, middle * 2
        for name in ("stem", *self.built)[:freeze_at]:
            getattr(self, name).requires_grad_(False)

    def forward(self, x_N3HW: Tensor) -> list[Tensor]:
        """Normalised pixels [N, 3, H, W] -> features [N, C, ceil(H / stride), ceil(W / stride)] of the wanted stages, finest
        first."""
        return stage_features(self, self.built, self.wanted, x_N3HW)


def stage_features(resnet: nn.Module, built: Sequence[str], wanted: Sequence[str], x_N3HW: Tensor) -> list[Tensor]:
    """Features of the wanted stages among those built."""
    x, features = resnet.get_submodule("stem")(x_N3HW), []
    for stage in built:
        x = resnet.get_submodule(stage)(x)
        if stage in wanted:
            features.append(x)
    return features


class ResNetStages(nn.Module):
    """A ResNet whose stages are the features by themselves, without a pyramid (C4, DC5): pixels -> features by stage name.

    Sides need no common divisor: a stage is as large as its picture asks for, rounded up. With `hold_statistics` batch norms stay
    in evaluation mode. The ResNet's parts hang directly here, so parameters are `res4.0.conv1.weight`, ...
    """

    divisor = 1

    def __init__(self, resnet: ResNet, *, hold_statistics: bool) -> None:
        super().__init__()
        for name, part in resnet.named_children():
            self.add_module(name, part)
        self.built, self.wanted = resnet.built, resnet.wanted
        self.level_channels = dict(zip(resnet.wanted, resnet.channels, strict=True))
        self.level_strides = dict(zip(resnet.wanted, resnet.strides, strict=True))
        self.hold_statistics = hold_statistics

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.hold_statistics:
            for norm in batch_norms(self):
                norm.eval()
        return self

    def forward(self, x_N3HW: Tensor) -> dict[str, Tensor]:
        """Normalised pixels [N, 3, H, W] -> features by stage name, finest first."""
        return dict(zip(self.wanted, stage_features(self, self.built, self.wanted, x_N3HW), strict=True))


def res5_block(
    *, norm: Norm, stride_in_1x1: bool, groups: int, width_per_group: int, res2_channels: int
) -> tuple[nn.Sequential, int]:
    """The fifth stage as a head over regions of res4 (C4), and its output channels: three bottlenecks, whatever the depth."""
    outputs, middle = res2_channels * 8, groups * width_per_group * 8
    blocks = [
        Bottleneck(
            outputs if block else outputs // 2,
            outputs,
            middle,
            1 if block else 2,
            norm,
            groups=groups,
            stride_in_1x1=stride_in_1x1,
        )
        for block in range(3)
    ]
    return nn.Sequential(*blocks), outputs


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
