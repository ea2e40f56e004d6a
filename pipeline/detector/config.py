"""Settings of the detectors (`model:` in conf/). Types, meanings and rules; values live in conf/model/. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.detector.settings.backbones import BackboneConfig, FPNConfig, check_levels
from pipeline.detector.settings.custom import CustomModelConfig
from pipeline.detector.settings.heads import BoxROIConfig, RPNConfig, check_densepose
from pipeline.detector.settings.losses import BoxLossConfig
from pipeline.detector.settings.parts import (
    AnchorConfig,
    HeadNorm,
    InputConfig,
    Level,
    MatchConfig,
    SelectConfig,
    check_anchors,
    require,
)
from pipeline.detector.settings.rotated import RotatedFasterRCNNConfig, RotatedProposalNetworkConfig
from pipeline.detector.settings.semantic import PanopticFPNConfig, SemanticFPNConfig
from pipeline.detector.settings.tensormask import TensorMaskHeadConfig, TensorMaskLossConfig
from pipeline.schema import schema
from pipeline.tasks import Task


@schema
class FasterRCNNConfig:
    """Ren et al. 2015: proposals, then one head per region; with `roi.mask` it is Mask R-CNN (He et al. 2017), with `roi.cascade`
    Cascade R-CNN (Cai and Vasconcelos 2018)."""

    kind: Literal["faster_rcnn"]
    weights: str | None
    """Pretrained weights of the whole detector, or null: a public Detectron2 checkpoint (.pkl or .pth), a torchvision state dict,
    or a detector of ours (.safetensors). Heads for another number of classes start anew."""
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig | None
    """Null takes the stages themselves as levels (C4: res4; DC5: res5)."""
    anchors: AnchorConfig
    rpn: RPNConfig
    roi: BoxROIConfig

    def __post_init__(self) -> None:
        check_levels(self.fpn, "rpn.levels", self.rpn.levels)
        check_levels(self.fpn, "roi.levels", self.roi.levels)
        if self.fpn is not None:
            check_densepose(self.roi, self.fpn)
        else:
            require(self.roi.densepose is None, "roi.densepose", None, "needs a pyramid: fpn")
        check_anchors(self.anchors, self.rpn.levels)
        check_second_stage(self.backbone, self.fpn, self.roi)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return self.roi.tasks


@schema
class ProposalsConfig:
    """Boxes that the dataset brings (proposals/<split>.npz), by falling score."""

    train: int
    """Most of a picture's in training."""
    test: int
    """Most of a picture's at test."""
    min_size: float
    """Proposals must be wider and higher than this many pixels."""

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            require(getattr(self, name) > 0, f"proposals.{name}", getattr(self, name), "must be above 0")


@schema
class FastRCNNConfig:
    """Girshick 2015: one head per region, regions coming with the pictures."""

    kind: Literal["fast_rcnn"]
    weights: str | None
    """Pretrained weights of the whole detector, or null; see FasterRCNNConfig."""
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig | None
    """Null takes the stages themselves as levels (C4: res4; DC5: res5)."""
    proposals: ProposalsConfig
    roi: BoxROIConfig

    def __post_init__(self) -> None:
        check_levels(self.fpn, "roi.levels", self.roi.levels)
        check_second_stage(self.backbone, self.fpn, self.roi)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return self.roi.tasks


@schema
class ProposalNetworkConfig:
    """The region proposal network alone: class-free boxes."""

    kind: Literal["rpn"]
    weights: str | None
    """Pretrained weights of the whole detector, or null; see FasterRCNNConfig."""
    input: InputConfig
    backbone: BackboneConfig
    fpn: FPNConfig | None
    """Null takes a stage itself as the level (C4: res4)."""
    anchors: AnchorConfig
    rpn: RPNConfig

    def __post_init__(self) -> None:
        check_levels(self.fpn, "rpn.levels", self.rpn.levels)
        check_anchors(self.anchors, self.rpn.levels)
        check_pyramid(self.backbone, self.fpn)

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
    norm: HeadNorm
    """After the towers' convolutions (beside their bias); statistics of a batch norm are kept per level."""

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


def check_pyramid(backbone: BackboneConfig, fpn: FPNConfig | None) -> None:
    """ConfigError unless the backbone's stages can do without the pyramid where there is none, and double in stride below one."""
    if fpn is not None and backbone.kind == "resnet" and "res5" in fpn.stages:
        require(backbone.res5_dilation == 1, "backbone.res5_dilation", backbone.res5_dilation, "must be 1 below a pyramid")
    fits = fpn is not None or backbone.kind == "resnet"
    require(fits, "fpn", None, "may be null with backbone.kind=resnet only: other models' stages have no such form")


def check_second_stage(backbone: BackboneConfig, fpn: FPNConfig | None, roi: BoxROIConfig) -> None:
    """ConfigError unless backbone, pyramid and second stage fit together."""
    check_pyramid(backbone, fpn)
    if roi.head.kind == "res5":
        fits = fpn is None and tuple(roi.levels) == ("res4",)
        require(fits, "roi.levels", roi.levels, "must be [res4] with fpn: null where roi.head.kind=res5")
        if backbone.kind == "resnet" and backbone.deform is not None:
            plain = "res5" not in backbone.deform.stages
            require(plain, "backbone.deform.stages", backbone.deform.stages, "must not name res5 where it is the head")


@schema
class TensorMaskConfig:
    """Chen et al. 2019: one stage, dense masks by aligned tensor bipyramids."""

    kind: Literal["tensormask"]
    weights: str | None
    """Pretrained weights of the whole detector, or null; see FasterRCNNConfig."""
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
    | FastRCNNConfig
    | ProposalNetworkConfig
    | SemanticFPNConfig
    | PanopticFPNConfig
    | RotatedFasterRCNNConfig
    | RotatedProposalNetworkConfig
    | TensorMaskConfig
    | CustomModelConfig,
    pydantic.Field(discriminator="kind"),
]


def takes_proposals(cfg: ModelConfig) -> bool:
    """Whether a detector of these settings looks at proposals that come with the pictures."""
    return cfg.kind == "fast_rcnn"
