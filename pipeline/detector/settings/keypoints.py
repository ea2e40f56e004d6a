"""Settings of the keypoint branch. No torch."""

from typing import Literal

from pipeline.detector.settings.parts import PoolerConfig, require
from pipeline.schema import schema


@schema
class KeypointConfig:
    """Keypoint branch of the second stage (He et al. 2017): 3x3 convolutions, upsampled four times, one heatmap per keypoint.

    One head serves all classes: it has as many heatmaps as the class with most keypoints, and a class's keypoint k is heatmap k.
    Of a class with fewer the further heatmaps are neither learnt nor counted, and not part of its results.
    """

    kind: Literal["conv"]
    pooler: PoolerConfig
    """Its own ROIAlign; heatmaps have four times its cells a side."""
    channels: tuple[int, ...]
    """Output channels of each convolution."""
    keypoints: int
    """Heatmaps: the most keypoints that a class of the dataset has; COCO's people have 17."""
    normalise: Literal["visible", "sampled"]
    """What the loss is divided by: the visible keypoints learnt from, or a fixed number, the keypoints of all positive regions
    that `sample` could draw."""
    loss_weight: float
    least_visible: int
    """Pictures with fewer visible keypoints are left out of training; 0 keeps all."""

    def __post_init__(self) -> None:
        require(self.keypoints > 0, "roi.keypoint.keypoints", self.keypoints, "must be above 0")
        require(all(c > 0 for c in self.channels), "roi.keypoint.channels", self.channels, "must be above 0")
        require(self.loss_weight >= 0, "roi.keypoint.loss_weight", self.loss_weight, "must be 0 or more")
        require(self.least_visible >= 0, "roi.keypoint.least_visible", self.least_visible, "must be 0 or more")
