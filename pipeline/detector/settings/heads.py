"""Settings of the first and the second stage. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.detector.settings.backbones import FPNConfig
from pipeline.detector.settings.custom import CustomHeadConfig
from pipeline.detector.settings.densepose import DensePoseConfig, check_groups
from pipeline.detector.settings.keypoints import KeypointConfig
from pipeline.detector.settings.losses import BoxLossConfig
from pipeline.detector.settings.masks import MaskConfig, PointRendConfig
from pipeline.detector.settings.parts import (
    HeadNorm,
    Level,
    MatchConfig,
    PoolerConfig,
    SampleConfig,
    SelectConfig,
    TopKConfig,
    require,
)
from pipeline.schema import schema
from pipeline.tasks import Task


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
    boundary: float | None
    """Anchors that reach further than so many pixels outside their picture are ignored in training; null takes all."""


@schema
class BoxHeadConfig:
    """Convolutions, then fully connected layers over a region's features."""

    kind: Literal["fc"]
    convs: int
    conv_channels: int
    fcs: int
    fc_channels: int
    norm: HeadNorm
    """After the convolutions."""


@schema
class Res5HeadConfig:
    """The backbone's fifth stage over a region's res4 features, then their mean (C4): shaped like the backbone's other stages."""

    kind: Literal["res5"]


@schema
class SoftmaxConfig:
    """One class or background per region."""

    kind: Literal["softmax"]


@schema
class FederatedConfig:
    """Loss over the classes of a step's regions and drawn others (Zhou et al. 2021), where labels are not exhaustive."""

    classes: int
    """Classes that count in a step."""
    power: float
    """Of a class's frequency: its weight in the draw."""

    def __post_init__(self) -> None:
        require(self.classes > 0, "roi.class_loss.federated.classes", self.classes, "must be above 0")
        require(self.power >= 0, "roi.class_loss.federated.power", self.power, "must be 0 or more")


@schema
class SigmoidConfig:
    """Each class on its own: for many classes (LVIS)."""

    kind: Literal["sigmoid"]
    federated: FederatedConfig | None
    """Null counts every class."""


@schema
class CascadeStageConfig:
    """A further stage of Cascade R-CNN (Cai and Vasconcelos 2018): it starts from the boxes of the stage before."""

    iou: float
    """From this IoU with a truth on a box is positive."""
    box_weights: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        require(0 < self.iou <= 1, "roi.cascade.iou", self.iou, "must be in (0, 1]")


@schema
class BoxROIConfig:
    """Second stage: from proposals to classes and boxes."""

    levels: tuple[Level, ...]
    match: MatchConfig
    sample: SampleConfig
    append_truths: bool
    """Truths join the proposals in training, after them."""
    pooler: PoolerConfig
    head: Annotated[BoxHeadConfig | Res5HeadConfig | CustomHeadConfig, pydantic.Field(discriminator="kind")]
    class_loss: Annotated[SoftmaxConfig | SigmoidConfig, pydantic.Field(discriminator="kind")]
    cascade: tuple[CascadeStageConfig, ...]
    """Stages after the first; empty for one stage. Each has a head and a predictor of its own."""
    train_on_predicted: bool
    """The heads beside the box head learn from the boxes that the box head makes of the drawn regions, not from these."""
    class_agnostic: bool
    """One box per region for all classes, or one per class."""
    box_weights: tuple[float, float, float, float]
    box_loss: BoxLossConfig
    densepose: DensePoseConfig | None
    """Also a dense pose per detection (DensePose R-CNN); null for none."""
    select: SelectConfig
    mask: MaskConfig | None
    """Also a mask per detection (Mask R-CNN, PointRend); null for none."""
    keypoint: KeypointConfig | None
    """Also keypoints per detection (Keypoint R-CNN); null for none."""

    def __post_init__(self) -> None:
        alone = not self.cascade or self.class_agnostic
        require(alone, "roi.class_agnostic", self.class_agnostic, "must be true in a cascade: a stage's boxes have no class yet")
        res5 = self.head.kind == "res5"
        require(not (res5 and self.cascade), "roi.cascade", self.cascade, "must be empty with roi.head.kind=res5")
        if self.keypoint is not None:
            require(not res5, "roi.keypoint", self.keypoint.kind, "must be null with roi.head.kind=res5")
        if isinstance(self.mask, PointRendConfig):
            require(not res5, "roi.mask.kind", self.mask.kind, "must be conv with roi.head.kind=res5")
            points = () if self.mask.point_head is None else self.mask.point_head.levels
            for field, levels in (("mask.levels", self.mask.levels), ("mask.point_head.levels", points)):
                missing = [level for level in levels if level not in self.levels]
                require(not missing, f"roi.{field}", levels, f"must be among roi.levels: {', '.join(self.levels)}")
        elif self.mask is not None:
            rule = "must be null with roi.head.kind=res5, whose features masks share, and not null with another head"
            require((self.mask.pooler is None) == res5, "roi.mask.pooler", self.mask.pooler, rule)
        if self.cascade:
            thresholds = self.match.thresholds
            require(
                len(thresholds) == 1, "roi.match.thresholds", thresholds, "must be one IoU in a cascade: that of its first stage"
            )

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the second stage learns and finds."""
        beside: dict[Task, object] = {"segm": self.mask, "keypoints": self.keypoint, "densepose": self.densepose}
        return ("bbox", *(task for task, head in beside.items() if head is not None))


def check_densepose(roi: BoxROIConfig, fpn: FPNConfig) -> None:
    """ConfigError unless the dense pose head fits the pyramid that it reads."""
    dense = roi.densepose
    if dense is None:
        return
    if dense.decoder is not None:
        finest = 2 ** int(roi.levels[0][1:])
        require(dense.decoder.stride == finest, "roi.densepose.decoder.stride", dense.decoder.stride, f"must be {finest}")
        outputs = dense.decoder.outputs
        require(outputs == fpn.channels, "roi.densepose.decoder.outputs", outputs, f"must be {fpn.channels}: the pyramid's")
    if dense.head.kind == "deeplab":
        check_groups("fpn.channels", fpn.channels, "group")
