"""Rotated Faster R-CNN and its proposal network alone (Ma et al. 2018, RRPN).

Parameter names equal those of Detectron2 checkpoints: those of the upright detectors, with five deltas per box.
"""

import torch

from pipeline.detector.detector import Detector
from pipeline.detector.fpn import FPN
from pipeline.detector.losses import Losses
from pipeline.detector.part import WHOLE, Part
from pipeline.detector.pixels import Pixels
from pipeline.detector.rotated.stages import RotatedROIHeads, RotatedRPN, as_rotated
from pipeline.structures import Images, RotatedDetections, Targets


class RotatedProposalNetwork(Detector):
    """The first stage as a detector of one class, "object"; scores are sigmoids of the logits."""

    def __init__(self, pixels: Pixels, backbone: FPN, proposal_generator: RotatedRPN) -> None:
        super().__init__(pixels, backbone)
        self.proposal_generator = proposal_generator

    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        rotated = as_rotated(targets)
        return self.proposal_generator.losses(self.features(images), images.sizes_N2, rotated, generator, part)[1]

    def detect(self, images: Images) -> RotatedDetections:
        found = self.proposal_generator.detect(self.features(images), images.sizes_N2)
        return RotatedDetections(
            boxes_ND5=found.boxes_NP4,
            scores_ND=found.logits_NP.sigmoid().masked_fill(~found.valid_NP, 0),
            labels_ND=found.valid_NP.to(torch.int64) - 1,
            count_N=found.valid_NP.sum(dim=1),
            finite_N=found.finite_N,
        )


class RotatedFasterRCNN(Detector):
    """Two stages: rotated proposals, then a class and a rotated box for each."""

    def __init__(self, pixels: Pixels, backbone: FPN, proposal_generator: RotatedRPN, roi_heads: RotatedROIHeads) -> None:
        super().__init__(pixels, backbone)
        self.proposal_generator, self.roi_heads = proposal_generator, roi_heads

    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        features, rotated = self.features(images), as_rotated(targets)
        proposals, first = self.proposal_generator.losses(features, images.sizes_N2, rotated, generator, part)
        second = self.roi_heads.losses(features, proposals, rotated, generator, part)
        return second.joined(first).joined(Losses({}, proposals.finite_N))

    def detect(self, images: Images) -> RotatedDetections:
        features = self.features(images)
        proposals = self.proposal_generator.detect(features, images.sizes_N2)
        return self.roi_heads.detect_rotated(features, proposals, images.sizes_N2)
