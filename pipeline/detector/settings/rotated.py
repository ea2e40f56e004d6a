"""Settings of rotated detectors, where they differ from the upright ones. No torch."""

from typing import Literal

from pipeline.detector.settings.backbones import BackboneConfig, FPNConfig, check_levels
from pipeline.detector.settings.heads import BoxHeadConfig
from pipeline.detector.settings.parts import (
    AnchorConfig,
    InputConfig,
    Level,
    MatchConfig,
    SampleConfig,
    SelectConfig,
    TopKConfig,
    check_anchors,
    require,
)
from pipeline.schema import schema
from pipeline.tasks import Task

Weights = tuple[float, float, float, float, float]
"""Scales of the deltas (dx, dy, dw, dh, da)."""


@schema
class RotatedAnchorConfig:
    """Rotated anchors per level: every size with every ratio and angle, at every cell."""

    sizes: tuple[tuple[float, ...], ...]
    """Per level, square roots of anchor areas in pixels; one entry serves all levels."""
    ratios: tuple[tuple[float, ...], ...]
    """Per level, height / width; one entry serves all levels."""
    angles: tuple[tuple[float, ...], ...]
    """Per level, degrees counter-clockwise; one entry serves all levels."""
    offset: float
    """Shift of the grid in strides: 0 puts the first centre at the picture's corner, 0.5 at the first cell's centre."""

    def __post_init__(self) -> None:
        self.upright()  # which checks the others
        usual = all(-360 <= angle <= 360 for level in self.angles for angle in level)
        require(usual and all(self.angles), "anchors.angles", self.angles, "must be in -360..360, at least one per level")

    def upright(self) -> AnchorConfig:
        """The same anchors without their angles."""
        return AnchorConfig(sizes=self.sizes, ratios=self.ratios, offset=self.offset, rounding=False, spacing="stride")


def check_rotated_anchors(anchors: RotatedAnchorConfig, levels: tuple[str, ...]) -> None:
    """ConfigError unless sizes, ratios and angles are given once or once per level."""
    check_anchors(anchors.upright(), levels)
    rule = f"must have 1 entry or one per level ({len(levels)})"
    require(len(anchors.angles) in (1, len(levels)), "anchors.angles", anchors.angles, rule)


@schema
class RotatedBoxLossConfig:
    """Loss of the box regression; losses of the overlap are for upright boxes."""

    kind: Literal["smooth_l1"]
    beta: float
    """The absolute error in deltas below which the loss is quadratic; 0 is L1."""
    weight: float
    """Factor of this loss."""

    def __post_init__(self) -> None:
        require(self.beta >= 0, "box_loss.beta", self.beta, "must be >= 0")


@schema
class RotatedRPNConfig:
    """Region proposal network over rotated anchors."""

    levels: tuple[Level, ...]
    convs: tuple[int, ...]
    """Output channels of each 3x3 convolution of the head; -1 keeps the input's."""
    match: MatchConfig
    sample: SampleConfig
    box_weights: Weights
    box_loss: RotatedBoxLossConfig
    loss_weight: float
    """Factor of the objectness loss."""
    train: TopKConfig
    test: TopKConfig
    nms: float
    """Rotated IoU above which the lower of two proposals of a level goes."""
    min_size: float
    """Both sides of a proposal must be longer than this many pixels."""


@schema
class RotatedPoolerConfig:
    """ROIAlign of rotated boxes from the pyramid; always half-pixel-correct."""

    size: int
    """Cells a side."""
    sampling_ratio: int
    """Samples per cell and side; 0 is adaptive."""
    canonical_size: float
    """Side in pixels of the box that reads level p<canonical_level>."""
    canonical_level: int


@schema
class RotatedROIConfig:
    """Second stage: from rotated proposals to classes and rotated boxes."""

    levels: tuple[Level, ...]
    match: MatchConfig
    sample: SampleConfig
    append_truths: bool
    """Truths join the proposals in training, after them."""
    pooler: RotatedPoolerConfig
    head: BoxHeadConfig
    class_agnostic: bool
    """One box per region for all classes, or one per class."""
    box_weights: Weights
    box_loss: RotatedBoxLossConfig
    select: SelectConfig
    """`nms` is a rotated IoU."""


@schema
class RotatedFasterRCNNConfig:
    """Faster R-CNN of rotated boxes (Ma et al. 2018)."""

    kind: Literal["rotated_faster_rcnn"]
    weights: str | None
    """Pretrained weights of the whole detector, or null; see FasterRCNNConfig."""
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig
    anchors: RotatedAnchorConfig
    rpn: RotatedRPNConfig
    roi: RotatedROIConfig

    def __post_init__(self) -> None:
        check_levels(self.fpn, "rpn.levels", self.rpn.levels)
        check_levels(self.fpn, "roi.levels", self.roi.levels)
        check_rotated_anchors(self.anchors, self.rpn.levels)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("rotated",)


@schema
class RotatedProposalNetworkConfig:
    """The rotated region proposal network alone (Ma et al. 2018): class-free rotated boxes."""

    kind: Literal["rotated_rpn"]
    weights: str | None
    """Pretrained weights of the whole detector, or null; see FasterRCNNConfig."""
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig
    anchors: RotatedAnchorConfig
    rpn: RotatedRPNConfig

    def __post_init__(self) -> None:
        check_levels(self.fpn, "rpn.levels", self.rpn.levels)
        check_rotated_anchors(self.anchors, self.rpn.levels)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("rotated", "proposals")
