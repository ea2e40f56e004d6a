"""The first and the second stage."""

from collections.abc import Callable
from typing import Any

from pipeline.detector.pretrained.detectron2.densepose import densepose_settings
from pipeline.detector.pretrained.detectron2.keypoints import keypoint_settings
from pipeline.detector.pretrained.detectron2.options import Options
from pipeline.detector.pretrained.detectron2.point_rend import point_rend_settings
from pipeline.detector.pretrained.detectron2.shared import (
    HEAD_NORMS,
    box_loss_settings,
    match_settings,
    pooler_settings,
    sample_settings,
)
from pipeline.errors import ConfigError


def rpn_settings(given: Options) -> dict[str, Any]:
    given.need("MODEL.RPN.HEAD_NAME", "StandardRPNHead")
    boundary = given.take("MODEL.RPN.BOUNDARY_THRESH", -1)
    weight = given.take("MODEL.RPN.LOSS_WEIGHT")
    return {
        "levels": given.take("MODEL.RPN.IN_FEATURES"),
        "convs": given.take("MODEL.RPN.CONV_DIMS"),
        "match": match_settings(given, "MODEL.RPN", low_quality=True),
        "sample": sample_settings(given, "MODEL.RPN"),
        "box_weights": given.take("MODEL.RPN.BBOX_REG_WEIGHTS"),
        # The reference weighs both losses by LOSS_WEIGHT, and the box loss by its own factor as well.
        "box_loss": box_loss_settings(given, "MODEL.RPN", factor=weight),
        "loss_weight": weight,
        "train": {
            "before_nms": given.take("MODEL.RPN.PRE_NMS_TOPK_TRAIN"),
            "after_nms": given.take("MODEL.RPN.POST_NMS_TOPK_TRAIN"),
        },
        "test": {
            "before_nms": given.take("MODEL.RPN.PRE_NMS_TOPK_TEST"),
            "after_nms": given.take("MODEL.RPN.POST_NMS_TOPK_TEST"),
        },
        "nms": given.take("MODEL.RPN.NMS_THRESH"),
        "min_size": given.take("MODEL.PROPOSAL_GENERATOR.MIN_SIZE"),
        "boundary": None if boundary < 0 else boundary,
    }


def proposal_settings(given: Options) -> dict[str, Any]:
    """Precomputed proposals, whose limits are the data loader's."""
    given.ignore("MODEL.RPN.", "MODEL.ANCHOR_GENERATOR.")
    return {
        "proposals": {
            "train": given.take("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN", 2000),
            "test": given.take("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST", 1000),
            "min_size": given.take("MODEL.PROPOSAL_GENERATOR.MIN_SIZE"),
        }
    }


def standard_heads(given: Options) -> dict[str, Any]:
    """One box head."""
    given.ignore("MODEL.ROI_BOX_CASCADE_HEAD.")
    predicted = given.take("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", False)
    return roi_settings(given) | {"head": _fc_head(given), "train_on_predicted": predicted}


def cascade_heads(given: Options) -> dict[str, Any]:
    """A box head per stage; the first stage's IoU must be the one of the plain options, as the reference asserts."""
    ious = given.take("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5, 0.6, 0.7])
    weights = given.take("MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS", CASCADE_WEIGHTS)
    given.take("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", False)  # the reference's cascade does not look at it
    given.need("MODEL.ROI_HEADS.IOU_THRESHOLDS", [ious[0]])
    if len(ious) != len(weights):
        raise ConfigError("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", ious, f"must be as many as BBOX_REG_WEIGHTS: {len(weights)}")
    settings = roi_settings(given) | {"head": _fc_head(given), "box_weights": weights[0]}
    return settings | {"cascade": [{"iou": iou, "box_weights": own} for iou, own in zip(ious[1:], weights[1:], strict=True)]}


def res5_heads(given: Options) -> dict[str, Any]:
    """The backbone's fifth stage as the box head; masks share its features."""
    given.take("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", False)  # the reference's C4 heads do not look at it
    given.ignore(*(f"MODEL.ROI_BOX_HEAD.{name}" for name in ("NAME", "NUM_FC", "FC_DIM", "NUM_CONV", "CONV_DIM", "NORM")))
    given.ignore("MODEL.ROI_BOX_CASCADE_HEAD.")
    return roi_settings(given, own_pooler=False) | {"head": {"kind": "res5"}}


ROI_HEADS = {
    "StandardROIHeads": standard_heads,
    "CascadeROIHeads": cascade_heads,
    "Res5ROIHeads": res5_heads,
    "DensePoseROIHeads": standard_heads,
}
CASCADE_WEIGHTS = [[10.0, 10.0, 5.0, 5.0], [20.0, 20.0, 10.0, 10.0], [30.0, 30.0, 15.0, 15.0]]


def _fc_head(given: Options) -> dict[str, Any]:
    name = given.take("MODEL.ROI_BOX_HEAD.NAME")
    if name != "FastRCNNConvFCHead":
        raise ConfigError("MODEL.ROI_BOX_HEAD.NAME", name, "is not built. Choices: FastRCNNConvFCHead")
    return {
        "kind": "fc",
        "convs": given.take("MODEL.ROI_BOX_HEAD.NUM_CONV"),
        "conv_channels": given.take("MODEL.ROI_BOX_HEAD.CONV_DIM", 256),
        "fcs": given.take("MODEL.ROI_BOX_HEAD.NUM_FC"),
        "fc_channels": given.take("MODEL.ROI_BOX_HEAD.FC_DIM", 1024),
        "norm": given.choose("MODEL.ROI_BOX_HEAD.NORM", HEAD_NORMS, ""),
    }


def _class_loss(given: Options) -> dict[str, Any]:
    sigmoid, federated = (given.take(f"MODEL.ROI_BOX_HEAD.{name}", False) for name in ("USE_SIGMOID_CE", "USE_FED_LOSS"))
    classes = given.take("MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES", 50)
    power = given.take("MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER", 0.5)
    if federated and not sigmoid:
        raise ConfigError("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", True, "needs MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE=True")
    if not sigmoid:
        return {"kind": "softmax"}
    return {"kind": "sigmoid", "federated": {"classes": classes, "power": power} if federated else None}


def roi_settings(given: Options, own_pooler: bool = True) -> dict[str, Any]:
    """What all second stages have but their head; `own_pooler` False: masks share the box head's features."""
    mask, keypoint = mask_settings(given, own_pooler), keypoint_settings(given)
    given.ignore("MODEL.ROI_HEADS.NUM_CLASSES")
    return {
        "levels": given.take("MODEL.ROI_HEADS.IN_FEATURES"),
        "match": match_settings(given, "MODEL.ROI_HEADS", low_quality=False),
        "sample": sample_settings(given, "MODEL.ROI_HEADS"),
        "append_truths": given.take("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT"),
        "pooler": pooler_settings(given, "MODEL.ROI_BOX_HEAD"),
        "class_loss": _class_loss(given),
        "cascade": [],
        "train_on_predicted": False,
        "class_agnostic": given.take("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"),
        "box_weights": given.take("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"),
        "box_loss": box_loss_settings(given, "MODEL.ROI_BOX_HEAD"),
        "densepose": densepose_settings(given),
        "select": {
            "score": given.take("MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
            "nms": given.take("MODEL.ROI_HEADS.NMS_THRESH_TEST"),
            "limit": given.take("TEST.DETECTIONS_PER_IMAGE"),
            "min_size": 0.0,
        },
        "mask": mask,
        "keypoint": keypoint,
    }


def mask_settings(given: Options, own_pooler: bool = True) -> dict[str, Any] | None:
    if not given.take("MODEL.MASK_ON", False):
        given.ignore("MODEL.ROI_MASK_HEAD.", "MODEL.POINT_HEAD.")
        return None
    name = given.take("MODEL.ROI_MASK_HEAD.NAME")
    if name not in MASK_HEADS:
        raise ConfigError("MODEL.ROI_MASK_HEAD.NAME", name, f"is not built. Choices: {', '.join(MASK_HEADS)}")
    return MASK_HEADS[name](given, given.choose("INPUT.MASK_FORMAT", MASK_FORMATS, "polygon"), own_pooler)


def _conv_masks(given: Options, targets: str, own_pooler: bool) -> dict[str, Any]:
    if not own_pooler:
        given.ignore("MODEL.ROI_MASK_HEAD.POOLER_")
    given.ignore("MODEL.POINT_HEAD.")
    return {
        "kind": "conv",
        "pooler": pooler_settings(given, "MODEL.ROI_MASK_HEAD") if own_pooler else None,
        "norm": given.choose("MODEL.ROI_MASK_HEAD.NORM", HEAD_NORMS, ""),
        "convs": given.take("MODEL.ROI_MASK_HEAD.NUM_CONV"),
        "channels": given.take("MODEL.ROI_MASK_HEAD.CONV_DIM"),
        "class_agnostic": given.take("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"),
        "targets": targets,
    }


MASK_FORMATS = {"polygon": "polygons", "bitmask": "bitmaps"}
MASK_HEADS: dict[str, Callable[[Options, str, bool], dict[str, Any]]] = {
    "MaskRCNNConvUpsampleHead": _conv_masks,
    "PointRendMaskHead": point_rend_settings,
}
