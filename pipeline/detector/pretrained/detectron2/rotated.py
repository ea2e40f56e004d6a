"""Rotated RPN and Faster R-CNN: the options that differ from the upright ones."""

from typing import Any

from pipeline.detector.pretrained.detectron2.heads import rpn_settings, standard_heads
from pipeline.detector.pretrained.detectron2.options import Options
from pipeline.detector.pretrained.detectron2.shared import anchor_settings, shared_settings
from pipeline.errors import ConfigError

GENERATOR = "MODEL.ANCHOR_GENERATOR.NAME"


def rotated_faster_rcnn_settings(given: Options) -> dict[str, Any]:
    """The settings of GeneralizedRCNN with RRPN and RROIHeads."""
    _require("MODEL.ROI_HEADS.NAME", given.take("MODEL.ROI_HEADS.NAME"), "RROIHeads")
    _require("MODEL.ROI_BOX_HEAD.POOLER_TYPE", given.take("MODEL.ROI_BOX_HEAD.POOLER_TYPE"), "ROIAlignRotated")
    for extra in ("MODEL.MASK_ON", "MODEL.KEYPOINT_ON", "MODEL.DENSEPOSE_ON"):
        if given.take(extra, False):
            raise ConfigError(extra, True, "is for upright boxes: rotated heads have boxes alone")
    for other in ("USE_SIGMOID_CE", "USE_FED_LOSS", "TRAIN_ON_PRED_BOXES"):
        given.need(f"MODEL.ROI_BOX_HEAD.{other}", False)  # rotated heads learn by a softmax, from the boxes that were proposed
    first = rotated_rpn_settings(given)
    upright = Options(dict(given.options) | {"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2"})
    roi = standard_heads(upright)
    given.unread &= upright.unread
    pooler = {name: value for name, value in roi["pooler"].items() if name not in ("aligned", "method")}
    own = {name: roi[name] for name in ("levels", "match", "sample", "append_truths", "head", "class_agnostic", "select")}
    loss = _only_smooth_l1(roi["box_loss"], "MODEL.ROI_BOX_HEAD")
    weights = _five(roi["box_weights"], "MODEL.ROI_BOX_HEAD")
    return first | {"kind": "rotated_faster_rcnn", "roi": own | {"pooler": pooler, "box_loss": loss, "box_weights": weights}}


def rotated_rpn_settings(given: Options) -> dict[str, Any]:
    """The settings of ProposalNetwork with RRPN."""
    _require(GENERATOR, given.take(GENERATOR), "RotatedAnchorGenerator")
    angles = given.take("MODEL.ANCHOR_GENERATOR.ANGLES")
    upright = Options(dict(given.options) | {GENERATOR: "DefaultAnchorGenerator"})
    settings, anchors, rpn = shared_settings(upright), anchor_settings(upright), rpn_settings(upright)
    if rpn.pop("boundary") is not None:
        raise ConfigError(
            "MODEL.RPN.BOUNDARY_THRESH", given.take("MODEL.RPN.BOUNDARY_THRESH"), "is for upright anchors: must be -1"
        )
    given.unread &= upright.unread
    rpn |= {
        "box_loss": _only_smooth_l1(rpn["box_loss"], "MODEL.RPN"),
        "box_weights": _five(rpn["box_weights"], "MODEL.RPN"),
    }
    own = {name: anchors[name] for name in ("sizes", "ratios", "offset")}
    return settings | {"kind": "rotated_rpn", "anchors": own | {"angles": angles}, "rpn": rpn}


def _require(name: str, value: object, wanted: str) -> None:
    if value != wanted:
        raise ConfigError(name, value, f"does not go with MODEL.PROPOSAL_GENERATOR.NAME=RRPN, which needs {wanted}")


def _only_smooth_l1(loss: dict[str, Any], prefix: str) -> dict[str, Any]:
    if loss["kind"] != "smooth_l1":
        raise ConfigError(f"{prefix}.BBOX_REG_LOSS_TYPE", loss["kind"], "is for upright boxes; rotated ones have smooth_l1")
    return loss


def _five(weights: Any, prefix: str) -> Any:
    if len(weights) != 5:
        raise ConfigError(f"{prefix}.BBOX_REG_WEIGHTS", weights, "must be five: of dx, dy, dw, dh and the angle")
    return weights
