"""Semantic FPN and Panoptic FPN."""

from typing import Any

from pipeline.detector.pretrained.detectron2.heads import roi_settings, rpn_settings
from pipeline.detector.pretrained.detectron2.options import NotBuiltError, Options
from pipeline.detector.pretrained.detectron2.shared import shared_settings

HEAD_NORMS = {"": "none", "GN": "group", "BN": "batch", "FrozenBN": "frozen"}


def semantic_fpn(given: Options) -> dict[str, Any]:
    settings = {"kind": "semantic_fpn", **shared_settings(given), "semantic": semantic_settings(given)}
    settings.pop("anchors")
    given.ignore(
        "MODEL.PANOPTIC_FPN.",
        "MODEL.PROPOSAL_GENERATOR.",
        "MODEL.RPN.",
        "MODEL.ROI_",
        "MODEL.MASK_ON",
        "MODEL.KEYPOINT_ON",
        "MODEL.DENSEPOSE_ON",
        "TEST.DETECTIONS_PER_IMAGE",
    )
    return settings


def panoptic_fpn(given: Options) -> dict[str, Any]:
    heads, proposals = given.take("MODEL.ROI_HEADS.NAME"), given.take("MODEL.PROPOSAL_GENERATOR.NAME")
    if heads != "StandardROIHeads":
        raise NotBuiltError("MODEL.ROI_HEADS.NAME", heads, "is not built. Choices: StandardROIHeads")
    if proposals != "RPN":
        raise NotBuiltError("MODEL.PROPOSAL_GENERATOR.NAME", proposals, "is not built. Choices: RPN")
    given.need("MODEL.MASK_ON", True)
    given.need("MODEL.PANOPTIC_FPN.COMBINE.ENABLED", True, False)  # the reference reads it no more: it merges always
    return {
        "kind": "panoptic_fpn",
        **shared_settings(given),
        "rpn": rpn_settings(given),
        "roi": roi_settings(given),
        "semantic": semantic_settings(given),
        "combine": {
            "overlap": given.take("MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH"),
            "stuff_area": given.take("MODEL.PANOPTIC_FPN.COMBINE.STUFF_AREA_LIMIT"),
            "score": given.take("MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH"),
        },
        "instance_weight": given.take("MODEL.PANOPTIC_FPN.INSTANCE_LOSS_WEIGHT"),
    }


def semantic_settings(given: Options) -> dict[str, Any]:
    name = given.take("MODEL.SEM_SEG_HEAD.NAME")
    if name != "SemSegFPNHead":
        raise NotBuiltError("MODEL.SEM_SEG_HEAD.NAME", name, "is not built. Choices: SemSegFPNHead")
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
