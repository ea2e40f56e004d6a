"""From scored boxes to detections: threshold, NMS within classes, the best of all. Padded, fixed sizes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ops_cuda import nms
from pipeline.detector.sampling import take_rows
from pipeline.structures import Detections


@dataclass(frozen=True, slots=True)
class Selection:
    """Scores strictly above `score`, sides of at least `min_size`, NMS at IoU `nms` within a class, at most `limit` per image."""

    score: float
    nms: float
    limit: int
    min_size: float = 0.0

    def per_class(self, boxes_NKC4: Tensor, scores_NKC: Tensor, usable_NK: Tensor, finite_N: Tensor) -> Detections:
        """Detections from K regions with a score per class and a box per class (or one: boxes [N, K, 1, 4]).

        Each class is a row of its own in NMS: exact without a cap on candidates, and nothing grows with K x C squared.
        """
        _, k, classes = scores_NKC.shape
        usable_NKC = (scores_NKC > self.score) & usable_NK.unsqueeze(-1)
        if self.min_size > 0:
            usable_NKC = usable_NKC & self._large(boxes_NKC4)
        rows_boxes = boxes_NKC4.expand(-1, -1, classes, -1).transpose(1, 2).reshape(-1, k, 4)
        rows_scores = scores_NKC.transpose(1, 2).reshape(-1, k)
        rows_group = usable_NKC.transpose(1, 2).reshape(-1, k).to(torch.int64) - 1
        index_RL, _ = nms(rows_boxes, rows_scores, rows_group, 1, self.nms, self.limit)
        kept_RL, index_RL = index_RL >= 0, index_RL.clamp(min=0)
        scores_RL = take_rows(rows_scores, index_RL).masked_fill(~kept_RL, -1)
        boxes_RL4 = take_rows(rows_boxes, index_RL)
        slots = classes * self.limit
        best_ND, where_ND = scores_RL.reshape(-1, slots).topk(self.limit, dim=1)
        boxes_ND4 = take_rows(boxes_RL4.reshape(-1, slots, 4), where_ND)
        return _detections(boxes_ND4, best_ND, where_ND // self.limit, best_ND >= 0, finite_N)

    def grouped(self, boxes_NK4: Tensor, scores_NK: Tensor, labels_NK: Tensor, classes: int, finite_N: Tensor) -> Detections:
        """Detections from K candidates, each of one class; label -1 marks padding."""
        usable_NK = scores_NK > self.score
        if self.min_size > 0:
            usable_NK = usable_NK & self._large(boxes_NK4)
        labels_NK = torch.where(usable_NK, labels_NK, torch.full_like(labels_NK, -1))
        index_ND, count_N = nms(boxes_NK4, scores_NK, labels_NK, classes, self.nms, self.limit)
        real_ND = torch.arange(self.limit, device=count_N.device) < count_N.unsqueeze(1)
        index_ND = index_ND.clamp(min=0)
        taken = take_rows(boxes_NK4, index_ND), take_rows(scores_NK, index_ND), take_rows(labels_NK, index_ND)
        return _detections(*taken, real_ND, finite_N)

    def _large(self, boxes_NK4: Tensor) -> Tensor:
        return (boxes_NK4[..., 2:] - boxes_NK4[..., :2] >= self.min_size).all(dim=-1)


def _detections(boxes_ND4: Tensor, scores_ND: Tensor, labels_ND: Tensor, real_ND: Tensor, finite_N: Tensor) -> Detections:
    return Detections(
        boxes_ND4=boxes_ND4.masked_fill(~real_ND.unsqueeze(-1), 0),
        scores_ND=scores_ND.masked_fill(~real_ND, 0),
        labels_ND=labels_ND.masked_fill(~real_ND, -1),
        count_N=real_ND.sum(dim=1),
        finite_N=finite_N,
    )
