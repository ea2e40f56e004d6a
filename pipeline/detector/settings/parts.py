"""Settings that several detectors share: input, anchors, matching, sampling, selection. No torch."""

from typing import Literal

from pipeline.errors import ConfigError
from pipeline.schema import schema

Stage = Literal["res2", "res3", "res4", "res5"]
"""Backbone stage by stride: res2 = 4, res3 = 8, res4 = 16, res5 = 32 (the reference's names, also for timm models)."""
Level = Literal["p2", "p3", "p4", "p5", "p6", "p7", "res2", "res3", "res4", "res5"]
"""Pyramid level p<n> of stride 2**n, or without a pyramid the backbone's stage itself."""
Norm = Literal["frozen", "affine", "batch", "sync", "group", "layer"]
"""frozen: statistics, scale and shift fixed; affine: statistics fixed, scale and shift trained; batch: batch norm; sync: batch
norm over all processes; group: group norm of 32 groups; layer: layer norm of the channels."""
HeadNorm = Literal["none", "frozen", "batch", "sync", "group", "layer"]
"""Norm after a head's or a pyramid's convolutions; none gives them a bias instead."""


def require(condition: bool, field: str, value: object, rule: str) -> None:
    """ConfigError naming `model.<field>` unless the condition holds."""
    if not condition:
        raise ConfigError(f"model.{field}", value, rule)


@schema
class InputConfig:
    """How a picture becomes the network's input: used by the loader, evaluation, export and predict."""

    short_side: int
    """Pixels of the shorter side after resizing, unless the longer one would exceed `long_side`."""
    long_side: int
    """Largest longer side in pixels."""
    channels: Literal["rgb", "bgr"]
    """Channel order of the network; public Detectron2 checkpoints are bgr."""
    mean: tuple[float, float, float]
    """Subtracted from the 0..255 pixels, in the order of `channels`."""
    std: tuple[float, float, float]
    """Divides after the mean is subtracted."""

    def __post_init__(self) -> None:
        require(self.short_side >= 32, "input.short_side", self.short_side, "must be at least 32 pixels")
        require(self.long_side >= self.short_side, "input.long_side", self.long_side, f"must be >= short_side={self.short_side}")
        require(min(self.std) > 0, "input.std", self.std, "must be above 0")


@schema
class AnchorConfig:
    """Anchors per level: every size with every ratio, at every cell."""

    sizes: tuple[tuple[float, ...], ...]
    """Per level, square roots of anchor areas in pixels; one entry serves all levels."""
    ratios: tuple[tuple[float, ...], ...]
    """Per level, height / width; one entry serves all levels."""
    offset: float
    """Shift of the grid in strides: 0 puts the first centre at the picture's corner, 0.5 at the first cell's centre."""
    rounding: bool
    """Round the anchors at the origin to whole pixels, as torchvision's detectors do."""
    spacing: Literal["stride", "grid"]
    """Pixels between cells: the level's stride, or, as torchvision, the padded picture's side divided by the level's cells and
    rounded down. They differ only where a level above p5 has a rounded number of cells."""

    def __post_init__(self) -> None:
        require(all(s > 0 for level in self.sizes for s in level), "anchors.sizes", self.sizes, "must be above 0")
        require(all(r > 0 for level in self.ratios for r in level), "anchors.ratios", self.ratios, "must be above 0")
        require(0 <= self.offset < 1, "anchors.offset", self.offset, "must be in [0, 1)")


@schema
class MatchConfig:
    """Which boxes are positive, negative or ignored, by their best IoU with a truth."""

    thresholds: tuple[float, ...]
    """Rising IoU limits; an interval is low <= IoU < high."""
    labels: tuple[Literal[-1, 0, 1], ...]
    """Label per interval, one more than thresholds: 1 positive, 0 negative, -1 ignored."""
    low_quality: bool
    """Also make each truth's best boxes positive, however small their IoU."""

    def __post_init__(self) -> None:
        require(list(self.thresholds) == sorted(self.thresholds), "match.thresholds", self.thresholds, "must rise")
        wanted = len(self.thresholds) + 1
        require(len(self.labels) == wanted, "match.labels", self.labels, f"must have {wanted} entries: one per interval")


@schema
class SampleConfig:
    """How many boxes of an image train a head."""

    count: int
    """Boxes per image."""
    positive_fraction: float
    """Largest share of positives; negatives fill the rest."""
    order: Literal["random", "first"]
    """random: drawn by the injected generator; first: lowest index (for comparisons with other implementations)."""

    def __post_init__(self) -> None:
        require(self.count > 0, "sample.count", self.count, "must be above 0")
        require(0 < self.positive_fraction <= 1, "sample.positive_fraction", self.positive_fraction, "must be in (0, 1]")


@schema
class BoxLossConfig:
    """Loss of the box regression."""

    kind: Literal["smooth_l1", "giou", "diou", "ciou"]
    beta: float
    """Smooth L1: the absolute error in deltas below which it is quadratic; 0 is L1. Unused by the others."""
    weight: float
    """Factor of this loss."""

    def __post_init__(self) -> None:
        require(self.beta >= 0, "box_loss.beta", self.beta, "must be >= 0")


@schema
class TopKConfig:
    """Proposals kept before NMS (per level) and after it (over all levels)."""

    before_nms: int
    after_nms: int

    def __post_init__(self) -> None:
        require(self.before_nms > 0, "rpn.*.before_nms", self.before_nms, "must be above 0")
        require(self.after_nms > 0, "rpn.*.after_nms", self.after_nms, "must be above 0")


@schema
class PoolerConfig:
    """Features of a region from the pyramid."""

    method: Literal["align", "pool"]
    """align: ROIAlign, bilinear samples; pool: ROIPool of Fast R-CNN, the largest of whole cells (the next two mean nothing)."""
    size: int
    """Cells a side."""
    sampling_ratio: int
    """Samples per cell and side; 0 is adaptive."""
    aligned: bool
    """Half-pixel-correct ROIAlign, or the legacy form."""
    canonical_size: float
    """Side in pixels of the box that reads level p<canonical_level>."""
    canonical_level: int


@schema
class SelectConfig:
    """Which detections are given out."""

    score: float
    """Scores must be above it."""
    nms: float
    """IoU above which the lower of two detections of a class goes."""
    limit: int
    """Most detections per image."""
    min_size: float
    """Boxes below so many pixels a side go before NMS; 0 keeps all (torchvision's two-stage detectors: 0.01)."""

    def __post_init__(self) -> None:
        require(0 <= self.score < 1, "select.score", self.score, "must be in [0, 1)")
        require(self.limit > 0, "select.limit", self.limit, "must be above 0")


def check_anchors(anchors: AnchorConfig, levels: tuple[str, ...]) -> None:
    """ConfigError unless sizes and ratios are given once or once per level."""
    for field, entries in (("sizes", anchors.sizes), ("ratios", anchors.ratios)):
        rule = f"must have 1 entry or one per level ({len(levels)})"
        require(len(entries) in (1, len(levels)), f"anchors.{field}", entries, rule)
