"""Settings of the detectors (`model:` in conf/). Types, meanings and rules; values live in conf/model/. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.detector.settings.backbones import BackboneConfig, FPNConfig, check_levels
from pipeline.detector.settings.custom import CustomModelConfig
from pipeline.detector.settings.heads import BoxROIConfig, RPNConfig
from pipeline.detector.settings.losses import BoxLossConfig
from pipeline.detector.settings.parts import (
    AnchorConfig,
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
    weights: str | None
    """Pretrained weights of the whole detector, or null: a public Detectron2 checkpoint (.pkl or .pth), a torchvision state dict,
    or a detector of ours (.safetensors). Heads for another number of classes start anew."""
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

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("bbox",) if self.roi.mask is None else ("bbox", "segm")


@schema
class ProposalNetworkConfig:
    """The region proposal network alone: class-free boxes."""

    kind: Literal["rpn"]
    weights: str | None
    """Pretrained weights of the whole detector, or null; see FasterRCNNConfig."""
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
        return ("bbox",)


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
    weights: str | None
    """Pretrained weights of the whole detector, or null; see FasterRCNNConfig."""
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
    clip: bool
    """Clip boxes to the picture before NMS (torchvision) instead of after all (the reference)."""
    select: SelectConfig

    def __post_init__(self) -> None:
        check_levels(self.fpn, "levels", self.levels)
        check_anchors(self.anchors, self.levels)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("bbox",)


ModelConfig = Annotated[
    RetinaNetConfig | FasterRCNNConfig | ProposalNetworkConfig | CustomModelConfig, pydantic.Field(discriminator="kind")
]
