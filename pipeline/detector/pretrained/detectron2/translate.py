"""Detectron2's settings as ours: dotted option names and values in, a model config out.

Every option must be understood: one that is unknown, or set to something not built, stops by name.
"""

from collections.abc import Mapping
from typing import Any

import pydantic

from pipeline.detector.config import ModelConfig
from pipeline.detector.pretrained.detectron2.heads import ROI_HEADS, proposal_settings, rpn_settings
from pipeline.detector.pretrained.detectron2.options import Options
from pipeline.detector.pretrained.detectron2.rotated import rotated_faster_rcnn_settings, rotated_rpn_settings
from pipeline.detector.pretrained.detectron2.semantic import panoptic_fpn, semantic_fpn
from pipeline.detector.pretrained.detectron2.shared import (
    BOX_LOSSES,
    TOWER_NORMS,
    anchor_settings,
    match_settings,
    shared_settings,
)
from pipeline.detector.pretrained.detectron2.tensormask import tensormask_settings
from pipeline.errors import ConfigError


def translate(options: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> ModelConfig:
    """The model config of a Detectron2 config given as {"MODEL.BACKBONE.FREEZE_AT": 2, ...}.

    `defaults` stand for options that are left out; without them an option that is asked for and absent stops.

    ConfigError naming the option for an architecture, a value or a name that is not understood.
    """
    given = Options(options, defaults)
    architecture = given.take("MODEL.META_ARCHITECTURE")
    if architecture not in ARCHITECTURES:
        raise ConfigError("MODEL.META_ARCHITECTURE", architecture, f"is not built. Choices: {', '.join(ARCHITECTURES)}")
    settings = ARCHITECTURES[architecture](given)
    given.ignore("DATASETS.PRECOMPUTED_PROPOSAL_TOPK_")  # without precomputed proposals there is nothing to limit
    given.ignore(*(section for section, readers in SECTIONS.items() if architecture not in readers))
    given.require_all_read()
    try:
        return pydantic.TypeAdapter[ModelConfig](ModelConfig).validate_python(settings)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"][1:]))  # after the kind of detector
        rule = f"is wrong, as translated from {architecture}'s options: {first['msg']}"
        raise ConfigError(field, first["input"], rule) from error


SECTIONS = {
    "MODEL.RETINANET.": ("RetinaNet",),
    "MODEL.TENSOR_MASK.": ("TensorMask",),
    "MODEL.SEM_SEG_HEAD.": ("SemanticSegmentor", "PanopticFPN"),
    "MODEL.PANOPTIC_FPN.": ("PanopticFPN",),
    "MODEL.RPN.": ("GeneralizedRCNN", "ProposalNetwork", "PanopticFPN"),
    "MODEL.ROI_": ("GeneralizedRCNN", "PanopticFPN"),
    "MODEL.POINT_HEAD.": ("GeneralizedRCNN", "PanopticFPN"),
}
"""Sections of options and the architectures that read them: a config that the reference wrote out has them all."""


def _faster_rcnn(given: Options) -> dict[str, Any]:
    heads, proposals = given.take("MODEL.ROI_HEADS.NAME"), given.take("MODEL.PROPOSAL_GENERATOR.NAME")
    if proposals == "RRPN":
        return rotated_faster_rcnn_settings(given)
    if heads != "DensePoseROIHeads":  # other heads know no dense pose, whatever the switch says
        given.need("MODEL.DENSEPOSE_ON", False)
    if heads not in ROI_HEADS:
        raise ConfigError("MODEL.ROI_HEADS.NAME", heads, f"is not built. Choices: {', '.join(ROI_HEADS)}")
    if proposals not in PROPOSERS:
        raise ConfigError("MODEL.PROPOSAL_GENERATOR.NAME", proposals, f"is not built. Choices: {', '.join(PROPOSERS)}")
    kind, first = PROPOSERS[proposals]
    return {"kind": kind, **shared_settings(given), **first(given), "roi": ROI_HEADS[heads](given)}


def _rpn(given: Options) -> dict[str, Any]:
    return {"anchors": anchor_settings(given), "rpn": rpn_settings(given)}


PROPOSERS = {"RPN": ("faster_rcnn", _rpn), "PrecomputedProposals": ("fast_rcnn", proposal_settings)}
"""Proposal generator -> kind of detector, and the settings of its first stage."""


def _proposal_network(given: Options) -> dict[str, Any]:
    given.need("MODEL.PROPOSAL_GENERATOR.NAME", "RPN", "RRPN")
    given.need("MODEL.MASK_ON", False)
    if given.take("MODEL.PROPOSAL_GENERATOR.NAME") == "RRPN":
        settings = rotated_rpn_settings(given)
    else:
        settings = {"kind": "rpn", **shared_settings(given), **_rpn(given)}
    given.ignore("MODEL.ROI_", "MODEL.KEYPOINT_ON", "TEST.DETECTIONS_PER_IMAGE")
    return settings


def _retinanet(given: Options) -> dict[str, Any]:
    settings = {
        "kind": "retinanet",
        **shared_settings(given),
        "anchors": anchor_settings(given),
        "levels": given.take("MODEL.RETINANET.IN_FEATURES"),
        "head": {
            "convs": given.take("MODEL.RETINANET.NUM_CONVS"),
            "prior": given.take("MODEL.RETINANET.PRIOR_PROB"),
            "norm": given.choose("MODEL.RETINANET.NORM", TOWER_NORMS, ""),
        },
        "match": match_settings(given, "MODEL.RETINANET", low_quality=True),
        "focal_alpha": given.take("MODEL.RETINANET.FOCAL_LOSS_ALPHA"),
        "focal_gamma": given.take("MODEL.RETINANET.FOCAL_LOSS_GAMMA"),
        "box_weights": given.take("MODEL.RETINANET.BBOX_REG_WEIGHTS"),
        "box_loss": {
            "kind": given.choose("MODEL.RETINANET.BBOX_REG_LOSS_TYPE", BOX_LOSSES),
            "beta": given.take("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA"),
            "weight": 1.0,
        },
        "candidates": given.take("MODEL.RETINANET.TOPK_CANDIDATES_TEST"),
        "clip": False,
        "select": {
            "score": given.take("MODEL.RETINANET.SCORE_THRESH_TEST"),
            "nms": given.take("MODEL.RETINANET.NMS_THRESH_TEST"),
            "limit": given.take("TEST.DETECTIONS_PER_IMAGE"),
            "min_size": 0.0,
        },
    }
    given.need("MODEL.MASK_ON", False)
    given.ignore("MODEL.RETINANET.NUM_CLASSES", "MODEL.PROPOSAL_GENERATOR.", "MODEL.KEYPOINT_ON")
    return settings


ARCHITECTURES = {
    "GeneralizedRCNN": _faster_rcnn,
    "ProposalNetwork": _proposal_network,
    "RetinaNet": _retinanet,
    "SemanticSegmentor": semantic_fpn,
    "PanopticFPN": panoptic_fpn,
    "TensorMask": tensormask_settings,
}
