"""The stages of a rotated Faster R-CNN: those of upright boxes with another geometry (Ma et al. 2018, RRPN).

Inside them a batch's truths and proposals have five values per box where the upright stages have four; `as_rotated` puts the
rotated truths there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ops_cuda import match_ious, nms_rotated, pyramid_level, roi_align_rotated, rotated_box_iou
from pipeline.detector.box_head import BoxROIHeads
from pipeline.detector.compact import Rows, compact
from pipeline.detector.pooler import Pooler
from pipeline.detector.rotated.geometry import clip_rotated, has_sides
from pipeline.detector.rpn import RPN, Matching, Proposals
from pipeline.detector.sampling import take_rows
from pipeline.detector.select import Selection
from pipeline.structures import RotatedDetections, Targets


def as_rotated(targets: Targets) -> Targets:
    """The targets with the rotated boxes in place of the upright ones. ValueError when they have none."""
    if targets.rotated_NG5 is None:
        raise ValueError("a rotated detector learns from rotated boxes: targets.rotated_NG5 is None")
    return replace(targets, boxes_NG4=targets.rotated_NG5)


@dataclass(frozen=True, slots=True)
class RotatedMatching(Matching):
    """Assignment of rotated boxes to truths by their IoU."""

    def __call__(self, boxes_NA5: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Truth index [N, A] and label [N, A] of boxes [N or 1, A, 5]."""
        iou_NGA = rotated_box_iou(targets.boxes_NG4, boxes_NA5)
        return match_ious(iou_NGA, targets.labels_NG >= 0, self.thresholds, self.labels, self.low_quality)


class RotatedRPN(RPN):
    """Region proposal network over rotated anchors."""

    def _select(self, boxes_NK5: Tensor, logits_NK: Tensor, level_NK: Tensor, sizes_N2: Tensor, limit: int) -> Proposals:
        boxes_NK5, groups_NK, finite_N = self.usable(boxes_NK5, logits_NK, level_NK, sizes_N2)
        index_NP, count_N = nms_rotated(boxes_NK5, logits_NK, groups_NK, len(self.levels), self.nms_threshold, limit)
        valid_NP = torch.arange(limit, device=count_N.device) < count_N.unsqueeze(1)
        index_NP = index_NP.clamp(min=0)
        boxes_NP5 = take_rows(boxes_NK5, index_NP).masked_fill(~valid_NP.unsqueeze(-1), 0)
        return Proposals(boxes_NP5, take_rows(logits_NK, index_NP).masked_fill(~valid_NP, 0), valid_NP, finite_N, sizes_N2)

    def usable(self, boxes_NK5: Tensor, logits_NK: Tensor, level_NK: Tensor, sizes_N2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clipped boxes, their level (-1 where a row is not finite or too small), and which images are finite throughout."""
        finite_NK = torch.isfinite(boxes_NK5).all(dim=-1) & torch.isfinite(logits_NK)
        boxes_NK5 = clip_rotated(boxes_NK5, sizes_N2)
        usable_NK = finite_NK & has_sides(boxes_NK5, self.min_size)
        return boxes_NK5, torch.where(usable_NK, level_NK, torch.full_like(level_NK, -1)), finite_NK.all(dim=1)


class RotatedPooler(Pooler):
    """ROIAlign of rotated boxes from the pyramid; a larger box reads a coarser level."""

    def forward(self, features: Sequence[Tensor], boxes_NS5: Tensor, rows: Rows) -> Tensor:
        """[M, C, size, size] of the rows; padded rows give zeros."""
        boxes_M5 = rows.take(boxes_NS5)
        upright_M4 = torch.cat([torch.zeros_like(boxes_M5[:, :2]), boxes_M5[:, 2:4]], dim=1)
        level_M = pyramid_level(upright_M4, len(self.scales), self.lowest, self.canonical_size, self.canonical_level)
        level_M = torch.where(rows.valid(), level_M, torch.full_like(level_M, -1))
        size = (self.size, self.size)
        return roi_align_rotated(features, boxes_M5, rows.image(), level_M, self.scales, size, self.sampling_ratio)


class RotatedROIHeads(BoxROIHeads):
    """Second stage over rotated proposals. It has no further heads."""

    def detect_rotated(self, features: dict[str, Tensor], proposals: Proposals, sizes_N2: Tensor) -> RotatedDetections:
        """Detections [N, limit] in the network's frame."""
        rows = compact(proposals.valid_NP, self.compact_rows)
        predicted = self._predict(self._regions(features, proposals.boxes_NP4, rows))
        boxes_MC5 = self.coder.decode(predicted.deltas_MC4, rows.take(proposals.boxes_NP4).unsqueeze(1))
        boxes_NPC5, scores_NPC = rows.spread(boxes_MC5), rows.spread(self.class_loss.probabilities(predicted.logits_MK))
        finite_NP = torch.isfinite(boxes_NPC5).flatten(2).all(dim=2) & torch.isfinite(scores_NPC).all(dim=2)
        finite_N = proposals.finite_N & (finite_NP | ~proposals.valid_NP).all(dim=1)
        usable_NP = finite_NP & proposals.valid_NP
        return select_rotated(self.selection, clip_rotated(boxes_NPC5, sizes_N2), scores_NPC, usable_NP, finite_N)


def select_rotated(
    selection: Selection, boxes_NKC5: Tensor, scores_NKC: Tensor, usable_NK: Tensor, finite_N: Tensor
) -> RotatedDetections:
    """Detections from K regions with a score per class and a box per class (or one: boxes [N, K, 1, 5])."""
    images, k, classes = scores_NKC.shape
    usable_NKC = (scores_NKC > selection.score) & usable_NK.unsqueeze(-1)
    boxes_NF5 = boxes_NKC5.expand(-1, -1, classes, -1).reshape(images, k * classes, 5)
    class_C = torch.arange(classes, device=scores_NKC.device)
    groups_NF = torch.where(usable_NKC, class_C, torch.full_like(class_C, -1)).reshape(images, k * classes)
    scores_NF = scores_NKC.reshape(images, k * classes)
    index_ND, count_N = nms_rotated(boxes_NF5, scores_NF, groups_NF, classes, selection.nms, selection.limit)
    real_ND = torch.arange(selection.limit, device=count_N.device) < count_N.unsqueeze(1)
    index_ND = index_ND.clamp(min=0)
    return RotatedDetections(
        boxes_ND5=take_rows(boxes_NF5, index_ND).masked_fill(~real_ND.unsqueeze(-1), 0),
        scores_ND=take_rows(scores_NF, index_ND).masked_fill(~real_ND, 0),
        labels_ND=take_rows(groups_NF, index_ND).masked_fill(~real_ND, -1),
        count_N=count_N,
        finite_N=finite_N,
    )
