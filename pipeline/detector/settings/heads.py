"""Settings of the first and the second stage. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.detector.settings.custom import CustomHeadConfig
from pipeline.detector.settings.losses import BoxLossConfig
from pipeline.detector.settings.parts import (
    Level,
    MatchConfig,
    PoolerConfig,
    SampleConfig,
    SelectConfig,
    TopKConfig,
    require,
)
from pipeline.schema import schema


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
class BoxHeadConfig:
    """Convolutions, then fully connected layers over a region's features."""

    kind: Literal["conv_fc"]
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
class BoxROIConfig:
    """Second stage: from proposals to classes and boxes."""

    levels: tuple[Level, ...]
    match: MatchConfig
    sample: SampleConfig
    append_truths: bool
    """Truths join the proposals in training, after them."""
    pooler: PoolerConfig
    head: Annotated[BoxHeadConfig | CustomHeadConfig, pydantic.Field(discriminator="kind")]
    class_agnostic: bool
    """One box per region for all classes, or one per class."""
    box_weights: tuple[float, float, float, float]
    box_loss: BoxLossConfig
    select: SelectConfig
    mask: MaskConfig | None
    """Also a mask per detection (Mask R-CNN); null for boxes alone."""
