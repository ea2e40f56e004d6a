"""Public options of rotated detectors and TensorMask become our settings; what does not go together stops by name."""

from typing import Any

import pytest

from pipeline.detector.pretrained.detectron2.translate import translate
from pipeline.errors import ConfigError
from tests.detector.models import read_config

SHARED: dict[str, Any] = {
    "MODEL.MASK_ON": False,
    "INPUT.FORMAT": "BGR",
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.FPN.OUT_CHANNELS": 256,
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.FPN.NORM": "",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
ROTATED: dict[str, Any] = SHARED | {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.PROPOSAL_GENERATOR.NAME": "RRPN",
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.ANCHOR_GENERATOR.NAME": "RotatedAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.ANGLES": [[-90, 0, 90]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.RPN.HEAD_NAME": "StandardRPNHead",
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.CONV_DIMS": [-1],
    "MODEL.RPN.IOU_THRESHOLDS": [0.3, 0.7],
    "MODEL.RPN.IOU_LABELS": [0, -1, 1],
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0, 1.0],
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.RPN.SMOOTH_L1_BETA": 0.0,
    "MODEL.RPN.LOSS_WEIGHT": 1.0,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.ROI_HEADS.NAME": "RROIHeads",
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
    "MODEL.ROI_HEADS.IOU_LABELS": [0, 1],
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": True,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignRotated",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 0,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 256,
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 1024,
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0, 1.0],
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": 1.0,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
}
TENSORMASK: dict[str, Any] = SHARED | {
    "MODEL.META_ARCHITECTURE": "TensorMask",
    "MODEL.MASK_ON": True,
    "MODEL.BACKBONE.NAME": "build_retinanet_resnet_fpn_backbone",
    "MODEL.FPN.FUSE_TYPE": "avg",
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[44, 60], [88, 120], [176, 240], [352, 480], [704, 960], [1408, 1920]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[1.0]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.TENSOR_MASK.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6", "p7"],
    "MODEL.TENSOR_MASK.NUM_CONVS": 4,
    "MODEL.TENSOR_MASK.NUM_CLASSES": 80,
    "MODEL.TENSOR_MASK.CLS_CHANNELS": 256,
    "MODEL.TENSOR_MASK.SCORE_THRESH_TEST": 0.05,
    "MODEL.TENSOR_MASK.TOPK_CANDIDATES_TEST": 6000,
    "MODEL.TENSOR_MASK.NMS_THRESH_TEST": 0.5,
    "MODEL.TENSOR_MASK.BBOX_CHANNELS": 128,
    "MODEL.TENSOR_MASK.BBOX_REG_WEIGHTS": [1.5, 1.5, 0.75, 0.75],
    "MODEL.TENSOR_MASK.FOCAL_LOSS_GAMMA": 3.0,
    "MODEL.TENSOR_MASK.FOCAL_LOSS_ALPHA": 0.3,
    "MODEL.TENSOR_MASK.MASK_CHANNELS": 128,
    "MODEL.TENSOR_MASK.MASK_LOSS_WEIGHT": 2.0,
    "MODEL.TENSOR_MASK.POSITIVE_WEIGHT": 1.5,
    "MODEL.TENSOR_MASK.ALIGNED_ON": True,
    "MODEL.TENSOR_MASK.BIPYRAMID_ON": True,
}


def test_the_public_values_are_those_of_our_configs() -> None:
    assert translate(ROTATED) == read_config("rotated_faster_rcnn_r50_fpn")
    first = ROTATED | {"MODEL.META_ARCHITECTURE": "ProposalNetwork"}
    assert translate(first) == read_config("rotated_rpn_r50_fpn")
    assert translate(TENSORMASK) == read_config("tensormask_r50_fpn")


def test_every_value_arrives() -> None:
    changed = ROTATED | {
        "MODEL.ANCHOR_GENERATOR.ANGLES": [[0, 30]],
        "MODEL.RPN.BBOX_REG_WEIGHTS": [2.0, 2.0, 1.0, 1.0, 3.0],
        "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0, 7.0],
        "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5,
    }
    cfg = translate(changed)
    assert cfg.anchors.angles == ((0, 30),) and cfg.rpn.box_weights[4] == 3 and cfg.roi.box_weights[4] == 7
    assert cfg.roi.pooler.sampling_ratio == 2 and cfg.roi.class_agnostic and cfg.roi.box_loss.beta == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator"),
        ("MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
        ("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignV2"),
        ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE", "giou"),
        ("MODEL.RPN.BBOX_REG_WEIGHTS", [1.0, 1.0, 1.0, 1.0]),
        ("MODEL.MASK_ON", True),
        ("MODEL.RPN.NOBODY_KNOWS", 1),
        ("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", True),
        ("MODEL.DENSEPOSE_ON", True),
    ],
)
def test_what_does_not_go_together_stops_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        translate(ROTATED | {name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODEL.TENSOR_MASK.BIPYRAMID_ON", False),
        ("MODEL.ANCHOR_GENERATOR.SIZES", [[44], [44], [176], [352], [704], [1408]]),
        ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", [[0.5]]),
    ],
)
def test_other_tensormasks_stop_by_name(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        translate(TENSORMASK | {name: value})
