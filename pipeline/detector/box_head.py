"""Second stage of Fast and Faster R-CNN: from regions to classes and boxes (Girshick 2015).

Parameter names equal those of Detectron2 checkpoints.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.detector.box_coding import Coder, clip_boxes
from pipeline.detector.branch import Branch, Regions
from pipeline.detector.classification import ClassLoss
from pipeline.detector.compact import Rows, compact
from pipeline.detector.fpn import xavier
from pipeline.detector.losses import BoxLoss, Losses, float32
from pipeline.detector.norms import ConvNorm, Norm
from pipeline.detector.part import Part
from pipeline.detector.pooler import Pooler
from pipeline.detector.rpn import Matching, Proposals
from pipeline.detector.sampling import Sampler, take_rows
from pipeline.detector.select import Selection
from pipeline.structures import Detections, Targets


class BoxHead(nn.Module):
    """3x3 convolutions, then fully connected layers, each with ReLU: [M, C, S, S] -> [M, width]."""

    def __init__(self, channels: int, size: int, convs: int, conv_channels: int, fcs: int, fc_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv_names = [f"conv{i + 1}" for i in range(convs)]
        self.fc_names = [f"fc{i + 1}" for i in range(fcs)]
        for name in self.conv_names:
            self.add_module(name, ConvNorm(channels, conv_channels, 3, norm, relu=True))
            channels = conv_channels
        self.width = channels * size * size
        for name in self.fc_names:
            self.add_module(name, xavier(nn.Linear(self.width, fc_channels)))
            self.width = fc_channels

    def forward(self, x_MCSS: Tensor) -> Tensor:
        for name in self.conv_names:
            x_MCSS = self.get_submodule(name)(x_MCSS)
        x_MW = x_MCSS.flatten(1)
        for name in self.fc_names:
            x_MW = functional.relu(self.get_submodule(name)(x_MW))
        return x_MW


class BoxPredictor(nn.Module):
    """Class logits [M, classes + 1], background last, and deltas [M, classes or 1, values]; a rotated box has 5 values.

    `prior` is the probability that every class starts with, None for none.
    """

    def __init__(self, width: int, classes: int, class_agnostic: bool, prior: float | None, values: int = 4) -> None:
        super().__init__()
        self.values = values
        self.cls_score = nn.Linear(width, classes + 1)
        self.bbox_pred = nn.Linear(width, values if class_agnostic else classes * values)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        if prior is not None:
            nn.init.constant_(self.cls_score.bias, -math.log((1 - prior) / prior))

    def forward(self, x_MW: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x_MW), self.bbox_pred(x_MW).unflatten(1, (-1, self.values))


class BoxROIHeads(nn.Module):
    """Pooler, head and predictor over proposals, with the rules for training samples and for detections.

    `train_on_predicted`: the branches learn from the boxes that the box head makes of the drawn regions.
    """

    def __init__(
        self,
        pooler: Pooler,
        box_head: nn.Module,
        box_predictor: nn.Module,
        *,
        classes: int,
        levels: Sequence[str],
        matching: Matching,
        sampler: Sampler,
        append_truths: bool,
        coder: Coder,
        class_loss: ClassLoss,
        box_loss: BoxLoss,
        selection: Selection,
        train_on_predicted: bool,
        branches: Sequence[Branch],
    ) -> None:
        super().__init__()
        self.pooler, self.box_head, self.box_predictor = pooler, box_head, box_predictor
        self.classes, self.levels = classes, tuple(levels)
        self.matching, self.sampler, self.append_truths = matching, sampler, append_truths
        self.coder, self.class_loss, self.box_loss, self.selection = coder, class_loss, box_loss, selection
        self.train_on_predicted = train_on_predicted
        self.branches = tuple(branches)
        for branch in self.branches:
            for name, module in branch.parts().items():
                self.add_module(name, module)
        self.compact_rows = True
        """False keeps padded rows on the CPU too (for tests: results are the same)."""

    def detect(self, features: dict[str, Tensor], proposals: Proposals, sizes_N2: Tensor) -> Detections:
        """Detections [N, limit] in the network's frame, with what the branches find in them."""
        found = self._detect_boxes(features, proposals, sizes_N2)
        if self.branches:
            maps = self._found_maps(features, found)
        for branch in self.branches:
            found = branch.detect(maps, found, self.compact_rows)
        return found

    def _detect_boxes(self, features: dict[str, Tensor], proposals: Proposals, sizes_N2: Tensor) -> Detections:
        rows = compact(proposals.valid_NP, self.compact_rows)
        predicted = self._predict(self._regions(features, proposals.boxes_NP4, rows))
        boxes_MC4 = self.coder.decode(predicted.deltas_MC4, rows.take(proposals.boxes_NP4).unsqueeze(1))
        return self._select(rows, boxes_MC4, self.class_loss.probabilities(predicted.logits_MK), proposals, sizes_N2)

    def _select(self, rows: Rows, boxes_MC4: Tensor, scores_MC: Tensor, proposals: Proposals, sizes_N2: Tensor) -> Detections:
        """The best of the rows' boxes, clipped; rows with a non-finite value are dropped and flagged."""
        boxes_NPC4, scores_NPC = rows.spread(boxes_MC4), rows.spread(scores_MC)
        finite_NP = torch.isfinite(boxes_NPC4).flatten(2).all(dim=2) & torch.isfinite(scores_NPC).all(dim=2)
        usable_NP = finite_NP & proposals.valid_NP
        finite_N = proposals.finite_N & (finite_NP | ~proposals.valid_NP).all(dim=1)
        return self.selection.per_class(clip_boxes(boxes_NPC4, sizes_N2), scores_NPC, usable_NP, finite_N)

    def losses(
        self,
        features: dict[str, Tensor],
        proposals: Proposals,
        targets: Targets,
        generator: torch.Generator | None,
        part: Part,
    ) -> Losses:
        """Losses of the boxes, and of what the branches learn from the positive regions."""
        drawn = self._draw(proposals, targets, generator, part)
        losses, drawn, maps = self._box_losses(features, drawn, proposals, targets, generator, part)
        positive = drawn.positive(self.sampler.most_positive(drawn.valid_NS.shape[1]), self.classes)  # they come first
        for branch in self.branches:
            losses = losses.joined(branch.losses(maps, positive, targets, generator, part, self.compact_rows))
        return losses

    def _box_losses(
        self,
        features: dict[str, Tensor],
        drawn: Regions,
        proposals: Proposals,
        targets: Targets,
        generator: torch.Generator | None,
        part: Part,
    ) -> tuple[Losses, Regions, list[Tensor]]:
        """The box head's losses, and what the branches learn from: the regions, and the maps to read them from."""
        rows = compact(drawn.valid_NS, self.compact_rows)
        regions_MCSS = self._regions(features, drawn.boxes_NS4, rows)
        predicted = self._predict(regions_MCSS)
        losses = self._loss(predicted, drawn, rows, self.coder, self.box_loss, generator, part)
        losses = Losses(losses.terms, losses.finite_N, drawn.counts(self.classes))
        if self.train_on_predicted:
            drawn = replace(drawn, boxes_NS4=self._predicted_boxes(predicted, drawn, rows))
        maps = self._drawn_maps(features, regions_MCSS, drawn, rows) if self.branches else []
        return losses, drawn, maps

    def _loss(
        self,
        predicted: "Predicted",
        drawn: Regions,
        rows: Rows,
        coder: Coder,
        box_loss: BoxLoss,
        generator: torch.Generator | None,
        part: Part,
    ) -> Losses:
        """Classification over the drawn regions, and box regression of the positive ones, both divided by all drawn."""
        logits_MK, deltas_MC4 = predicted.logits_MK, predicted.deltas_MC4
        valid_M, class_M = rows.valid(), rows.take(drawn.classes_NS)
        positive_M = valid_M & (class_M < self.classes)
        total = part.divisor(valid_M.sum())
        class_loss = self.class_loss.losses(logits_MK, class_M, valid_M, generator, part).sum() / total
        sources_M4, truths_M4 = rows.take(drawn.boxes_NS4), rows.take(drawn.truths_NS4)
        regression = box_loss(coder, own_class(deltas_MC4, class_M), sources_M4, truths_M4, positive_M) / total
        finite_NS = rows.spread(torch.isfinite(logits_MK).all(dim=1) & torch.isfinite(deltas_MC4).flatten(1).all(dim=1))
        return Losses({"loss_cls": class_loss, "loss_box_reg": regression}, (finite_NS | ~drawn.valid_NS).all(dim=1))

    @torch.no_grad()
    def _predicted_boxes(self, predicted: "Predicted", drawn: Regions, rows: Rows) -> Tensor:
        """[N, S, 4]: the boxes that the box head makes of the drawn regions for their classes, unclipped."""
        deltas_M4 = own_class(predicted.deltas_MC4, rows.take(drawn.classes_NS).clamp(max=self.classes - 1))
        return rows.spread(self.coder.decode(deltas_M4, rows.take(drawn.boxes_NS4)))

    def _regions(self, features: dict[str, Tensor], boxes_NS4: Tensor, rows: Rows) -> Tensor:
        """Region features [M, C, size, size] of the rows."""
        regions: Tensor = self.pooler(self._levels(features), boxes_NS4, rows)
        return regions

    def _predict(self, regions_MCSS: Tensor) -> "Predicted":
        logits_MK, deltas_MC4 = self.box_predictor(self.box_head(regions_MCSS))
        return Predicted(float32(logits_MK), float32(deltas_MC4))

    def _levels(self, features: dict[str, Tensor]) -> list[Tensor]:
        return [features[level] for level in self.levels]

    def _drawn_maps(self, features: dict[str, Tensor], regions_MCSS: Tensor, drawn: Regions, rows: Rows) -> list[Tensor]:
        """What the branches read the positive regions from in training."""
        return self._levels(features)

    def _found_maps(self, features: dict[str, Tensor], found: Detections) -> list[Tensor]:
        """What the branches read the detections from."""
        return self._levels(features)

    @torch.no_grad()
    def _draw(self, proposals: Proposals, targets: Targets, generator: torch.Generator | None, part: Part) -> Regions:
        """The regions of every image to learn from."""
        boxes_NP4, valid_NP = proposals.boxes_NP4, proposals.valid_NP
        if self.append_truths:
            boxes_NP4 = torch.cat([boxes_NP4, targets.boxes_NG4], dim=1)
            valid_NP = torch.cat([valid_NP, targets.labels_NG >= 0], dim=1)
        match_NP, label_NP = self.matching(boxes_NP4, targets)
        drawn = self.sampler(label_NP.masked_fill(~valid_NP, -1), generator, part)
        match_NS = drawn.take(match_NP)
        return labelled(drawn.take(boxes_NP4), match_NS, drawn.positive_NS, drawn.valid_NS, targets, self.classes)


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the predictor says of M regions."""

    logits_MK: Tensor
    """One per class, background last."""
    deltas_MC4: Tensor
    """One per class, or one for all."""


def own_class(deltas_MC4: Tensor, class_M: Tensor) -> Tensor:
    """[M, 4]: each row's deltas for its class; class-agnostic deltas have one entry."""
    return take_rows(deltas_MC4, class_M.clamp(max=deltas_MC4.shape[1] - 1).unsqueeze(1)).squeeze(1)


def labelled(
    boxes_NS4: Tensor, match_NS: Tensor, positive_NS: Tensor, valid_NS: Tensor, targets: Targets, classes: int
) -> Regions:
    """Regions with the boxes and classes of the truths that they match; those not positive are background."""
    images, truths = targets.labels_NG.shape
    first_N = torch.arange(images, device=match_NS.device) * truths
    return Regions(
        boxes_NS4=boxes_NS4,
        truths_NS4=take_rows(targets.boxes_NG4, match_NS),
        truth_NS=first_N.unsqueeze(1) + match_NS,
        classes_NS=take_rows(targets.labels_NG, match_NS).masked_fill(~positive_NS, classes),
        valid_NS=valid_NS,
    )
