"""Settings of TensorMask's heads. No torch."""

from pipeline.detector.settings.parts import require
from pipeline.schema import schema


@schema
class TensorMaskHeadConfig:
    """Towers of 3x3 convolutions shared by the levels, for classes, boxes and masks."""

    convs: int
    class_channels: int
    box_channels: int
    mask_channels: int
    prior: float
    """Probability that every class starts with."""

    def __post_init__(self) -> None:
        require(self.convs > 0, "head.convs", self.convs, "must be above 0")
        require(0 < self.prior < 1, "head.prior", self.prior, "must be in (0, 1)")


@schema
class TensorMaskLossConfig:
    """Weights of the losses."""

    focal_alpha: float
    """Weight of positives, 1 - it of negatives; -1 weighs neither."""
    focal_gamma: float
    mask: float
    """Factor of the mask loss."""
    mask_inside: float
    """Weight of a mask's inner cells against 1 of the outer ones."""
