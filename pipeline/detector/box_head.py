"""Second stage of Fast and Faster R-CNN: from regions to classes and boxes (Girshick 2015).

Parameter names equal those of Detectron2 checkpoints.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.detector.box_coding import Coder, clip_boxes
from pipeline.detector.branch import Branch, Regions
from pipeline.detector.compact import Rows, compact
from pipeline.detector.fpn import xavier
from pipeline.detector.losses import BoxLoss, Losses, float32
from pipeline.detector.part import Part
from pipeline.detector.pooler import Pooler
from pipeline.detector.rpn import Matching, Proposals
from pipeline.detector.sampling import Sampler, take_rows
from pipeline.detector.select import Selection
from pipeline.structures import Detections, Targets


class BoxHead(nn.Module):
    """3x3 convolutions, then fully connected layers, each with ReLU: [M, C, S, S] -> [M, width]."""

    def __init__(self, channels: int, size: int, convs: int, conv_channels: int, fcs: int, fc_channels: int) -> None:
        super().__init__()
        self.conv_names = [f"conv{i + 1}" for i in range(convs)]
        self.fc_names = [f"fc{i + 1}" for i in range(fcs)]
        for name in self.conv_names:
            layer = nn.Conv2d(channels, conv_channels, 3, padding=1)
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            self.add_module(name, layer)
            channels = conv_channels
        self.width = channels * size * size
        for name in self.fc_names:
            self.add_module(name, xavier(nn.Linear(self.width, fc_channels)))
            self.width = fc_channels

    def forward(self, x_MCSS: Tensor) -> Tensor:
        for name in self.conv_names:
            x_MCSS = functional.relu(self.get_submodule(name)(x_MCSS))
        x_MW = x_MCSS.flatten(1)
        for name in self.fc_names:
            x_MW = functional.relu(self.get_submodule(name)(x_MW))
        return x_MW


class BoxPredictor(nn.Module):
    """Class logits [M, classes + 1], background last, and deltas [M, classes or 1, values]; a rotated box has 5 values."""

    def __init__(self, width: int, classes: int, class_agnostic: bool, values: int = 4) -> None:
        super().__init__()
        self.values = values
        self.cls_score = nn.Linear(width, classes + 1)
        self.bbox_pred = nn.Linear(width, values if class_agnostic else classes * values)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x_MW: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x_MW), self.bbox_pred(x_MW).unflatten(1, (-1, self.values))


class BoxROIHeads(nn.Module):
    """Pooler, head and predictor over proposals, with the rules for training samples and for detections."""

    def __init__(
        self,
        pooler: Pooler,
        box_head: BoxHead,
        box_predictor: BoxPredictor,
        *,
        classes: int,
        levels: Sequence[str],
        matching: Matching,
        sampler: Sampler,
        append_truths: bool,
        coder: Coder,
        box_loss: BoxLoss,
        selection: Selection,
        branches: Sequence[Branch],
    ) -> None:
        super().__init__()
        self.pooler, self.box_head, self.box_predictor = pooler, box_head, box_predictor
        self.classes, self.levels = classes, tuple(levels)
        self.matching, self.sampler, self.append_truths = matching, sampler, append_truths
        self.coder, self.box_loss, self.selection = coder, box_loss, selection
        self.branches = tuple(branches)
        for branch in self.branches:
            for name, module in branch.parts().items():
                self.add_module(name, module)
        self.compact_rows = True
        """False keeps padded rows on the CPU too (for tests: results are the same)."""

    def detect(self, features: dict[str, Tensor], proposals: Proposals, sizes_N2: Tensor) -> Detections:
        """Detections [N, limit] in the network's frame, with what the branches find in them."""
        found, maps = self._detect_boxes(features, proposals, sizes_N2), [features[level] for level in self.levels]
        for branch in self.branches:
            found = branch.detect(maps, found, self.compact_rows)
        return found

    def _detect_boxes(self, features: dict[str, Tensor], proposals: Proposals, sizes_N2: Tensor) -> Detections:
        rows = compact(proposals.valid_NP, self.compact_rows)
        logits_MK, deltas_MC4 = self._predict(features, proposals.boxes_NP4, rows)
        boxes_MC4 = self.coder.decode(deltas_MC4, rows.take(proposals.boxes_NP4).unsqueeze(1))
        scores_MC = logits_MK.softmax(dim=1)[:, :-1]
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
        losses = self._box_losses(features, drawn, part)
        positive = drawn.positive(self.sampler.most_positive(drawn.valid_NS.shape[1]), self.classes)  # they come first
        maps = [features[level] for level in self.levels]
        for branch in self.branches:
            losses = losses.joined(branch.losses(maps, positive, targets, generator, part, self.compact_rows))
        return losses

    def _box_losses(self, features: dict[str, Tensor], drawn: Regions, part: Part) -> Losses:
        """Cross-entropy over the drawn regions, and box regression of the positive ones divided by all drawn."""
        boxes_NS4, truths_NS4, classes_NS, drawn_NS = drawn.boxes_NS4, drawn.truths_NS4, drawn.classes_NS, drawn.valid_NS
        rows = compact(drawn_NS, self.compact_rows)
        logits_MK, deltas_MC4 = self._predict(features, boxes_NS4, rows)
        valid_M, class_M = rows.valid(), rows.take(classes_NS)
        positive_M = valid_M & (class_M < self.classes)
        total = part.divisor(valid_M.sum())
        loss_M = functional.cross_entropy(logits_MK, class_M, reduction="none").masked_fill(~valid_M, 0)
        own_M = class_M.clamp(max=deltas_MC4.shape[1] - 1)  # class-agnostic deltas have one entry
        deltas_M4 = take_rows(deltas_MC4, own_M.unsqueeze(1)).squeeze(1)
        box_loss = self.box_loss(self.coder, deltas_M4, rows.take(boxes_NS4), rows.take(truths_NS4), positive_M)
        terms = {"loss_cls": loss_M.sum() / total, "loss_box_reg": box_loss / total}
        images = len(boxes_NS4)
        positives = positive_M.sum() / images
        counts = {"roi_head/num_fg_samples": positives, "roi_head/num_bg_samples": valid_M.sum() / images - positives}
        finite_NS = rows.spread(torch.isfinite(logits_MK).all(dim=1) & torch.isfinite(deltas_MC4).flatten(1).all(dim=1))
        return Losses(terms, (finite_NS | ~drawn_NS).all(dim=1), counts)

    def _predict(self, features: dict[str, Tensor], boxes_NS4: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        regions = self.pooler([features[level] for level in self.levels], boxes_NS4, rows)
        logits_MK, deltas_MC4 = self.box_predictor(self.box_head(regions))
        return float32(logits_MK), float32(deltas_MC4)

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
        class_NS = take_rows(targets.labels_NG, match_NS).masked_fill(~drawn.positive_NS, self.classes)
        images, truths = targets.labels_NG.shape
        first_N = torch.arange(images, device=match_NS.device) * truths
        return Regions(
            boxes_NS4=drawn.take(boxes_NP4),
            truths_NS4=take_rows(targets.boxes_NG4, match_NS),
            truth_NS=first_N.unsqueeze(1) + match_NS,
            classes_NS=class_NS,
            valid_NS=drawn.valid_NS,
        )
