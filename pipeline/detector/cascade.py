"""Cascade R-CNN (Cai and Vasconcelos 2018): stages of box heads, each starting from the boxes of the one before.

Parameter names equal those of Detectron2 checkpoints: roi_heads.box_head.<k> and roi_heads.box_predictor.<k>.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.detector.box_coding import Coder, clip_boxes, is_larger
from pipeline.detector.box_head import BoxROIHeads, Predicted, labelled
from pipeline.detector.branch import Regions
from pipeline.detector.compact import Rows, compact
from pipeline.detector.losses import Losses, float32
from pipeline.detector.part import Part
from pipeline.detector.rpn import Matching, Proposals
from pipeline.structures import Detections, Targets


@dataclass(frozen=True, slots=True)
class Stage:
    """The rules of one stage after the first."""

    matching: Matching
    coder: Coder


class CascadeROIHeads(BoxROIHeads):
    """Box heads one after the other over class-agnostic boxes; `box_head` and `box_predictor` are lists of one per stage.

    The first stage learns from a sample of the proposals, later ones match again what the sample has become. At test the scores
    are the mean of the stages' and the boxes are the last one's.
    """

    def __init__(self, *args: Any, stages: Sequence[Stage], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stages = (Stage(self.matching, self.coder), *stages)

    def _detect_boxes(self, features: dict[str, Tensor], proposals: Proposals, sizes_N2: Tensor) -> Detections:
        rows = compact(proposals.valid_NP, self.compact_rows)
        boxes_NP4, finite_M = proposals.boxes_NP4, rows.valid() | True
        scores: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            predicted = self._predict_stage(number, self._regions(features, boxes_NP4, rows))
            scores.append(self.class_loss.probabilities(predicted.logits_MK))
            boxes_M4 = stage.coder.decode(predicted.deltas_MC4[:, 0], rows.take(boxes_NP4))
            finite_M = finite_M & torch.isfinite(boxes_M4).all(dim=1)
            boxes_M4 = boxes_M4.masked_fill(~finite_M.unsqueeze(1), 0)  # no stage reads features at a box that is no number
            boxes_NP4 = clip_boxes(rows.spread(boxes_M4), sizes_N2)
        mean_MC = torch.stack(scores).mean(dim=0)
        broken = torch.full_like(boxes_M4, float("nan"))
        boxes_MC4 = torch.where(finite_M.unsqueeze(1), boxes_M4, broken).unsqueeze(1)
        return self._select(rows, boxes_MC4, mean_MC, proposals, sizes_N2)

    def _box_losses(
        self,
        features: dict[str, Tensor],
        drawn: Regions,
        proposals: Proposals,
        targets: Targets,
        generator: torch.Generator | None,
        part: Part,
    ) -> tuple[Losses, Regions, list[Tensor]]:
        """The losses of every stage, under its number; the branches learn from the first stage's regions."""
        first = drawn
        joined = Losses({}, torch.ones_like(proposals.finite_N), drawn.counts(self.classes))
        for number, stage in enumerate(self.stages):
            rows = compact(drawn.valid_NS, self.compact_rows)
            regions_MCSS = _ScaledGradient.apply(self._regions(features, drawn.boxes_NS4, rows), 1 / len(self.stages))
            predicted = self._predict_stage(number, regions_MCSS)
            losses = self._loss(predicted, drawn, rows, stage.coder, self.box_loss, generator, part)
            counts = {f"stage{number}/{name}": value for name, value in drawn.counts(self.classes).items()} if number else {}
            terms = {f"{name}_stage{number}": value for name, value in losses.terms.items()}
            joined = joined.joined(Losses(terms, losses.finite_N, counts))
            if number + 1 < len(self.stages):
                drawn = self._refined(predicted, drawn, rows, stage.coder, self.stages[number + 1].matching, proposals, targets)
        return joined, first, self._levels(features)

    @torch.no_grad()
    def _refined(
        self,
        predicted: Predicted,
        drawn: Regions,
        rows: Rows,
        coder: Coder,
        matching: Matching,
        proposals: Proposals,
        targets: Targets,
    ) -> Regions:
        """A stage's own boxes as the next stage's regions: clipped, matched again, without those that lost their area."""
        boxes_M4 = coder.decode(predicted.deltas_MC4[:, 0], rows.take(drawn.boxes_NS4))
        boxes_NS4 = clip_boxes(rows.spread(boxes_M4), proposals.sizes_N2)
        valid_NS = drawn.valid_NS & torch.isfinite(boxes_NS4).all(dim=2) & is_larger(boxes_NS4, 0)
        boxes_NS4 = boxes_NS4.masked_fill(~valid_NS.unsqueeze(2), 0)
        match_NS, label_NS = matching(boxes_NS4, targets)
        refined = labelled(boxes_NS4, match_NS, valid_NS & (label_NS == 1), valid_NS, targets, self.classes)
        return replace(refined, truth_NS=drawn.truth_NS)

    def _predict_stage(self, number: int, regions_MCSS: Tensor) -> Predicted:
        head, predictor = (self._stage_module(name, number) for name in ("box_head", "box_predictor"))
        logits_MK, deltas_MC4 = predictor(head(regions_MCSS))
        return Predicted(float32(logits_MK), float32(deltas_MC4))

    def _stage_module(self, name: str, number: int) -> nn.Module:
        return self.get_submodule(f"{name}.{number}")


class _ScaledGradient(torch.autograd.Function):
    """The values as they are; their gradient times `scale`, so that the stages together move the features as one does."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0] * ctx.scale, None
