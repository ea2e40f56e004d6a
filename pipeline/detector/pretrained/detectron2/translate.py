"""Detectron2's settings as ours: dotted option names and values in, a model config out.

Every option must be understood: one that is unknown, or set to something not built, stops by name.
"""

from collections.abc import Mapping
from typing import Any

import pydantic

from pipeline.detector.config import ModelConfig
from pipeline.detector.pretrained.detectron2.heads import roi_settings, rpn_settings
from pipeline.detector.pretrained.detectron2.options import NotBuiltError, Options
from pipeline.detector.pretrained.detectron2.rotated import rotated_faster_rcnn_settings, rotated_rpn_settings
from pipeline.detector.pretrained.detectron2.shared import match_settings, shared_settings
from pipeline.detector.pretrained.detectron2.tensormask import tensormask_settings


def translate(options: Mapping[str, Any]) -> ModelConfig:
    """The model config of a Detectron2 config given as {"MODEL.BACKBONE.FREEZE_AT": 2, ...}.

    NotBuiltError for another architecture, ConfigError naming the option for a value or a name that is not understood.
    """
    given = Options(options)
    architecture = given.take("MODEL.META_ARCHITECTURE")
    if architecture not in ARCHITECTURES:
        raise NotBuiltError("MODEL.META_ARCHITECTURE", architecture, f"is not built. Choices: {', '.join(ARCHITECTURES)}")
    settings = ARCHITECTURES[architecture](given)
    given.require_all_read()
    return pydantic.TypeAdapter[ModelConfig](ModelConfig).validate_python(settings)


def _faster_rcnn(given: Options) -> dict[str, Any]:
    heads, proposals = given.take("MODEL.ROI_HEADS.NAME"), given.take("MODEL.PROPOSAL_GENERATOR.NAME")
    if proposals == "RRPN":
        return rotated_faster_rcnn_settings(given)
    if heads != "StandardROIHeads":
        raise NotBuiltError("MODEL.ROI_HEADS.NAME", heads, "is not built. Choices: StandardROIHeads")
    if proposals != "RPN":
        raise NotBuiltError("MODEL.PROPOSAL_GENERATOR.NAME", proposals, "is not built. Choices: RPN")
    return {"kind": "faster_rcnn", **shared_settings(given), "rpn": rpn_settings(given), "roi": roi_settings(given)}


def _proposal_network(given: Options) -> dict[str, Any]:
    given.need("MODEL.PROPOSAL_GENERATOR.NAME", "RPN", "RRPN")
    given.need("MODEL.MASK_ON", False)
    if given.options.get("MODEL.PROPOSAL_GENERATOR.NAME") == "RRPN":
        settings = rotated_rpn_settings(given)
    else:
        settings = {"kind": "rpn", **shared_settings(given), "rpn": rpn_settings(given)}
    given.ignore("MODEL.ROI_", "MODEL.KEYPOINT_ON", "TEST.DETECTIONS_PER_IMAGE")
    return settings


def _retinanet(given: Options) -> dict[str, Any]:
    settings = {
        "kind": "retinanet",
        **shared_settings(given),
        "levels": given.take("MODEL.RETINANET.IN_FEATURES"),
        "head": {"convs": given.take("MODEL.RETINANET.NUM_CONVS"), "prior": given.take("MODEL.RETINANET.PRIOR_PROB")},
        "match": match_settings(given, "MODEL.RETINANET", low_quality=True),
        "focal_alpha": given.take("MODEL.RETINANET.FOCAL_LOSS_ALPHA"),
        "focal_gamma": given.take("MODEL.RETINANET.FOCAL_LOSS_GAMMA"),
        "box_weights": given.take("MODEL.RETINANET.BBOX_REG_WEIGHTS"),
        "box_loss": {
            "kind": given.take("MODEL.RETINANET.BBOX_REG_LOSS_TYPE"),
            "beta": given.take("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA"),
            "weight": 1.0,
        },
        "candidates": given.take("MODEL.RETINANET.TOPK_CANDIDATES_TEST"),
        "select": {
            "score": given.take("MODEL.RETINANET.SCORE_THRESH_TEST"),
            "nms": given.take("MODEL.RETINANET.NMS_THRESH_TEST"),
            "limit": given.take("TEST.DETECTIONS_PER_IMAGE"),
        },
    }
    given.need("MODEL.RETINANET.NORM", "")
    given.need("MODEL.MASK_ON", False)
    given.ignore("MODEL.RETINANET.NUM_CLASSES", "MODEL.PROPOSAL_GENERATOR.", "MODEL.KEYPOINT_ON")
    return settings


ARCHITECTURES = {
    "GeneralizedRCNN": _faster_rcnn,
    "ProposalNetwork": _proposal_network,
    "RetinaNet": _retinanet,
    "TensorMask": tensormask_settings,
}
