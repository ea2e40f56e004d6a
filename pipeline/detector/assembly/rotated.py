"""From settings to rotated detectors."""

from pipeline.detector.assembly.backbones import build_fpn
from pipeline.detector.assembly.parts import build_pixels, build_sampler, build_selection, per_cell, strides
from pipeline.detector.box_head import BoxHead, BoxPredictor
from pipeline.detector.classification import SoftmaxLoss
from pipeline.detector.detector import Detector
from pipeline.detector.losses import BoxLoss
from pipeline.detector.rotated.anchors import RotatedAnchorGenerator
from pipeline.detector.rotated.detectors import RotatedFasterRCNN, RotatedProposalNetwork
from pipeline.detector.rotated.geometry import RotatedBoxCoder
from pipeline.detector.rotated.stages import RotatedMatching, RotatedPooler, RotatedROIHeads, RotatedRPN
from pipeline.detector.rpn import RPNHead
from pipeline.detector.settings.parts import MatchConfig
from pipeline.detector.settings.rotated import (
    RotatedAnchorConfig,
    RotatedBoxLossConfig,
    RotatedFasterRCNNConfig,
    RotatedProposalNetworkConfig,
    RotatedROIConfig,
    RotatedRPNConfig,
)

VALUES = 5
"""Of a rotated box."""


def rotated_faster_rcnn(cfg: RotatedFasterRCNNConfig, classes: int) -> Detector:
    backbone, channels = build_fpn(cfg.backbone, cfg.fpn), cfg.fpn.channels
    rpn = _rpn(cfg.rpn, cfg.anchors, channels)
    return RotatedFasterRCNN(build_pixels(cfg.input), backbone, rpn, _roi_heads(cfg.roi, channels, classes))


def rotated_proposal_network(cfg: RotatedProposalNetworkConfig, classes: int) -> Detector:
    rpn = _rpn(cfg.rpn, cfg.anchors, cfg.fpn.channels)
    return RotatedProposalNetwork(build_pixels(cfg.input), build_fpn(cfg.backbone, cfg.fpn), rpn)


def _rpn(cfg: RotatedRPNConfig, anchor_cfg: RotatedAnchorConfig, channels: int) -> RotatedRPN:
    given = (anchor_cfg.sizes, anchor_cfg.ratios, anchor_cfg.angles)
    anchors = RotatedAnchorGenerator(*given, strides(cfg.levels), anchor_cfg.offset)
    return RotatedRPN(
        RPNHead(channels, per_cell(anchors), cfg.convs, VALUES),
        anchors,
        levels=cfg.levels,
        matching=_matching(cfg.match),
        sampler=build_sampler(cfg.sample),
        coder=RotatedBoxCoder(cfg.box_weights),
        box_loss=_box_loss(cfg.box_loss),
        loss_weight=cfg.loss_weight,
        keep_train=(cfg.train.before_nms, cfg.train.after_nms),
        keep_test=(cfg.test.before_nms, cfg.test.after_nms),
        nms_threshold=cfg.nms,
        min_size=cfg.min_size,
    )


def _roi_heads(cfg: RotatedROIConfig, channels: int, classes: int) -> RotatedROIHeads:
    pool, head = cfg.pooler, cfg.head
    box_head = BoxHead(channels, pool.size, head.convs, head.conv_channels, head.fcs, head.fc_channels, head.norm)
    aligned = True
    return RotatedROIHeads(
        RotatedPooler(strides(cfg.levels), pool.size, pool.sampling_ratio, aligned, pool.canonical_size, pool.canonical_level),
        box_head,
        BoxPredictor(box_head.width, classes, cfg.class_agnostic, None, VALUES),
        classes=classes,
        levels=cfg.levels,
        matching=_matching(cfg.match),
        sampler=build_sampler(cfg.sample),
        append_truths=cfg.append_truths,
        coder=RotatedBoxCoder(cfg.box_weights),
        class_loss=SoftmaxLoss(),
        box_loss=_box_loss(cfg.box_loss),
        train_on_predicted=False,
        selection=build_selection(cfg.select),
        branches=(),
    )


def _matching(cfg: MatchConfig) -> RotatedMatching:
    return RotatedMatching(cfg.thresholds, cfg.labels, cfg.low_quality)


def _box_loss(cfg: RotatedBoxLossConfig) -> BoxLoss:
    return BoxLoss(cfg.kind, cfg.beta, cfg.weight)
