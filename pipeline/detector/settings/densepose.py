"""Settings of the dense pose branch. No torch."""

from typing import Annotated, Literal

import pydantic

from pipeline.detector.settings.parts import PoolerConfig, require
from pipeline.schema import schema

HeadNorm = Literal["none", "group"]
"""Norm after a head's convolutions: none (they have a bias), or group norm of 32 groups."""
GROUPS = 32


@schema
class DenseDecoderConfig:
    """One map from all levels, as the semantic head of Panoptic FPN (Kirillov et al. 2019) makes it."""

    channels: int
    """Of the 3x3 convolutions."""
    outputs: int
    """Of the joined map: what the head's pooler reads."""
    stride: int
    """Of the joined map; the finest level's."""
    norm: HeadNorm

    def __post_init__(self) -> None:
        check_groups("roi.densepose.decoder.channels", self.channels, self.norm)


@schema
class ConvDenseHeadConfig:
    """Stacked convolutions with ReLU (the reference's DensePoseV1ConvXHead)."""

    kind: Literal["conv"]
    convs: int
    channels: int
    kernel: int
    """Odd, in cells."""

    def __post_init__(self) -> None:
        require(self.convs > 0, "roi.densepose.head.convs", self.convs, "must be above 0")
        require(self.kernel % 2 == 1, "roi.densepose.head.kernel", self.kernel, "must be odd")


@schema
class DeepLabDenseHeadConfig:
    """Atrous pyramid pooling of DeepLabV3 (Chen et al. 2017), then stacked convolutions: the reference's DeepLab head."""

    kind: Literal["deeplab"]
    convs: int
    channels: int
    kernel: int
    norm: HeadNorm
    """Of the stacked convolutions; the pyramid pooling always has group norm."""
    nonlocal_block: bool
    """Self-attention (Wang et al. 2018) between the two."""

    def __post_init__(self) -> None:
        require(self.convs > 0, "roi.densepose.head.convs", self.convs, "must be above 0")
        require(self.kernel % 2 == 1, "roi.densepose.head.kernel", self.kernel, "must be odd")
        check_groups("roi.densepose.head.channels", self.channels, self.norm)


DenseHeadConfig = Annotated[ConvDenseHeadConfig | DeepLabDenseHeadConfig, pydantic.Field(discriminator="kind")]


@schema
class UVConfidenceConfig:
    """The error of (u, v) is learnt along (Neverova et al. 2019): its covariance is s I, or s I + k k^T with a vector k."""

    kind: Literal["iid_iso", "indep_aniso"]
    epsilon: float
    """Least s."""

    def __post_init__(self) -> None:
        require(self.epsilon > 0, "roi.densepose.uv_confidence.epsilon", self.epsilon, "must be above 0")


@schema
class DensePoseConfig:
    """Dense pose (Güler et al. 2018): for every cell of a box the part of the object's surface and its (u, v) there."""

    pooler: PoolerConfig
    """Its own ROIAlign; the maps have 2 * `upscale` times its cells a side."""
    decoder: DenseDecoderConfig | None
    """Null: the pooler reads the pyramid itself."""
    head: DenseHeadConfig
    parts: int
    """Parts (charts) of the surface, numbered from 1; 0 is the background. The dataset states them."""
    coarse_channels: Literal[2, 15]
    """Coarse segmentation: object or not, or background and 14 coarse parts."""
    deconv_kernel: int
    """Of the transposed convolutions of stride 2 that give the maps: even, so that they double the size."""
    upscale: int
    """Bilinear factor after them."""
    least_iou: float
    """A region learns when its IoU with its truth is above it."""
    coarse_from_masks: bool
    """The coarse segmentation learns from the objects' outlines, not from the dense labels' part masks; needs 2 channels."""
    uv_confidence: UVConfidenceConfig | None
    segm_confidence: float | None
    """Segmentations are scaled by a learnt confidence of at least this; null for none."""
    coarse_weight: float
    part_weight: float
    point_weight: float
    """Factors of the losses of coarse segmentation, parts at points, and (u, v) at points."""

    def __post_init__(self) -> None:
        require(self.parts > 0, "roi.densepose.parts", self.parts, "must be above 0")
        even = self.deconv_kernel >= 2 and self.deconv_kernel % 2 == 0
        require(even, "roi.densepose.deconv_kernel", self.deconv_kernel, "must be even")
        require(self.upscale > 0, "roi.densepose.upscale", self.upscale, "must be above 0")
        fits = self.coarse_channels == 2 or not self.coarse_from_masks
        require(fits, "roi.densepose.coarse_channels", self.coarse_channels, "must be 2: outlines know no parts")

    @property
    def size(self) -> int:
        """Cells a side of the maps."""
        return self.pooler.size * 2 * self.upscale


def check_groups(field: str, channels: int, norm: HeadNorm) -> None:
    """ConfigError unless group norm divides the channels."""
    require(norm == "none" or channels % GROUPS == 0, field, channels, f"must be a multiple of {GROUPS} for group norm")
