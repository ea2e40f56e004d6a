"""Semantic FPN and Panoptic FPN (Kirillov et al. 2019). Parameter names equal those of Detectron2 checkpoints."""

import torch
from torch import Tensor

from pipeline.detector.box_head import BoxROIHeads
from pipeline.detector.detector import Detector
from pipeline.detector.faster_rcnn import FasterRCNN
from pipeline.detector.fpn import FPN
from pipeline.detector.losses import Losses
from pipeline.detector.part import WHOLE, Part
from pipeline.detector.pixels import Pixels
from pipeline.detector.rpn import RPN
from pipeline.detector.semantic_head import SemanticHead
from pipeline.structures import Images, Panoptic, SemanticMaps, Targets

INSTANCE_LOSSES = ("loss_box_reg", "loss_mask")
"""What `instance_weight` scales. As in the reference, neither the classes of the second stage nor the proposals are weighed."""


class SemanticFPN(Detector):
    """A class for every pixel."""

    def __init__(self, pixels: Pixels, backbone: FPN, sem_seg_head: SemanticHead) -> None:
        super().__init__(pixels, backbone)
        self.sem_seg_head = sem_seg_head

    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        return self.sem_seg_head.losses(self.features(images), maps_of(targets), part)

    def detect(self, images: Images) -> SemanticMaps:
        return self.sem_seg_head.detect(self.features(images))


class PanopticFPN(FasterRCNN):
    """Mask R-CNN and a semantic branch on one pyramid. `instance_weight` scales the losses of boxes and masks."""

    def __init__(
        self,
        pixels: Pixels,
        backbone: FPN,
        proposal_generator: RPN,
        roi_heads: BoxROIHeads,
        sem_seg_head: SemanticHead,
        instance_weight: float,
    ) -> None:
        super().__init__(pixels, backbone, proposal_generator, roi_heads)
        self.sem_seg_head, self.instance_weight = sem_seg_head, instance_weight

    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        features = self.features(images)
        stuff = self.sem_seg_head.losses(features, maps_of(targets), part)
        proposals, first = self.proposal_generator.losses(features, images.sizes_N2, targets, generator, part)
        second = self.roi_heads.losses(features, proposals, targets, generator, part)
        weighed = {name: self._weight(name) * term for name, term in second.terms.items()}
        finite_N = stuff.finite_N & first.finite_N & second.finite_N & proposals.finite_N
        return Losses(stuff.terms | weighed | first.terms, finite_N, second.counts | first.counts)

    def detect(self, images: Images) -> Panoptic:  # type: ignore[override]  # a result of its own kind, as every detector has
        features = self.features(images)
        proposals = self.proposal_generator.detect(features, images.sizes_N2)
        found = self.roi_heads.detect(features, proposals, images.sizes_N2)
        return Panoptic(found, self.sem_seg_head.detect(features))

    def _weight(self, name: str) -> float:
        return self.instance_weight if name in INSTANCE_LOSSES else 1.0


def maps_of(targets: Targets) -> Tensor:
    """int64 [N, H, W]. ValueError without semantic maps."""
    if targets.semantic_NHW is None:
        raise ValueError("the targets have no semantic maps to learn from")
    return targets.semantic_NHW.to(torch.int64)
