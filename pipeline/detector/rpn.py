"""Region proposal network (Ren et al. 2015). Parameter names equal those of Detectron2 checkpoints."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ops_cuda import match_boxes, nms
from pipeline.detector.anchors import AnchorGenerator
from pipeline.detector.box_coding import Coder, clip_boxes, is_larger
from pipeline.detector.losses import BoxLoss, Losses, finite_rows, float32
from pipeline.detector.part import Part
from pipeline.detector.sampling import Sampler, take_rows
from pipeline.structures import Targets


@dataclass(frozen=True, slots=True)
class Matching:
    """How boxes are assigned to truths: arguments of `ops_cuda.match_boxes`."""

    thresholds: tuple[float, ...]
    labels: tuple[int, ...]
    low_quality: bool

    def __call__(self, boxes_NA4: Tensor, targets: Targets) -> tuple[Tensor, Tensor]:
        """Truth index [N, A] and label [N, A] of boxes [N or 1, A, 4]."""
        valid_NG = targets.labels_NG >= 0
        return match_boxes(boxes_NA4, targets.boxes_NG4, valid_NG, self.thresholds, self.labels, self.low_quality)


@dataclass(frozen=True, slots=True)
class Proposals:
    """Boxes [N, P, 4] worth a second look, by falling logit [N, P]; padding has valid False, box 0 and logit 0."""

    boxes_NP4: Tensor
    logits_NP: Tensor
    valid_NP: Tensor
    finite_N: Tensor
    """bool: False where the network gave a non-finite value among the image's best proposals (those rows are dropped)."""
    sizes_N2: Tensor
    """int64 (height, width) of the pictures that they are in."""


class RPNHead(nn.Module):
    """Shared 3x3 convolutions, then objectness and deltas per anchor. `convs` are output channels, -1 keeps the input's.

    `values` is the number of deltas of a box: 4, or 5 of a rotated one.
    """

    def __init__(self, channels: int, anchors_per_cell: int, convs: Sequence[int], values: int = 4) -> None:
        super().__init__()
        self.values = values
        widths = [channels]
        for wanted in convs:
            widths.append(widths[-1] if wanted == -1 else wanted)
        layers = [nn.Conv2d(inputs, outputs, 3, padding=1) for inputs, outputs in pairwise(widths)]
        # One convolution is `conv`, several are `conv.conv0`, `conv.conv1`, ...: the reference's names.
        named: OrderedDict[str, nn.Module] = OrderedDict((f"conv{number}", layer) for number, layer in enumerate(layers))
        self.conv: nn.Module = layers[0] if len(layers) == 1 else nn.Sequential(named)
        self.objectness_logits = nn.Conv2d(widths[-1], anchors_per_cell, 1)
        self.anchor_deltas = nn.Conv2d(widths[-1], anchors_per_cell * values, 1)
        for layer in (*layers, self.objectness_logits, self.anchor_deltas):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits [N, A] and deltas [N, A, 4] per level, in the anchors' order."""
        logits, deltas = [], []
        for x_NCHW in features:
            for layer in self.conv if isinstance(self.conv, nn.Sequential) else (self.conv,):
                x_NCHW = functional.relu(layer(x_NCHW))
            logits.append(float32(self.objectness_logits(x_NCHW)).permute(0, 2, 3, 1).flatten(1))
            deltas.append(per_anchor(float32(self.anchor_deltas(x_NCHW)), self.values))
        return logits, deltas


def per_anchor(x_NCHW: Tensor, values: int) -> Tensor:
    """[N, H * W * anchors, values] from an anchor-major map [N, anchors * values, H, W]."""
    n, channels, height, width = x_NCHW.shape
    x = x_NCHW.reshape(n, channels // values, values, height, width).permute(0, 3, 4, 1, 2)
    return x.reshape(n, height * width * (channels // values), values)


class RPN(nn.Module):
    """Head, anchors and the rules for proposals and losses."""

    def __init__(
        self,
        head: RPNHead,
        anchors: AnchorGenerator,
        *,
        levels: Sequence[str],
        matching: Matching,
        sampler: Sampler,
        coder: Coder,
        box_loss: BoxLoss,
        loss_weight: float,
        keep_train: tuple[int, int],
        keep_test: tuple[int, int],
        nms_threshold: float,
        min_size: float,
        boundary: float | None = None,
    ) -> None:
        super().__init__()
        self.boundary = boundary
        self.rpn_head, self.anchors = head, anchors
        self.levels = tuple(levels)
        self.matching, self.sampler, self.coder, self.box_loss = matching, sampler, coder, box_loss
        self.loss_weight = loss_weight
        self.keep_train, self.keep_test = keep_train, keep_test
        self.nms_threshold, self.min_size = nms_threshold, min_size

    def detect(self, features: dict[str, Tensor], sizes_N2: Tensor) -> Proposals:
        """Proposals by the test-time limits."""
        maps = [features[level] for level in self.levels]
        logits, deltas = self.rpn_head(maps)
        return self._propose(self.anchors(maps), logits, deltas, sizes_N2, self.keep_test)

    def losses(
        self, features: dict[str, Tensor], sizes_N2: Tensor, targets: Targets, generator: torch.Generator | None, part: Part
    ) -> tuple[Proposals, Losses]:
        """Proposals by the training limits (no gradient) and the RPN's losses."""
        maps = [features[level] for level in self.levels]
        logits, deltas = self.rpn_head(maps)
        anchors = self.anchors(maps)
        with torch.no_grad():
            proposals = self._propose(anchors, logits, deltas, sizes_N2, self.keep_train)
        given = torch.cat(anchors), torch.cat(logits, 1), torch.cat(deltas, 1)
        losses = self._loss(*given, sizes_N2, targets, generator, part)
        return proposals, losses

    def _loss(
        self,
        anchors_A4: Tensor,
        logits_NA: Tensor,
        deltas_NA4: Tensor,
        sizes_N2: Tensor,
        targets: Targets,
        generator: torch.Generator | None,
        part: Part,
    ) -> Losses:
        match_NA, label_NA = self.matching(anchors_A4.unsqueeze(0), targets)
        if self.boundary is not None:
            label_NA = label_NA.masked_fill(~within(anchors_A4, sizes_N2, self.boundary), -1)
        drawn = self.sampler(label_NA, generator, part)
        scale = 1 / (self.sampler.count * len(logits_NA))  # of the configured sample, however few there are
        logits_NS, deltas_NS4 = drawn.take(logits_NA), drawn.take(deltas_NA4)
        loss_NS = functional.binary_cross_entropy_with_logits(logits_NS, drawn.positive_NS.to(logits_NS.dtype), reduction="none")
        truths_NS4 = take_rows(targets.boxes_NG4, drawn.take(match_NA))
        box_loss = self.box_loss(self.coder, deltas_NS4, anchors_A4[drawn.index_NS], truths_NS4, drawn.positive_NS)
        terms = {
            "loss_rpn_cls": loss_NS.masked_fill(~drawn.valid_NS, 0).sum() * (scale * self.loss_weight),
            "loss_rpn_loc": box_loss * scale,
        }
        positives = drawn.positive_NS.sum() / len(logits_NA)
        negatives = drawn.valid_NS.sum() / len(logits_NA) - positives
        counts = {"rpn/num_pos_anchors": positives, "rpn/num_neg_anchors": negatives}
        return Losses(terms, finite_rows(logits_NA, deltas_NA4, targets.boxes_NG4), counts)

    def _propose(
        self, anchors: list[Tensor], logits: list[Tensor], deltas: list[Tensor], sizes_N2: Tensor, keep: tuple[int, int]
    ) -> Proposals:
        boxes_NK4, logits_NK, level_NK = self.best(anchors, logits, deltas, keep[0])
        return self._select(boxes_NK4, logits_NK, level_NK, sizes_N2, keep[1])

    def best(
        self, anchors: list[Tensor], logits: list[Tensor], deltas: list[Tensor], count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The `count` best boxes of every level, decoded [N, K, 4], with logits and levels [N, K]."""
        best: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for number, (anchors_A4, logits_NA, deltas_NA4) in enumerate(zip(anchors, logits, deltas, strict=True)):
            logits_NK, index_NK = logits_NA.topk(torch.sym_min(count, logits_NA.shape[1]), dim=1)
            best.append((logits_NK, take_rows(deltas_NA4, index_NK), anchors_A4[index_NK], torch.full_like(index_NK, number)))
        logits_NK, deltas_NK4, anchors_NK4, level_NK = (torch.cat(parts, dim=1) for parts in zip(*best, strict=True))
        return self.coder.decode(deltas_NK4, anchors_NK4), logits_NK, level_NK

    def _select(self, boxes_NK4: Tensor, logits_NK: Tensor, level_NK: Tensor, sizes_N2: Tensor, limit: int) -> Proposals:
        levels = len(self.levels)
        return select_proposals(boxes_NK4, logits_NK, level_NK, levels, sizes_N2, self.nms_threshold, limit, self.min_size)


def select_proposals(
    boxes_NK4: Tensor,
    logits_NK: Tensor,
    level_NK: Tensor,
    levels: int,
    sizes_N2: Tensor,
    nms_threshold: float,
    limit: int,
    min_size: float,
) -> Proposals:
    """Drop non-finite rows, clip, drop small boxes, NMS within levels, then the best `limit` over all levels."""
    finite_NK = torch.isfinite(boxes_NK4).all(dim=-1) & torch.isfinite(logits_NK)
    boxes_NK4 = clip_boxes(boxes_NK4, sizes_N2)
    usable_NK = finite_NK & is_larger(boxes_NK4, min_size)
    groups_NK = torch.where(usable_NK, level_NK, torch.full_like(level_NK, -1))
    index_NP, count_N = nms(boxes_NK4, logits_NK, groups_NK, levels, nms_threshold, limit)
    valid_NP = torch.arange(limit, device=count_N.device) < count_N.unsqueeze(1)
    index_NP = index_NP.clamp(min=0)
    boxes_NP4 = take_rows(boxes_NK4, index_NP).masked_fill(~valid_NP.unsqueeze(-1), 0)
    logits_NP = take_rows(logits_NK, index_NP).masked_fill(~valid_NP, 0)
    return Proposals(boxes_NP4, logits_NP, valid_NP, finite_NK.all(dim=1), sizes_N2)


def within(boxes_A4: Tensor, sizes_N2: Tensor, margin: float) -> Tensor:
    """bool [N, A]: box a reaches at most `margin` pixels outside picture n of (height, width) `sizes`."""
    limits_N2 = sizes_N2.flip(1).to(boxes_A4.dtype).unsqueeze(1) + margin
    return (boxes_A4[:, :2] >= -margin).all(dim=1) & (boxes_A4[:, 2:] < limits_N2).all(dim=2)
