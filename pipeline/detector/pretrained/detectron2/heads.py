"""The first and the second stage."""

from typing import Any

from pipeline.detector.pretrained.detectron2.densepose import densepose_settings
from pipeline.detector.pretrained.detectron2.options import NotBuiltError, Options
from pipeline.detector.pretrained.detectron2.shared import box_loss_settings, match_settings, pooler_settings, sample_settings


def rpn_settings(given: Options) -> dict[str, Any]:
    given.need("MODEL.RPN.HEAD_NAME", "StandardRPNHead")
    given.need("MODEL.RPN.BOUNDARY_THRESH", -1)
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
    }


def roi_settings(given: Options) -> dict[str, Any]:
    for extra in ("MODEL.KEYPOINT_ON",):  # first: a head that is not built changes options of the others
        if given.take(extra, False):
            raise NotBuiltError(extra, True, "is not built")
    mask = mask_settings(given)
    given.need("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead")
    given.need("MODEL.ROI_BOX_HEAD.NORM", "")
    given.need("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", False)
    given.need("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", False)
    given.need("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", False)
    given.ignore("MODEL.ROI_BOX_HEAD.FED_LOSS_", "MODEL.ROI_HEADS.NUM_CLASSES")
    return {
        "levels": given.take("MODEL.ROI_HEADS.IN_FEATURES"),
        "match": match_settings(given, "MODEL.ROI_HEADS", low_quality=False),
        "sample": sample_settings(given, "MODEL.ROI_HEADS"),
        "append_truths": given.take("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT"),
        "pooler": pooler_settings(given, "MODEL.ROI_BOX_HEAD"),
        "head": {
            "convs": given.take("MODEL.ROI_BOX_HEAD.NUM_CONV"),
            "conv_channels": given.take("MODEL.ROI_BOX_HEAD.CONV_DIM"),
            "fcs": given.take("MODEL.ROI_BOX_HEAD.NUM_FC"),
            "fc_channels": given.take("MODEL.ROI_BOX_HEAD.FC_DIM"),
        },
        "class_agnostic": given.take("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"),
        "box_weights": given.take("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"),
        "box_loss": box_loss_settings(given, "MODEL.ROI_BOX_HEAD"),
        "densepose": densepose_settings(given),
        "select": {
            "score": given.take("MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
            "nms": given.take("MODEL.ROI_HEADS.NMS_THRESH_TEST"),
            "limit": given.take("TEST.DETECTIONS_PER_IMAGE"),
        },
        "mask": mask,
    }


def mask_settings(given: Options) -> dict[str, Any] | None:
    if not given.take("MODEL.MASK_ON", False):
        given.ignore("MODEL.ROI_MASK_HEAD.")
        return None
    name = given.take("MODEL.ROI_MASK_HEAD.NAME")
    if name != "MaskRCNNConvUpsampleHead":
        raise NotBuiltError("MODEL.ROI_MASK_HEAD.NAME", name, "is not built. Choices: MaskRCNNConvUpsampleHead")
    given.need("MODEL.ROI_MASK_HEAD.NORM", "")
    return {
        "kind": "conv",
        "pooler": pooler_settings(given, "MODEL.ROI_MASK_HEAD"),
        "convs": given.take("MODEL.ROI_MASK_HEAD.NUM_CONV"),
        "channels": given.take("MODEL.ROI_MASK_HEAD.CONV_DIM"),
        "class_agnostic": given.take("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"),
    }
