"""Settings of the detectors (`model:` in conf/). Types, meanings and rules; values live in conf/model/. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.detector.settings.backbones import BackboneConfig, FPNConfig, check_levels
from pipeline.detector.settings.heads import BoxROIConfig, RPNConfig
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
from pipeline.detector.settings.rotated import (
    RotatedAnchorConfig,
    RotatedROIConfig,
    RotatedRPNConfig,
    check_rotated_anchors,
)
from pipeline.detector.settings.tensormask import TensorMaskHeadConfig, TensorMaskLossConfig
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
        check_anchors(self.anchors, self.rpn.levels)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("bbox",) if self.roi.mask is None else ("bbox", "segm")


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


@schema
class RotatedFasterRCNNConfig:
    """Faster R-CNN of rotated boxes (Ma et al. 2018)."""

    kind: Literal["rotated_faster_rcnn"]
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
        return ("rotated",)


@schema
class TensorMaskConfig:
    """Chen et al. 2019: one stage, dense masks by aligned tensor bipyramids."""

    kind: Literal["tensormask"]
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig
    levels: tuple[Level, ...]
    window_cells: tuple[int, ...]
    """Sides of the windows at every cell, in strides of the level: 11 and 15 give 44 and 60 pixels on p2."""
    head: TensorMaskHeadConfig
    loss: TensorMaskLossConfig
    box_weights: tuple[float, float, float, float]
    box_loss: BoxLossConfig
    candidates: int
    """Best (window, class) pairs of all levels that enter NMS."""
    select: SelectConfig
    mask_cells: int
    """Cells a side of the masks that are given out, over each detection's box."""

    def __post_init__(self) -> None:
        check_levels(self.fpn, "levels", self.levels)
        rising = bool(self.window_cells) and list(self.window_cells) == sorted(set(self.window_cells))
        require(rising and self.window_cells[0] > 1, "window_cells", self.window_cells, "must rise, from 2 or more")
        require(self.mask_cells > 0, "mask_cells", self.mask_cells, "must be above 0")

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return ("bbox", "segm")


ModelConfig = Annotated[
    RetinaNetConfig
    | FasterRCNNConfig
    | ProposalNetworkConfig
    | RotatedFasterRCNNConfig
    | RotatedProposalNetworkConfig
    | TensorMaskConfig,
    pydantic.Field(discriminator="kind"),
]
