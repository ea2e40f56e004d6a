"""From the typed settings to detectors: with `assembly`, the one place that knows both."""

from collections.abc import Callable
from typing import Any

from pipeline.detector.assembly.backbones import build_fpn
from pipeline.detector.assembly.custom import build_custom
from pipeline.detector.assembly.heads import build_box_heads, build_rpn
from pipeline.detector.assembly.parts import (
    build_anchors,
    build_box_loss,
    build_matching,
    build_pixels,
    build_selection,
    per_cell,
)
from pipeline.detector.box_coding import BoxCoder
from pipeline.detector.config import FasterRCNNConfig, ModelConfig, ProposalNetworkConfig, RetinaNetConfig
from pipeline.detector.detector import Detector
from pipeline.detector.faster_rcnn import FasterRCNN, ProposalNetwork
from pipeline.detector.retinanet import RetinaHead, RetinaNet
from pipeline.detector.settings.custom import CustomModelConfig
from pipeline.errors import ConfigError


def build_detector(cfg: ModelConfig, num_classes: int) -> Detector:
    """A detector with random weights (from torch's global generator: seed it first), in training mode.

    Pretrained weights are `weights.load_pretrained`'s business. ConfigError when the settings do not fit together.
    """
    if num_classes < 1:
        raise ConfigError("num_classes", num_classes, "must be at least 1: the dataset has no class")
    return DETECTORS[cfg.kind](cfg, num_classes)


def _faster_rcnn(cfg: FasterRCNNConfig, classes: int) -> Detector:
    backbone = build_fpn(cfg.backbone, cfg.fpn)
    rpn = build_rpn(cfg.rpn, cfg.anchors, cfg.fpn.channels)
    return FasterRCNN(build_pixels(cfg.input), backbone, rpn, build_box_heads(cfg.roi, cfg.fpn.channels, classes))


def _proposal_network(cfg: ProposalNetworkConfig, classes: int) -> Detector:
    if classes != 1:
        raise ConfigError("model.kind", "rpn", f"finds boxes of one class; the dataset has {classes}. Use model.kind=faster_rcnn")
    backbone = build_fpn(cfg.backbone, cfg.fpn)
    return ProposalNetwork(build_pixels(cfg.input), backbone, build_rpn(cfg.rpn, cfg.anchors, cfg.fpn.channels))


def _retinanet(cfg: RetinaNetConfig, classes: int) -> Detector:
    anchors = build_anchors(cfg.anchors, cfg.levels)
    head = RetinaHead(cfg.fpn.channels, classes, per_cell(anchors), cfg.head.convs, cfg.head.prior)
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


def _custom(cfg: CustomModelConfig, classes: int) -> Detector:
    model = build_custom("", cfg.target, cfg.options, build_pixels(cfg.input), classes)
    if not isinstance(model, Detector):
        raise ConfigError("model.target", cfg.target, "makes no pipeline.detector.detector.Detector")
    return model


DETECTORS: dict[str, Callable[[Any, int], Detector]] = {
    "faster_rcnn": _faster_rcnn,
    "rpn": _proposal_network,
    "retinanet": _retinanet,
    "custom": _custom,
}
