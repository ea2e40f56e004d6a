"""RetinaNet (Lin et al. 2017). Parameter names equal those of Detectron2 checkpoints."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ops_cuda import class_focal_loss
from pipeline.detector.anchors import AnchorGenerator
from pipeline.detector.box_coding import BoxCoder, clip_boxes
from pipeline.detector.detector import Detector
from pipeline.detector.fpn import FPN
from pipeline.detector.losses import BoxLoss, Losses, finite_rows, float32
from pipeline.detector.norms import NORMS, LevelBatchNorms, Norm, SyncBatchNorm2d
from pipeline.detector.part import WHOLE, Part
from pipeline.detector.pixels import Pixels
from pipeline.detector.rpn import Matching, per_anchor
from pipeline.detector.sampling import take_rows
from pipeline.detector.select import Selection
from pipeline.structures import Detections, Images, Targets

FIRST_NORMALISER = 100.0
"""Positives that the running mean starts from, and its momentum below: the reference's constants."""
MOMENTUM = 0.9


class RetinaHead(nn.Module):
    """Two towers shared by the levels: class logits and deltas per anchor."""

    def __init__(
        self, channels: int, classes: int, anchors_per_cell: int, convs: int, prior: float, norm: Norm, levels: int
    ) -> None:
        super().__init__()
        self.classes = classes
        self.cls_subnet, self.bbox_subnet = (_tower(channels, convs, norm, levels) for _ in range(2))
        self.cls_score = nn.Conv2d(channels, anchors_per_cell * classes, 3, padding=1)
        self.bbox_pred = nn.Conv2d(channels, anchors_per_cell * 4, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.constant_(self.cls_score.bias, -math.log((1 - prior) / prior))  # type: ignore[arg-type]

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits [N, A, classes] and deltas [N, A, 4] per level, in the anchors' order."""
        logits, deltas = [], []
        for level, x in enumerate(features):
            logits.append(per_anchor(float32(self.cls_score(_climb(self.cls_subnet, x, level))), self.classes))
            deltas.append(per_anchor(float32(self.bbox_pred(_climb(self.bbox_subnet, x, level))), 4))
        return logits, deltas


def _tower(channels: int, convs: int, norm: Norm, levels: int) -> nn.Sequential:
    """Convolutions, each with its norm if there is one, and ReLU."""
    layers: list[nn.Module] = []
    for _ in range(convs):
        layers.append(nn.Conv2d(channels, channels, 3, padding=1))
        if norm in ("batch", "sync"):
            kind = SyncBatchNorm2d if norm == "sync" else nn.BatchNorm2d
            layers.append(LevelBatchNorms(levels, channels, kind))
        elif norm != "none":
            layers.append(NORMS[norm](channels))
        layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def _climb(tower: nn.Sequential, x_NCHW: Tensor, level: int) -> Tensor:
    for layer in tower:
        x_NCHW = layer(x_NCHW, level) if isinstance(layer, LevelBatchNorms) else layer(x_NCHW)
    return x_NCHW


class RetinaNet(Detector):
    """One stage: every anchor gets a score per class and a box."""

    def __init__(
        self,
        pixels: Pixels,
        backbone: FPN,
        head: RetinaHead,
        anchors: AnchorGenerator,
        *,
        levels: Sequence[str],
        matching: Matching,
        coder: BoxCoder,
        alpha: float,
        gamma: float,
        box_loss: BoxLoss,
        candidates: int,
        clip: bool,
        selection: Selection,
    ) -> None:
        super().__init__(pixels, backbone)
        self.head, self.anchors, self.levels = head, anchors, tuple(levels)
        self.matching, self.coder, self.box_loss, self.selection = matching, coder, box_loss, selection
        self.alpha, self.gamma, self.candidates, self.clip = alpha, gamma, candidates, clip
        self.register_buffer("normaliser", torch.tensor(FIRST_NORMALISER), persistent=False)

    normaliser: Tensor
    """Running mean of positives per batch. Not a weight: the trainer saves it (`weights.transient_buffers`)."""

    def losses(self, images: Images, targets: Targets, generator: torch.Generator | None = None, part: Part = WHOLE) -> Losses:
        """Focal loss over all anchors that are not ignored, and box regression of the positives; `generator` is unused."""
        maps = self._maps(images)
        logits_NAC, deltas_NA4 = (torch.cat(parts, dim=1) for parts in self.head(maps))
        anchors_A4 = torch.cat(self.anchors(maps))
        match_NA, label_NA = self.matching(anchors_A4.unsqueeze(0), targets)
        positive_NA = label_NA == 1
        class_NA = take_rows(targets.labels_NG, match_NA).masked_fill(~positive_NA, -1)
        focal = class_focal_loss(logits_NAC, class_NA.masked_fill(label_NA == -1, -2), self.alpha, self.gamma)
        truths_NA4 = take_rows(targets.boxes_NG4, match_NA)
        box = self.box_loss(self.coder, deltas_NA4, anchors_A4.expand_as(truths_NA4), truths_NA4, positive_NA)
        positives = positive_NA.sum()
        if part.number == 0:  # once a step: the truths alone say how many positives its later passes have
            others = [(self.matching(anchors_A4.unsqueeze(0), truths)[1] == 1).sum() for truths in part.later]
            with torch.no_grad():
                self.normaliser.mul_(MOMENTUM).add_((1 - MOMENTUM) * part.sum(sum(others, positives)).clamp(min=1))
        scale = self.normaliser / (part.processes * part.passes)  # a copy: the buffer changes again before a late backward
        terms = {"loss_cls": focal / scale, "loss_box_reg": box / scale}
        finite_N = finite_rows(logits_NAC.detach(), deltas_NA4.detach(), targets.boxes_NG4)
        return Losses(terms, finite_N, {"num_pos_anchors": positives / len(label_NA)})

    def detect(self, images: Images) -> Detections:
        """Detections in the network's frame. Unless `clip`, boxes may reach outside the picture as in the reference."""
        maps = self._maps(images)
        logits, deltas = self.head(maps)
        best: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        for anchors_A4, logits_NAC, deltas_NA4 in zip(self.anchors(maps), logits, deltas, strict=True):
            scores_NF = logits_NAC.flatten(1).sigmoid()
            scores_NK, index_NK = scores_NF.topk(torch.sym_min(self.candidates, scores_NF.shape[1]), dim=1)
            anchor_NK, label_NK = index_NK // self.head.classes, index_NK % self.head.classes
            best.append((scores_NK, label_NK, take_rows(deltas_NA4, anchor_NK), anchors_A4[anchor_NK]))
        scores_NK, labels_NK, deltas_NK4, anchors_NK4 = (torch.cat(parts, dim=1) for parts in zip(*best, strict=True))
        boxes_NK4 = self.coder.decode(deltas_NK4, anchors_NK4)
        finite_NK = torch.isfinite(boxes_NK4).all(dim=-1) & torch.isfinite(scores_NK)
        labels_NK = labels_NK.masked_fill(~finite_NK, -1)
        if self.clip:
            boxes_NK4 = clip_boxes(boxes_NK4, images.sizes_N2)
        return self.selection.grouped(boxes_NK4, scores_NK, labels_NK, self.head.classes, finite_NK.all(dim=1))

    def _maps(self, images: Images) -> list[Tensor]:
        features = self.features(images)
        return [features[level] for level in self.levels]
