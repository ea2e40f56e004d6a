"""Fast R-CNN (Girshick 2015): the second stage over proposals that come with the pictures."""

import torch
from torch import nn

from pipeline.detector.backbones import ResNetStages
from pipeline.detector.box_coding import clip_boxes, is_larger
from pipeline.detector.box_head import BoxROIHeads
from pipeline.detector.detector import Detector
from pipeline.detector.fpn import FPN
from pipeline.detector.losses import Losses
from pipeline.detector.part import WHOLE, Part
from pipeline.detector.pixels import Pixels
from pipeline.detector.rpn import Proposals
from pipeline.structures import Detections, Images, Targets


class GivenProposals(nn.Module):
    """The batch's own proposals: clipped, those not larger than `min_size` pixels a side dropped, the first so many kept."""

    def __init__(self, train: int, test: int, min_size: float) -> None:
        super().__init__()
        self.most_train, self.most_test, self.min_size = train, test, min_size

    def forward(self, images: Images) -> Proposals:
        """ValueError when the batch has none: every picture needs its entry, be it empty."""
        if images.proposals_NP4 is None:
            raise ValueError("Fast R-CNN takes proposals with its pictures: images.proposals_NP4 is None")
        boxes_NP4 = images.proposals_NP4.to(torch.float32)
        finite_NP = torch.isfinite(boxes_NP4).all(dim=2)
        boxes_NP4 = clip_boxes(boxes_NP4.masked_fill(~finite_NP.unsqueeze(2), 0), images.sizes_N2)
        valid_NP = is_larger(boxes_NP4, self.min_size)
        valid_NP &= valid_NP.cumsum(dim=1) <= (self.most_train if self.training else self.most_test)
        boxes_NP4 = boxes_NP4.masked_fill(~valid_NP.unsqueeze(2), 0)
        logits_NP = torch.zeros_like(boxes_NP4[..., 0])
        return Proposals(boxes_NP4, logits_NP, valid_NP, finite_NP.all(dim=1), images.sizes_N2)


class FastRCNN(Detector):
    """One head over given regions. No parameter of its own beside backbone and second stage."""

    takes_proposals = True

    def __init__(
        self, pixels: Pixels, backbone: FPN | ResNetStages, proposal_generator: GivenProposals, roi_heads: BoxROIHeads
    ) -> None:
        super().__init__(pixels, backbone)
        self.proposal_generator, self.roi_heads = proposal_generator, roi_heads

    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        proposals = self.proposal_generator(images)
        losses = self.roi_heads.losses(self.features(images), proposals, targets, generator, part)
        return losses.joined(Losses({}, proposals.finite_N))

    def detect(self, images: Images) -> Detections:
        return self.roi_heads.detect(self.features(images), self.proposal_generator(images), images.sizes_N2)
