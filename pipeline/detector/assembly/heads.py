"""From settings to the first and the second stage."""

from collections.abc import Callable
from typing import Any

from pipeline.detector.assembly.custom import build_custom, require_has
from pipeline.detector.assembly.parts import (
    build_anchors,
    build_box_loss,
    build_matching,
    build_pooler,
    build_sampler,
    build_selection,
    per_cell,
)
from pipeline.detector.box_coding import BoxCoder
from pipeline.detector.box_head import BoxHead, BoxPredictor, BoxROIHeads
from pipeline.detector.branch import Branch
from pipeline.detector.mask_head import ConvMaskHead, MaskBranch
from pipeline.detector.rpn import RPN, RPNHead
from pipeline.detector.settings.custom import CustomHeadConfig
from pipeline.detector.settings.heads import BoxHeadConfig, BoxROIConfig, MaskConfig, RPNConfig
from pipeline.detector.settings.parts import AnchorConfig


def build_rpn(cfg: RPNConfig, anchor_cfg: AnchorConfig, channels: int) -> RPN:
    anchors = build_anchors(anchor_cfg, cfg.levels)
    return RPN(
        RPNHead(channels, per_cell(anchors), cfg.convs),
        anchors,
        levels=cfg.levels,
        matching=build_matching(cfg.match),
        sampler=build_sampler(cfg.sample),
        coder=BoxCoder(cfg.box_weights),
        box_loss=build_box_loss(cfg.box_loss),
        loss_weight=cfg.loss_weight,
        keep_train=(cfg.train.before_nms, cfg.train.after_nms),
        keep_test=(cfg.test.before_nms, cfg.test.after_nms),
        nms_threshold=cfg.nms,
        min_size=cfg.min_size,
    )


def build_box_heads(cfg: BoxROIConfig, channels: int, classes: int) -> BoxROIHeads:
    pool, head = cfg.pooler, cfg.head
    box_head = BOX_HEADS[head.kind](head, channels, pool.size)
    return BoxROIHeads(
        build_pooler(pool, cfg.levels),
        box_head,
        BoxPredictor(box_head.width, classes, cfg.class_agnostic),
        classes=classes,
        levels=cfg.levels,
        matching=build_matching(cfg.match),
        sampler=build_sampler(cfg.sample),
        append_truths=cfg.append_truths,
        coder=BoxCoder(cfg.box_weights),
        box_loss=build_box_loss(cfg.box_loss),
        selection=build_selection(cfg.select),
        branches=build_branches(cfg, channels, classes),
    )


def _conv_fc(cfg: BoxHeadConfig, channels: int, size: int) -> BoxHead:
    return BoxHead(channels, size, cfg.convs, cfg.conv_channels, cfg.fcs, cfg.fc_channels)


def _custom_head(cfg: CustomHeadConfig, channels: int, size: int) -> Any:
    head = build_custom("roi.head", cfg.target, cfg.options, channels, size)
    require_has("roi.head", cfg.target, head, "width", "the length of a region's vector")
    return head


BOX_HEADS: dict[str, Callable[[Any, int, int], Any]] = {"conv_fc": _conv_fc, "custom": _custom_head}


def build_branches(cfg: BoxROIConfig, channels: int, classes: int) -> list[Branch]:
    """The heads beside the box head, in the order in which their losses are added."""
    return [] if cfg.mask is None else [MASK_BRANCHES[cfg.mask.kind](cfg.mask, cfg.levels, channels, classes)]


def _conv_masks(cfg: MaskConfig, levels: tuple[str, ...], channels: int, classes: int) -> Branch:
    masks = 1 if cfg.class_agnostic else classes
    return MaskBranch(ConvMaskHead(build_pooler(cfg.pooler, levels), channels, cfg.convs, cfg.channels, masks))


MASK_BRANCHES: dict[str, Callable[[Any, tuple[str, ...], int, int], Branch]] = {"conv": _conv_masks}
