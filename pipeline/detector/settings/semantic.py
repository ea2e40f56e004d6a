"""Settings of semantic and panoptic detectors. No torch."""

from typing import Literal

from pipeline.detector.settings.backbones import BackboneConfig, FPNConfig, check_levels
from pipeline.detector.settings.heads import BoxROIConfig, RPNConfig
from pipeline.detector.settings.parts import AnchorConfig, HeadNorm, InputConfig, check_anchors, require
from pipeline.schema import schema
from pipeline.tasks import Task


@schema
class SemanticConfig:
    """Semantic branch of Panoptic FPN (Kirillov et al. 2019): levels brought to one stride, added, one logit per class."""

    levels: tuple[Literal["p2", "p3", "p4", "p5", "p6", "p7"], ...]
    """Pyramid levels that are added up."""
    channels: int
    """Of every 3x3 convolution."""
    common_stride: int
    """Stride that the levels are brought to, a power of two; the logits' stride."""
    norm: HeadNorm
    """After every convolution."""
    ignore_value: int
    """Class in the maps that teaches nothing; 255 never does."""
    loss_weight: float
    """Factor of the loss."""

    def __post_init__(self) -> None:
        strides = [2 ** int(level[1:]) for level in self.levels]
        require(bool(strides), "semantic.levels", self.levels, "must name a level")
        require(self.channels > 0, "semantic.channels", self.channels, "must be above 0")
        fits = self.norm != "group" or self.channels % 32 == 0
        require(fits, "semantic.channels", self.channels, "must be a multiple of 32 where semantic.norm is group")
        power = self.common_stride > 0 and self.common_stride & (self.common_stride - 1) == 0
        require(power, "semantic.common_stride", self.common_stride, "must be a power of two")
        finest = min(strides)
        rule = f"must not be above {finest}, the stride of the finest of semantic.levels"
        require(self.common_stride <= finest, "semantic.common_stride", self.common_stride, rule)
        require(self.loss_weight >= 0, "semantic.loss_weight", self.loss_weight, "must be 0 or more")


@schema
class CombineConfig:
    """How things and stuff become one panoptic map; outside the network."""

    overlap: float
    """A detection is left out when more than this share of its mask is taken by better ones."""
    stuff_area: float
    """Least pixels of a stuff segment."""
    score: float
    """Least score of a detection."""

    def __post_init__(self) -> None:
        require(0 <= self.overlap <= 1, "combine.overlap", self.overlap, "is a share: 0 to 1")
        require(self.stuff_area >= 0, "combine.stuff_area", self.stuff_area, "must be 0 or more pixels")
        require(0 <= self.score <= 1, "combine.score", self.score, "is a score: 0 to 1")


@schema
class SemanticFPNConfig:
    """The semantic branch of Panoptic FPN alone (Kirillov et al. 2019): a class for every pixel."""

    kind: Literal["semantic_fpn"]
    weights: str | None
    """Pretrained weights of the whole detector, or null; see FasterRCNNConfig."""
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig
    semantic: SemanticConfig

    def __post_init__(self) -> None:
        for level in self.semantic.levels:
            check_levels(self.fpn, "semantic.levels", (level,))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("semantic",)


@schema
class PanopticFPNConfig:
    """Kirillov et al. 2019: Mask R-CNN and a semantic branch on one pyramid, merged into panoptic maps."""

    kind: Literal["panoptic_fpn"]
    weights: str | None
    """Pretrained weights of the whole detector, or null; see FasterRCNNConfig."""
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig
    anchors: AnchorConfig
    rpn: RPNConfig
    roi: BoxROIConfig
    semantic: SemanticConfig
    combine: CombineConfig
    instance_weight: float
    """Factor of the second stage's losses of boxes and masks; that of its classes keeps 1, as in the reference."""

    def __post_init__(self) -> None:
        check_levels(self.fpn, "rpn.levels", self.rpn.levels)
        check_levels(self.fpn, "roi.levels", self.roi.levels)
        check_anchors(self.anchors, self.rpn.levels)
        for level in self.semantic.levels:
            check_levels(self.fpn, "semantic.levels", (level,))
        require(self.roi.head.kind != "res5", "roi.head.kind", self.roi.head.kind, "needs fpn: null, and panoptic maps a pyramid")
        require(self.roi.mask is not None, "roi.mask", None, "is needed: panoptic maps are made of masks")
        require(self.instance_weight >= 0, "instance_weight", self.instance_weight, "must be 0 or more")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("bbox", "segm", "semantic", "panoptic")
