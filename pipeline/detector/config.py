"""Settings of the detectors (`model:` in conf/). Types, meanings and rules; values live in conf/model/. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.detector.settings.backbones import BackboneConfig, FPNConfig, check_levels
from pipeline.detector.settings.heads import BoxROIConfig, RPNConfig, check_densepose
from pipeline.detector.settings.parts import (
    AnchorConfig,
    BoxLossConfig,
    InputConfig,
    Level,
    MatchConfig,
    SelectConfig,
    check_anchors,
    require,
)
from pipeline.schema import schema
from pipeline.tasks import Task


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
        check_densepose(self.roi, self.fpn)
        check_anchors(self.anchors, self.rpn.levels)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        beside: dict[Task, object] = {"segm": self.roi.mask, "densepose": self.roi.densepose}
        return ("bbox", *(task for task, head in beside.items() if head is not None))


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

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("proposals",)


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

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("bbox",)


ModelConfig = Annotated[RetinaNetConfig | FasterRCNNConfig | ProposalNetworkConfig, pydantic.Field(discriminator="kind")]
