"""Semantic FPN and Panoptic FPN."""

from typing import Any

from pipeline.detector.pretrained.detectron2.heads import ROI_HEADS, rpn_settings
from pipeline.detector.pretrained.detectron2.options import Options
from pipeline.detector.pretrained.detectron2.shared import HEAD_NORMS, anchor_settings, shared_settings
from pipeline.errors import ConfigError

HEADS = ("StandardROIHeads", "CascadeROIHeads")


def semantic_fpn(given: Options) -> dict[str, Any]:
    """The settings of a SemanticSegmentor; what it has no use for is ignored, as the reference does."""
    settings = {"kind": "semantic_fpn", **_pyramid(given), "semantic": semantic_settings(given)}
    given.ignore(
        "MODEL.PANOPTIC_FPN.",
        "MODEL.PROPOSAL_GENERATOR.",
        "MODEL.ANCHOR_GENERATOR.",
        "MODEL.RPN.",
        "MODEL.ROI_",
        "MODEL.MASK_ON",
        "MODEL.KEYPOINT_ON",
        "MODEL.DENSEPOSE_ON",
        "TEST.DETECTIONS_PER_IMAGE",
    )
    return settings


def panoptic_fpn(given: Options) -> dict[str, Any]:
    """The settings of a PanopticFPN."""
    heads, proposals = given.take("MODEL.ROI_HEADS.NAME"), given.take("MODEL.PROPOSAL_GENERATOR.NAME")
    if heads not in HEADS:
        raise ConfigError("MODEL.ROI_HEADS.NAME", heads, f"is not built here. Choices: {', '.join(HEADS)}")
    if proposals != "RPN":
        raise ConfigError("MODEL.PROPOSAL_GENERATOR.NAME", proposals, "is not built. Choices: RPN")
    given.need("MODEL.MASK_ON", True)
    for other in ("MODEL.KEYPOINT_ON", "MODEL.DENSEPOSE_ON"):
        given.need(other, False)
    given.need("MODEL.PANOPTIC_FPN.COMBINE.ENABLED", True, False)  # the reference reads it no more: it merges always
    weight = given.take("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", 1.0)
    if weight != 1 and heads == "CascadeROIHeads":
        wrong = "is not supported with CascadeROIHeads, for which the reference cannot apply it either"
        raise ConfigError("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT", weight, wrong)
    return {
        "kind": "panoptic_fpn",
        **_pyramid(given),
        "anchors": anchor_settings(given),
        "rpn": rpn_settings(given),
        "roi": ROI_HEADS[heads](given),
        "semantic": semantic_settings(given),
        "combine": {
            "overlap": given.take("MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH"),
            "stuff_area": given.take("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT"),
            "score": given.take("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH"),
        },
        "instance_weight": weight,
    }


def _pyramid(given: Options) -> dict[str, Any]:
    settings = shared_settings(given)
    if settings["fpn"] is None:
        name = given.take("MODEL.BACKBONE.NAME")
        raise ConfigError("MODEL.BACKBONE.NAME", name, "is not built with a semantic head, which adds up levels of a pyramid")
    return settings


def semantic_settings(given: Options) -> dict[str, Any]:
    """The semantic branch's settings."""
    name = given.take("MODEL.SEM_SEG_HEAD.NAME")
    if name != "SemSegFPNHead":
        raise ConfigError("MODEL.SEM_SEG_HEAD.NAME", name, "is not built. Choices: SemSegFPNHead")
    given.ignore("MODEL.SEM_SEG_HEAD.NUM_CLASSES")
    return {
        # The reference adds the levels by rising stride, whatever order they are named in.
        "levels": sorted(given.take("MODEL.SEM_SEG_HEAD.IN_FEATURES"), key=lambda level: int(level[1:])),
        "channels": given.take("MODEL.SEM_SEG_HEAD.CONVS_DIM"),
        "common_stride": given.take("MODEL.SEM_SEG_HEAD.COMMON_STRIDE"),
        "norm": given.choose("MODEL.SEM_SEG_HEAD.NORM", HEAD_NORMS),
        "ignore_value": given.take("MODEL.SEM_SEG_HEAD.IGNORE_VALUE"),
        "loss_weight": given.take("MODEL.SEM_SEG_HEAD.LOSS_WEIGHT"),
    }
