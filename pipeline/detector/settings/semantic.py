"""Settings of the semantic branch and of panoptic merging. No torch."""

from pipeline.detector.settings.parts import HeadNorm, Level, require
from pipeline.schema import schema


@schema
class SemanticConfig:
    """Semantic branch of Panoptic FPN (Kirillov et al. 2019): levels brought to one stride, added, one logit per class."""

    levels: tuple[Level, ...]
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
