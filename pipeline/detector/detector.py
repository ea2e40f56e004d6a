"""What every detector is to the rest of the line: losses to train with, detections to use."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from pipeline.detector.backbones import ResNetStages
from pipeline.detector.fpn import FPN
from pipeline.detector.losses import Losses, float32
from pipeline.detector.part import WHOLE, Part
from pipeline.detector.pixels import Pixels
from pipeline.structures import Images, Result, Targets


class Detector(nn.Module, ABC):
    """Pixels, backbone, and heads of the subclass. Neither entry point waits for the device or loops over images."""

    takes_proposals: ClassVar[bool] = False
    """Whether pictures must bring proposals (`Images.proposals_NP4`)."""

    def __init__(self, pixels: Pixels, backbone: FPN | ResNetStages) -> None:
        super().__init__()
        self.pixels, self.backbone = pixels, backbone

    @property
    def divisor(self) -> int:
        """Height and width of a batch must be multiples of it."""
        return self.backbone.divisor

    @property
    def coarsest(self) -> int:
        """Pixels per cell of the coarsest features that the backbone itself makes."""
        return max(self.backbone.level_strides.values(), default=self.backbone.divisor)

    @abstractmethod
    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        """Training losses. Random draws come from `generator` (on the model's device), torch's own when None.

        `part` says which share of a training step the batch is, when it is not all of it.
        """

    @abstractmethod
    def detect(self, images: Images) -> Result:
        """What the network finds, in its own frame, detections by falling score; for the picture's frame see `postprocess`."""

    def forward(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        """`losses`, for wrappers that call the module itself (DistributedDataParallel)."""
        return self.losses(images, targets, generator, part)

    def features(self, images: Images) -> dict[str, Tensor]:
        """Pyramid features by level name, in float32 whatever the backbone computes in."""
        features: dict[str, Tensor] = self.backbone(self.pixels(images))
        return {name: float32(feature) for name, feature in features.items()}
