"""From the typed settings to modules: the one place that knows both."""

from collections.abc import Callable
from typing import Any

from torch import nn

from pipeline.detector.anchors import AnchorGenerator
from pipeline.detector.backbones import ResNet, timm_backbone
from pipeline.detector.box_coding import BoxCoder
from pipeline.detector.box_head import BoxHead, BoxPredictor, BoxROIHeads
from pipeline.detector.config import (
    AnchorConfig,
    BackboneConfig,
    BoxLossConfig,
    BoxROIConfig,
    FasterRCNNConfig,
    FPNConfig,
    InputConfig,
    MaskConfig,
    MatchConfig,
    ModelConfig,
    PoolerConfig,
    ProposalNetworkConfig,
    ResNetConfig,
    RetinaNetConfig,
    RPNConfig,
    SampleConfig,
    SelectConfig,
    TimmConfig,
)
from pipeline.detector.detector import Detector
from pipeline.detector.faster_rcnn import FasterRCNN, ProposalNetwork
from pipeline.detector.fpn import FPN
from pipeline.detector.losses import BoxLoss
from pipeline.detector.mask_head import ConvMaskHead
from pipeline.detector.pixels import Pixels
from pipeline.detector.pooler import Pooler
from pipeline.detector.retinanet import RetinaHead, RetinaNet
from pipeline.detector.rpn import RPN, Matching, RPNHead
from pipeline.detector.sampling import Sampler
from pipeline.detector.select import Selection
from pipeline.errors import ConfigError


def build_detector(cfg: ModelConfig, num_classes: int) -> Detector:
    """A detector with random weights (from torch's global generator: seed it first), in training mode.

    Pretrained weights are `weights.load_pretrained`'s business. ConfigError when the settings do not fit together.
    """
    if num_classes < 1:
        raise ConfigError("num_classes", num_classes, "must be at least 1: the dataset has no class")
    return DETECTORS[cfg.kind](cfg, num_classes)


# -- detectors --


def _faster_rcnn(cfg: FasterRCNNConfig, classes: int) -> Detector:
    backbone = _fpn(cfg.backbone, cfg.fpn)
    rpn = _rpn(cfg.rpn, cfg.anchors, cfg.fpn.channels)
    return FasterRCNN(_pixels(cfg.input), backbone, rpn, _box_heads(cfg.roi, cfg.fpn.channels, classes))


def _proposal_network(cfg: ProposalNetworkConfig, classes: int) -> Detector:
    if classes != 1:
        raise ConfigError("model.kind", "rpn", f"finds boxes of one class; the dataset has {classes}. Use model.kind=faster_rcnn")
    backbone = _fpn(cfg.backbone, cfg.fpn)
    return ProposalNetwork(_pixels(cfg.input), backbone, _rpn(cfg.rpn, cfg.anchors, cfg.fpn.channels))


def _retinanet(cfg: RetinaNetConfig, classes: int) -> Detector:
    anchors = _anchors(cfg.anchors, cfg.levels)
    head = RetinaHead(cfg.fpn.channels, classes, _per_cell(anchors), cfg.head.convs, cfg.head.prior)
    return RetinaNet(
        _pixels(cfg.input),
        _fpn(cfg.backbone, cfg.fpn),
        head,
        anchors,
        levels=cfg.levels,
        matching=_matching(cfg.match),
        coder=BoxCoder(cfg.box_weights),
        alpha=cfg.focal_alpha,
        gamma=cfg.focal_gamma,
        box_loss=_box_loss(cfg.box_loss),
        candidates=cfg.candidates,
        selection=_selection(cfg.select),
    )


DETECTORS: dict[str, Callable[[Any, int], Detector]] = {
    "faster_rcnn": _faster_rcnn,
    "rpn": _proposal_network,
    "retinanet": _retinanet,
}


# -- backbones --


def _resnet(cfg: ResNetConfig, stages: tuple[str, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    backbone = ResNet(
        cfg.depth,
        stages,
        norm=cfg.norm,
        freeze_at=cfg.freeze_at,
        stride_in_1x1=cfg.stride_in_1x1,
        groups=cfg.groups,
        width_per_group=cfg.width_per_group,
        stem_channels=cfg.stem_channels,
        res2_channels=cfg.res2_channels,
    )
    return backbone, backbone.channels


def _timm(cfg: TimmConfig, stages: tuple[str, ...]) -> tuple[nn.Module, tuple[int, ...]]:
    return timm_backbone(cfg.name, stages, cfg.norm, cfg.freeze_at)


BACKBONES: dict[str, Callable[[Any, tuple[str, ...]], tuple[nn.Module, tuple[int, ...]]]] = {"resnet": _resnet, "timm": _timm}


def _fpn(backbone: BackboneConfig, cfg: FPNConfig) -> FPN:
    bottom_up, channels = BACKBONES[backbone.kind](backbone, cfg.stages)
    return FPN(
        bottom_up,
        channels,
        int(cfg.stages[0].removeprefix("res")),
        cfg.channels,
        fuse=cfg.fuse,
        top=cfg.top,
        top_input=cfg.top_input,
        hold_statistics=backbone.norm != "batch",
    )


# -- parts --


def _rpn(cfg: RPNConfig, anchor_cfg: AnchorConfig, channels: int) -> RPN:
    anchors = _anchors(anchor_cfg, cfg.levels)
    return RPN(
        RPNHead(channels, _per_cell(anchors), cfg.convs),
        anchors,
        levels=cfg.levels,
        matching=_matching(cfg.match),
        sampler=_sampler(cfg.sample),
        coder=BoxCoder(cfg.box_weights),
        box_loss=_box_loss(cfg.box_loss),
        loss_weight=cfg.loss_weight,
        keep_train=(cfg.train.before_nms, cfg.train.after_nms),
        keep_test=(cfg.test.before_nms, cfg.test.after_nms),
        nms_threshold=cfg.nms,
        min_size=cfg.min_size,
    )


def _box_heads(cfg: BoxROIConfig, channels: int, classes: int) -> BoxROIHeads:
    pool, head = cfg.pooler, cfg.head
    box_head = BoxHead(channels, pool.size, head.convs, head.conv_channels, head.fcs, head.fc_channels)
    return BoxROIHeads(
        _pooler(pool, cfg.levels),
        box_head,
        BoxPredictor(box_head.width, classes, cfg.class_agnostic),
        classes=classes,
        levels=cfg.levels,
        matching=_matching(cfg.match),
        sampler=_sampler(cfg.sample),
        append_truths=cfg.append_truths,
        coder=BoxCoder(cfg.box_weights),
        box_loss=_box_loss(cfg.box_loss),
        selection=_selection(cfg.select),
        mask_head=None if cfg.mask is None else MASK_HEADS[cfg.mask.kind](cfg.mask, cfg.levels, channels, classes),
    )


def _conv_mask_head(cfg: MaskConfig, levels: tuple[str, ...], channels: int, classes: int) -> ConvMaskHead:
    return ConvMaskHead(_pooler(cfg.pooler, levels), channels, cfg.convs, cfg.channels, 1 if cfg.class_agnostic else classes)


MASK_HEADS: dict[str, Callable[[Any, tuple[str, ...], int, int], ConvMaskHead]] = {"conv": _conv_mask_head}


def _pooler(cfg: PoolerConfig, levels: tuple[str, ...]) -> Pooler:
    return Pooler(_strides(levels), cfg.size, cfg.sampling_ratio, cfg.aligned, cfg.canonical_size, cfg.canonical_level)


def _anchors(cfg: AnchorConfig, levels: tuple[str, ...]) -> AnchorGenerator:
    return AnchorGenerator(cfg.sizes, cfg.ratios, _strides(levels), cfg.offset)


def _per_cell(anchors: AnchorGenerator) -> int:
    if len(set(anchors.per_cell)) > 1:
        rule = f"give {anchors.per_cell} anchors per cell: a head shared by the levels needs one number"
        raise ConfigError("model.anchors", None, rule)
    return anchors.per_cell[0]


def _strides(levels: tuple[str, ...]) -> list[int]:
    return [2 ** int(level.removeprefix("p")) for level in levels]


def _matching(cfg: MatchConfig) -> Matching:
    return Matching(cfg.thresholds, cfg.labels, cfg.low_quality)


def _sampler(cfg: SampleConfig) -> Sampler:
    return Sampler(cfg.count, cfg.positive_fraction, cfg.order)


def _box_loss(cfg: BoxLossConfig) -> BoxLoss:
    return BoxLoss(cfg.kind, cfg.beta, cfg.weight)


def _selection(cfg: SelectConfig) -> Selection:
    return Selection(cfg.score, cfg.nms, cfg.limit)


def _pixels(cfg: InputConfig) -> Pixels:
    return Pixels(cfg.mean, cfg.std)
