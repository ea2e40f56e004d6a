"""From settings to the first and the second stage."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from pipeline.detector.assembly.custom import build_custom, require_has
from pipeline.detector.assembly.densepose import build_densepose
from pipeline.detector.assembly.parts import (
    NOTHING,
    build_anchors,
    build_box_loss,
    build_matching,
    build_pooler,
    build_sampler,
    build_selection,
    per_cell,
    strides,
)
from pipeline.detector.backbones import res5_block
from pipeline.detector.box_coding import BoxCoder
from pipeline.detector.box_head import BoxHead, BoxPredictor, BoxROIHeads
from pipeline.detector.branch import Branch
from pipeline.detector.cascade import CascadeROIHeads, Stage
from pipeline.detector.classification import ClassLoss, SigmoidLoss, SoftmaxLoss
from pipeline.detector.keypoint_head import KeypointBranch, KeypointHead
from pipeline.detector.mask_head import ConvMaskHead, MaskBranch
from pipeline.detector.point_rend import CoarseMaskHead, PointHead, PointRendBranch, PointRendHead, PointRules, Reading
from pipeline.detector.pooler import Given
from pipeline.detector.res5_heads import Res5ROIHeads
from pipeline.detector.rpn import RPN, Matching, RPNHead
from pipeline.detector.settings.backbones import ResNetConfig
from pipeline.detector.settings.custom import CustomHeadConfig
from pipeline.detector.settings.heads import (
    BoxHeadConfig,
    BoxROIConfig,
    RPNConfig,
    SigmoidConfig,
    SoftmaxConfig,
)
from pipeline.detector.settings.keypoints import KeypointConfig
from pipeline.detector.settings.masks import ConvMaskConfig, PointRendConfig
from pipeline.detector.settings.parts import AnchorConfig


def build_rpn(cfg: RPNConfig, anchor_cfg: AnchorConfig, channels: int, known: Mapping[str, int] = NOTHING) -> RPN:
    """`known` are strides of levels whose names do not tell them."""
    anchors = build_anchors(anchor_cfg, cfg.levels, known)
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
        boundary=cfg.boundary,
    )


def build_box_heads(cfg: BoxROIConfig, channels: int, classes: int, known: Mapping[str, int] = NOTHING) -> BoxROIHeads:
    """Fully connected heads over a region, one or a cascade of them."""
    class_loss = CLASS_LOSSES[cfg.class_loss.kind](cfg.class_loss, classes)
    heads: list[nn.Module] = []
    predictors: list[nn.Module] = []
    for _ in range(1 + len(cfg.cascade)):
        box_head = BOX_HEADS[cfg.head.kind](cfg.head, channels, cfg.pooler.size)
        heads.append(box_head)
        predictors.append(BoxPredictor(box_head.width, classes, cfg.class_agnostic, class_loss.prior))
    pooler, rules = build_pooler(cfg.pooler, cfg.levels, known), _rules(cfg, classes, class_loss)
    branches = build_branches(cfg, channels, classes, known)
    if not cfg.cascade:
        return BoxROIHeads(pooler, heads[0], predictors[0], branches=branches, **rules)
    stages = [Stage(Matching((stage.iou,), (0, 1), low_quality=False), BoxCoder(stage.box_weights)) for stage in cfg.cascade]
    return CascadeROIHeads(pooler, nn.ModuleList(heads), nn.ModuleList(predictors), branches=branches, stages=stages, **rules)


def _fc_head(cfg: BoxHeadConfig, channels: int, size: int) -> BoxHead:
    return BoxHead(channels, size, cfg.convs, cfg.conv_channels, cfg.fcs, cfg.fc_channels, cfg.norm)


def _custom_head(cfg: CustomHeadConfig, channels: int, size: int) -> Any:
    head = build_custom("roi.head", cfg.target, cfg.options, channels, size)
    require_has("roi.head", cfg.target, head, "width", "the length of a region's vector")
    return head


BOX_HEADS: dict[str, Callable[[Any, int, int], Any]] = {"fc": _fc_head, "custom": _custom_head}
"""Heads over a region's features; the backbone's fifth stage is one of its own (`build_res5_heads`)."""


def build_res5_heads(cfg: BoxROIConfig, backbone: ResNetConfig, classes: int, known: Mapping[str, int]) -> BoxROIHeads:
    """The backbone's fifth stage as the box head (C4)."""
    res5, channels = res5_block(
        norm=backbone.norm,
        stride_in_1x1=backbone.stride_in_1x1,
        groups=backbone.groups,
        width_per_group=backbone.width_per_group,
        res2_channels=backbone.res2_channels,
    )
    class_loss = CLASS_LOSSES[cfg.class_loss.kind](cfg.class_loss, classes)
    return Res5ROIHeads(
        build_pooler(cfg.pooler, cfg.levels, known),
        nn.Identity(),
        BoxPredictor(channels, classes, cfg.class_agnostic, class_loss.prior),
        branches=build_branches(cfg, channels, classes, known),
        res5=res5,
        **_rules(cfg, classes, class_loss),
    )


def _rules(cfg: BoxROIConfig, classes: int, class_loss: ClassLoss) -> dict[str, Any]:
    """What every kind of second stage is told."""
    return {
        "classes": classes,
        "levels": cfg.levels,
        "matching": build_matching(cfg.match),
        "sampler": build_sampler(cfg.sample),
        "append_truths": cfg.append_truths,
        "coder": BoxCoder(cfg.box_weights),
        "class_loss": class_loss,
        "box_loss": build_box_loss(cfg.box_loss),
        "selection": build_selection(cfg.select),
        "train_on_predicted": cfg.train_on_predicted,
    }


def _softmax(cfg: SoftmaxConfig, classes: int) -> ClassLoss:
    return SoftmaxLoss()


def _sigmoid(cfg: SigmoidConfig, classes: int) -> ClassLoss:
    federated = cfg.federated
    return SigmoidLoss(classes) if federated is None else SigmoidLoss(classes, federated.classes, federated.power)


CLASS_LOSSES: dict[str, Callable[[Any, int], ClassLoss]] = {"softmax": _softmax, "sigmoid": _sigmoid}


def build_branches(cfg: BoxROIConfig, channels: int, classes: int, known: Mapping[str, int] = NOTHING) -> list[Branch]:
    """The heads beside the box head, in the order in which their losses are added."""
    branches: list[Branch] = []
    if isinstance(cfg.mask, PointRendConfig):
        branches.append(_point_rend(cfg.mask, cfg.levels, channels, classes, known))
    elif cfg.mask is not None:
        branches.append(_conv_masks(cfg.mask, cfg.levels, channels, classes, known, cfg.pooler.size))
    if cfg.keypoint is not None:
        branches.append(_keypoints(cfg.keypoint, cfg, channels, known))
    if cfg.densepose is not None:
        branches.append(build_densepose(cfg.densepose, cfg.levels, channels))
    return branches


def _conv_masks(
    cfg: ConvMaskConfig, levels: tuple[str, ...], channels: int, classes: int, known: Mapping[str, int], box_cells: int
) -> Branch:
    # Without a pooler of their own masks take what res5 makes of the box head's cells: half as many a side, rounded up.
    pooler = Given((box_cells + 1) // 2) if cfg.pooler is None else build_pooler(cfg.pooler, levels, known)
    masks = 1 if cfg.class_agnostic else classes
    return MaskBranch(ConvMaskHead(pooler, channels, cfg.convs, cfg.channels, masks, cfg.norm), cfg.targets)


def _point_rend(cfg: PointRendConfig, levels: tuple[str, ...], channels: int, classes: int, known: Mapping[str, int]) -> Branch:
    def reading(names: tuple[str, ...]) -> Reading:
        return Reading(tuple(levels.index(name) for name in names), tuple(strides(names, known)))

    given, coarse = channels * len(cfg.levels), reading(cfg.levels)
    coarse_head = CoarseMaskHead(given, cfg.side, cfg.channels, cfg.fcs, cfg.fc_channels, cfg.size, classes)
    if cfg.point_head is None:
        return PointRendBranch(PointRendHead(coarse_head, None), cfg.targets, cfg.side, coarse, None, None)
    point, masks = cfg.point_head, 1 if cfg.point_head.class_agnostic else classes
    fine = channels * len(point.levels)
    point_head = PointHead(fine, classes, point.channels, point.layers, point.coarse_each_layer, masks)
    rules = PointRules(point.train_points, point.oversample, point.important, point.steps, point.points)
    return PointRendBranch(PointRendHead(coarse_head, point_head), cfg.targets, cfg.side, coarse, reading(point.levels), rules)


def _keypoints(cfg: KeypointConfig, roi: BoxROIConfig, channels: int, known: Mapping[str, int]) -> Branch:
    head = KeypointHead(build_pooler(cfg.pooler, roi.levels, known), channels, cfg.channels, cfg.keypoints)
    sampled = roi.sample.count * roi.sample.positive_fraction * cfg.keypoints
    return KeypointBranch(head, sampled if cfg.normalise == "sampled" else None, cfg.loss_weight)
