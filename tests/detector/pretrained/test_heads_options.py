"""Detectron2's options of backbones and box heads as our settings: every documented value is read, what is unknown is named."""

from typing import Any

import pytest

from pipeline.detector.build import build_detector
from pipeline.detector.pretrained.detectron2.translate import translate
from pipeline.errors import ConfigError

BASE: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.MASK_ON": True,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "INPUT.FORMAT": "BGR",
    "INPUT.MASK_FORMAT": "polygon",
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, False],
    "MODEL.RESNETS.DEFORM_MODULATED": False,
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": 1,
    "MODEL.FPN.IN_FEATURES": [],
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.FPN.NORM": "",
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.ANGLES": [[-90, 0, 90]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.RPN.IN_FEATURES": ["res4"],
    "MODEL.RPN.BOUNDARY_THRESH": -1,
    "MODEL.RPN.IOU_THRESHOLDS": [0.3, 0.7],
    "MODEL.RPN.IOU_LABELS": [0, -1, 1],
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.RPN.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "MODEL.RPN.SMOOTH_L1_BETA": 0.0,
    "MODEL.RPN.LOSS_WEIGHT": 1.0,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.CONV_DIMS": [-1],
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.ROI_HEADS.NUM_CLASSES": 5,
    "MODEL.ROI_HEADS.IN_FEATURES": ["res4"],
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
    "MODEL.ROI_HEADS.IOU_LABELS": [0, 1],
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": True,
    "MODEL.ROI_BOX_HEAD.NAME": "",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 0,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NORM": "",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": False,
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": False,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER": 0.5,
    "MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES": 50,
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 0,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 256,
    "MODEL.ROI_MASK_HEAD.NORM": "",
    "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": False,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
"""The public C4 base config."""

FPN = {
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
}


def pyramid(**changes: Any) -> Any:
    return translate(BASE | FPN | {name.replace("__", "."): value for name, value in changes.items()})


def test_c4_has_the_references_parameters() -> None:
    """Names and shapes as the public C4 checkpoints have them (listed from the reference's documentation of its heads)."""
    import torch

    with torch.device("meta"):
        model = build_detector(translate(BASE), 5)
    shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
    assert shapes["backbone.res4.5.conv3.norm.running_var"] == [1024] and "backbone.res5.0.conv1.weight" not in shapes
    assert shapes["roi_heads.res5.0.shortcut.weight"] == [2048, 1024, 1, 1] and shapes["roi_heads.res5.2.conv2.weight"][0] == 512
    assert shapes["roi_heads.box_predictor.cls_score.weight"] == [6, 2048]
    assert shapes["roi_heads.mask_head.deconv.weight"] == [2048, 256, 2, 2]
    assert shapes["proposal_generator.rpn_head.anchor_deltas.weight"] == [60, 1024, 1, 1]
    assert not any(name.startswith(("roi_heads.box_head", "roi_heads.pooler")) for name in shapes)
    assert model.roi_heads.mask_head.size == 14 and model.divisor == 1  # type: ignore[union-attr]


def test_dc5_is_a_dilated_stage_with_common_heads() -> None:
    changes = {
        "MODEL.RESNETS.RES5_DILATION": 2,
        "MODEL.RPN.IN_FEATURES": ["res5"],
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
        "MODEL.ROI_HEADS.IN_FEATURES": ["res5"],
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    }
    import torch

    with torch.device("meta"):
        model: Any = build_detector(translate(BASE | changes), 5)
    assert model.proposal_generator.anchors.strides == (16,) and model.roi_heads.pooler.scales == [1 / 16]
    assert model.roi_heads.mask_head.pooler.scales == [1 / 16] and model.backbone.res5[0].conv2.dilation == (2, 2)


@pytest.mark.parametrize(
    ("given", "ours"),
    [("FrozenBN", "frozen"), ("BN", "batch"), ("SyncBN", "sync"), ("naiveSyncBN", "sync"), ("GN", "group"), ("LN", "layer")],
)
def test_every_norm_everywhere(given: str, ours: str) -> None:
    places = ("MODEL.RESNETS.NORM", "MODEL.FPN.NORM", "MODEL.ROI_BOX_HEAD.NORM", "MODEL.ROI_MASK_HEAD.NORM")
    cfg: Any = translate(BASE | FPN | dict.fromkeys(places, given))
    assert [cfg.backbone.norm, cfg.fpn.norm, cfg.roi.head.norm, cfg.roi.mask.norm] == [ours] * 4
    assert pyramid(MODEL__FPN__NORM="").fpn.norm == "none"


def test_deformable_stages() -> None:
    stages = {"MODEL__RESNETS__DEFORM_ON_PER_STAGE": [False, True, False, True]}
    cfg = pyramid(**stages, MODEL__RESNETS__DEFORM_MODULATED=True, MODEL__RESNETS__DEFORM_NUM_GROUPS=2)
    assert (cfg.backbone.deform.stages, cfg.backbone.deform.modulated, cfg.backbone.deform.groups) == (("res3", "res5"), True, 2)
    with pytest.raises(ConfigError, match=r"deform\.stages"):
        translate(BASE | {"MODEL.RESNETS.DEFORM_ON_PER_STAGE": [False, False, False, True]})


def test_cascade_options_and_what_the_reference_asserts() -> None:
    cascade = {
        "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
        "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.4, 0.8],
        "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]],
    }
    with pytest.raises(ConfigError, match=r"IOU_THRESHOLDS"):
        translate(BASE | FPN | cascade)
    cfg: Any = translate(BASE | FPN | cascade | {"MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.4]})
    assert cfg.roi.box_weights == (1.0, 2.0, 3.0, 4.0) and cfg.roi.cascade[0].iou == 0.8
    assert cfg.roi.cascade[0].box_weights == (5.0, 6.0, 7.0, 8.0)
    plain = {"MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.4], "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False}
    with pytest.raises(ConfigError, match=r"class_agnostic"):
        translate(BASE | FPN | cascade | plain)


def test_lvis_losses() -> None:
    sigmoid, fed = "MODEL__ROI_BOX_HEAD__USE_SIGMOID_CE", "MODEL__ROI_BOX_HEAD__USE_FED_LOSS"
    assert pyramid().roi.class_loss.kind == "softmax" and pyramid(**{sigmoid: True}).roi.class_loss.federated is None
    cfg = pyramid(**{sigmoid: True, fed: True}, MODEL__ROI_BOX_HEAD__FED_LOSS_NUM_CLASSES=7)
    assert (cfg.roi.class_loss.federated.classes, cfg.roi.class_loss.federated.power) == (7, 0.5)
    with pytest.raises(ConfigError, match="USE_SIGMOID_CE"):
        pyramid(**{fed: True})


def test_fast_rcnn_reads_its_limits() -> None:
    cfg = pyramid(MODEL__PROPOSAL_GENERATOR__NAME="PrecomputedProposals", DATASETS__PRECOMPUTED_PROPOSAL_TOPK_TEST=7)
    assert cfg.kind == "fast_rcnn" and (cfg.proposals.train, cfg.proposals.test) == (2000, 7)


def test_poolers_boundary_and_boxes_that_train_masks() -> None:
    methods = {name: pyramid(MODEL__ROI_BOX_HEAD__POOLER_TYPE=name).roi.pooler for name in ("ROIAlignV2", "ROIAlign", "ROIPool")}
    assert [(pooler.method, pooler.aligned) for pooler in methods.values()] == [
        ("align", True),
        ("align", False),
        ("pool", False),
    ]
    assert pyramid().rpn.boundary is None and pyramid(MODEL__RPN__BOUNDARY_THRESH=0).rpn.boundary == 0
    assert pyramid(MODEL__ROI_BOX_HEAD__TRAIN_ON_PRED_BOXES=True).roi.train_on_predicted
    assert pyramid(MODEL__RPN__CONV_DIMS=[-1, 64]).rpn.convs == (-1, 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"MODEL.RESNETS.NORM": "XN"}, r"MODEL\.RESNETS\.NORM.*Choices: FrozenBN"),
        ({"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignRotated"}, "POOLER_TYPE"),
        ({"MODEL.ROI_HEADS.SOMETHING": 1}, r"MODEL\.ROI_HEADS\.SOMETHING.*is not known"),
        ({"MODEL.RESNETS.RES5_DILATION": 2}, r"res5_dilation"),
    ],
)
def test_what_is_not_understood_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        translate(BASE | FPN | change)
    with pytest.raises(ConfigError, match=r"ROI_HEADS\.NAME"):
        translate(BASE | {"MODEL.ROI_HEADS.NAME": "OtherHeads"})
