"""Settings of the mask branches. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.detector.settings.parts import HeadNorm, Level, PoolerConfig, require
from pipeline.schema import schema

MaskTargets = Literal["polygons", "bitmaps"]
"""polygons: outlines are rasterised in each region's frame; bitmaps: on the picture's pixels, then the region's part averaged."""


@schema
class ConvMaskConfig:
    """Mask branch of Mask R-CNN (He et al. 2017): 3x3 convolutions, upsampled twice, one mask per class."""

    kind: Literal["conv"]
    pooler: PoolerConfig | None
    """Its own pooler; masks have twice its cells a side. Null takes the features of the box head, which must be res5."""
    convs: int
    norm: HeadNorm
    """After the convolutions."""
    channels: int
    """Of the convolutions and of the upsampled features."""
    class_agnostic: bool
    """One mask per region for all classes, or one per class."""
    targets: MaskTargets

    def __post_init__(self) -> None:
        require(self.convs >= 0, "roi.mask.convs", self.convs, "must be 0 or more")
        require(self.channels > 0, "roi.mask.channels", self.channels, "must be above 0")


@schema
class PointHeadConfig:
    """PointRend's point head: fully connected layers per point, over fine features and the coarse mask's logits there."""

    levels: tuple[Level, ...]
    """Where fine features are read; those of several levels are joined."""
    layers: int
    channels: int
    coarse_each_layer: bool
    """Every layer sees the coarse logits again, not only the first."""
    class_agnostic: bool
    """One prediction per point for all classes, or one per class."""
    train_points: int
    """Points per region that are learnt from."""
    oversample: float
    """So many times more are drawn, to choose the least certain from."""
    important: float
    """Share of the points that are the least certain ones; the others are drawn anew."""
    steps: int
    """Doublings of the mask's side after the coarse one. Those that give no more cells than `points` cost no step: all of them
    are predicted at once."""
    points: int
    """Least certain cells that a step predicts anew."""

    def __post_init__(self) -> None:
        require(self.layers >= 0, "roi.mask.point_head.layers", self.layers, "must be 0 or more")
        require(self.channels > 0, "roi.mask.point_head.channels", self.channels, "must be above 0")
        require(self.train_points > 0, "roi.mask.point_head.train_points", self.train_points, "must be above 0")
        require(self.oversample >= 1, "roi.mask.point_head.oversample", self.oversample, "must be 1 or more")
        require(0 <= self.important <= 1, "roi.mask.point_head.important", self.important, "must be in [0, 1]")
        require(self.steps >= 0, "roi.mask.point_head.steps", self.steps, "must be 0 or more")
        require(self.points > 0, "roi.mask.point_head.points", self.points, "must be above 0")


@schema
class PointRendConfig:
    """PointRend for instances (Kirillov et al. 2020): a coarse mask from fully connected layers, refined point by point."""

    kind: Literal["point_rend"]
    levels: tuple[Level, ...]
    """Where the coarse head's features are read, at a regular grid of points over the box."""
    side: int
    """Points a side of that grid; even."""
    channels: int
    """Of the convolution that halves the grid; with more in the features a 1x1 convolution reduces them first."""
    fcs: int
    fc_channels: int
    size: int
    """Cells a side of the coarse mask."""
    targets: MaskTargets
    """What the coarse mask learns; points learn from bitmaps."""
    point_head: PointHeadConfig | None
    """null: the coarse mask is the result."""

    def __post_init__(self) -> None:
        require(self.side >= 2 and self.side % 2 == 0, "roi.mask.side", self.side, "must be even, 2 or more")
        require(self.channels > 0, "roi.mask.channels", self.channels, "must be above 0")
        require(self.fcs >= 0, "roi.mask.fcs", self.fcs, "must be 0 or more")
        require(self.fc_channels > 0, "roi.mask.fc_channels", self.fc_channels, "must be above 0")
        require(self.size > 0, "roi.mask.size", self.size, "must be above 0")


MaskConfig = Annotated[ConvMaskConfig | PointRendConfig, pydantic.Field(discriminator="kind")]
