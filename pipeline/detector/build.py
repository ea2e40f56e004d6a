"""From the typed settings to detectors: with `assembly`, the one place that knows both."""

from collections.abc import Callable
from typing import Any

from pipeline.detector.assembly.backbones import build_backbone, build_fpn
from pipeline.detector.assembly.custom import build_custom
from pipeline.detector.assembly.heads import build_box_heads, build_res5_heads, build_rpn
from pipeline.detector.assembly.parts import (
    build_anchors,
    build_box_loss,
    build_matching,
    build_pixels,
    build_selection,
    per_cell,
)
from pipeline.detector.assembly.rotated import rotated_faster_rcnn, rotated_proposal_network
from pipeline.detector.assembly.semantic import build_semantic_head
from pipeline.detector.assembly.tensormask import tensormask
from pipeline.detector.backbones import ResNetStages
from pipeline.detector.box_coding import BoxCoder
from pipeline.detector.box_head import BoxROIHeads
from pipeline.detector.config import (
    FasterRCNNConfig,
    FastRCNNConfig,
    ModelConfig,
    ProposalNetworkConfig,
    RetinaNetConfig,
)
from pipeline.detector.detector import Detector
from pipeline.detector.fast_rcnn import FastRCNN, GivenProposals
from pipeline.detector.faster_rcnn import FasterRCNN, ProposalNetwork
from pipeline.detector.fpn import FPN
from pipeline.detector.panoptic_fpn import PanopticFPN, SemanticFPN
from pipeline.detector.retinanet import RetinaHead, RetinaNet
from pipeline.detector.settings.backbones import ResNetConfig
from pipeline.detector.settings.custom import CustomModelConfig
from pipeline.detector.settings.semantic import PanopticFPNConfig, SemanticFPNConfig
from pipeline.errors import ConfigError


def build_detector(cfg: ModelConfig, num_classes: int, semantic_classes: int = 0) -> Detector:
    """A detector with random weights (from torch's global generator: seed it first), in training mode.

    `num_classes` are those of objects, `semantic_classes` those of semantic maps. Pretrained weights are
    `weights.load_pretrained`'s business. ConfigError when the settings do not fit together.
    """
    if "semantic" in cfg.tasks and not 2 <= semantic_classes <= 255:
        rule = "must be 2 to 255: the dataset has too few or too many classes of ground, or no semantic maps"
        raise ConfigError("semantic_classes", semantic_classes, rule)
    if cfg.kind == "semantic_fpn":
        return _semantic_fpn(cfg, semantic_classes)
    if num_classes < 1:
        raise ConfigError("num_classes", num_classes, "must be at least 1: the dataset has no class")
    return (
        _panoptic_fpn(cfg, num_classes, semantic_classes) if cfg.kind == "panoptic_fpn" else DETECTORS[cfg.kind](cfg, num_classes)
    )


def _faster_rcnn(cfg: FasterRCNNConfig, classes: int) -> Detector:
    backbone = build_backbone(cfg.backbone, cfg.fpn, {*cfg.rpn.levels, *cfg.roi.levels})
    rpn = build_rpn(cfg.rpn, cfg.anchors, _channels(backbone, cfg.rpn.levels, "rpn.levels"), backbone.level_strides)
    return FasterRCNN(build_pixels(cfg.input), backbone, rpn, _second_stage(cfg, backbone, classes))


def _fast_rcnn(cfg: FastRCNNConfig, classes: int) -> Detector:
    backbone = build_backbone(cfg.backbone, cfg.fpn, cfg.roi.levels)
    proposals = GivenProposals(cfg.proposals.train, cfg.proposals.test, cfg.proposals.min_size)
    return FastRCNN(build_pixels(cfg.input), backbone, proposals, _second_stage(cfg, backbone, classes))


def _second_stage(cfg: FasterRCNNConfig | FastRCNNConfig, backbone: FPN | ResNetStages, classes: int) -> BoxROIHeads:
    if cfg.roi.head.kind == "res5" and isinstance(cfg.backbone, ResNetConfig):
        return build_res5_heads(cfg.roi, cfg.backbone, classes, backbone.level_strides)
    return build_box_heads(cfg.roi, _channels(backbone, cfg.roi.levels, "roi.levels"), classes, backbone.level_strides)


def _channels(backbone: FPN | ResNetStages, levels: tuple[str, ...], field: str) -> int:
    """Channels of the levels; a head reads all of them with the same weights."""
    if isinstance(backbone, FPN):
        return backbone.channels
    channels = {backbone.level_channels[level] for level in levels}
    if len(channels) > 1:
        raise ConfigError(f"model.{field}", list(levels), "must be one stage where fpn is null: stages differ in channels")
    return channels.pop()


def _proposal_network(cfg: ProposalNetworkConfig, classes: int) -> Detector:
    backbone = build_backbone(cfg.backbone, cfg.fpn, cfg.rpn.levels)
    rpn = build_rpn(cfg.rpn, cfg.anchors, _channels(backbone, cfg.rpn.levels, "rpn.levels"), backbone.level_strides)
    return ProposalNetwork(build_pixels(cfg.input), backbone, rpn)


def _retinanet(cfg: RetinaNetConfig, classes: int) -> Detector:
    anchors = build_anchors(cfg.anchors, cfg.levels)
    head = RetinaHead(
        cfg.fpn.channels, classes, per_cell(anchors), cfg.head.convs, cfg.head.prior, cfg.head.norm, len(cfg.levels)
    )
    return RetinaNet(
        build_pixels(cfg.input),
        build_fpn(cfg.backbone, cfg.fpn),
        head,
        anchors,
        levels=cfg.levels,
        matching=build_matching(cfg.match),
        coder=BoxCoder(cfg.box_weights),
        alpha=cfg.focal_alpha,
        gamma=cfg.focal_gamma,
        box_loss=build_box_loss(cfg.box_loss),
        candidates=cfg.candidates,
        clip=cfg.clip,
        selection=build_selection(cfg.select),
    )


def _semantic_fpn(cfg: SemanticFPNConfig, semantic_classes: int) -> Detector:
    head = build_semantic_head(cfg.semantic, cfg.fpn.channels, semantic_classes)
    return SemanticFPN(build_pixels(cfg.input), build_fpn(cfg.backbone, cfg.fpn), head)


def _panoptic_fpn(cfg: PanopticFPNConfig, classes: int, semantic_classes: int) -> Detector:
    return PanopticFPN(
        build_pixels(cfg.input),
        build_fpn(cfg.backbone, cfg.fpn),
        build_rpn(cfg.rpn, cfg.anchors, cfg.fpn.channels),
        build_box_heads(cfg.roi, cfg.fpn.channels, classes),
        build_semantic_head(cfg.semantic, cfg.fpn.channels, semantic_classes),
        cfg.instance_weight,
    )


def _custom(cfg: CustomModelConfig, classes: int) -> Detector:
    model = build_custom("", cfg.target, cfg.options, build_pixels(cfg.input), classes)
    if not isinstance(model, Detector):
        raise ConfigError("model.target", cfg.target, "makes no pipeline.detector.detector.Detector")
    return model


DETECTORS: dict[str, Callable[[Any, int], Detector]] = {
    "faster_rcnn": _faster_rcnn,
    "fast_rcnn": _fast_rcnn,
    "rpn": _proposal_network,
    "retinanet": _retinanet,
    "custom": _custom,
    "rotated_faster_rcnn": rotated_faster_rcnn,
    "rotated_rpn": rotated_proposal_network,
    "tensormask": tensormask,
}
