"""Faster R-CNN (Ren et al. 2015), and its proposal network alone."""

import torch

from pipeline.detector.backbones import ResNetStages
from pipeline.detector.box_head import BoxROIHeads
from pipeline.detector.detector import Detector
from pipeline.detector.fpn import FPN
from pipeline.detector.losses import Losses
from pipeline.detector.part import WHOLE, Part
from pipeline.detector.pixels import Pixels
from pipeline.detector.rpn import RPN
from pipeline.structures import Detections, Images, Targets


class FasterRCNN(Detector):
    """Two stages: proposals, then a class and a box for each."""

    def __init__(self, pixels: Pixels, backbone: FPN | ResNetStages, proposal_generator: RPN, roi_heads: BoxROIHeads) -> None:
        super().__init__(pixels, backbone)
        self.proposal_generator, self.roi_heads = proposal_generator, roi_heads

    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        features = self.features(images)
        proposals, first = self.proposal_generator.losses(features, images.sizes_N2, targets, generator, part)
        second = self.roi_heads.losses(features, proposals, targets, generator, part)
        return second.joined(first).joined(Losses({}, proposals.finite_N))

    def detect(self, images: Images) -> Detections:
        features = self.features(images)
        proposals = self.proposal_generator.detect(features, images.sizes_N2)
        return self.roi_heads.detect(features, proposals, images.sizes_N2)


class ProposalNetwork(Detector):
    """The first stage as a detector of one class, "object", whatever the truths are; scores are sigmoids of the logits."""

    def __init__(self, pixels: Pixels, backbone: FPN | ResNetStages, proposal_generator: RPN) -> None:
        super().__init__(pixels, backbone)
        self.proposal_generator = proposal_generator

    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        return self.proposal_generator.losses(self.features(images), images.sizes_N2, targets, generator, part)[1]

    def detect(self, images: Images) -> Detections:
        found = self.proposal_generator.detect(self.features(images), images.sizes_N2)
        return Detections(
            boxes_ND4=found.boxes_NP4,
            scores_ND=found.logits_NP.sigmoid().masked_fill(~found.valid_NP, 0),
            labels_ND=found.valid_NP.to(torch.int64) - 1,
            count_N=found.valid_NP.sum(dim=1),
            finite_N=found.finite_N,
        )
