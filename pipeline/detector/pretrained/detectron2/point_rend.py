"""The mask branch of the PointRend project."""

from typing import Any

from pipeline.detector.pretrained.detectron2.options import Options
from pipeline.errors import ConfigError

MASK, POINT = "MODEL.ROI_MASK_HEAD", "MODEL.POINT_HEAD"


def point_rend_settings(given: Options, targets: str, own_pooler: bool) -> dict[str, Any]:
    if not own_pooler:
        raise ConfigError(f"{MASK}.NAME", "PointRendMaskHead", "is not built on the res5 head")
    # The reference gives the head whole feature maps when there is no pooler; with one it stops.
    given.need(f"{MASK}.POOLER_TYPE", "")
    given.need(f"{MASK}.NORM", "")
    given.need(f"{MASK}.CLS_AGNOSTIC_MASK", False)
    given.ignore(f"{MASK}.POOLER_SAMPLING_RATIO", f"{MASK}.NUM_CONV")
    return {
        "kind": "point_rend",
        "levels": given.take(f"{MASK}.IN_FEATURES"),
        "side": given.take(f"{MASK}.POOLER_RESOLUTION"),
        "channels": given.take(f"{MASK}.CONV_DIM"),
        "fcs": given.take(f"{MASK}.NUM_FC"),
        "fc_channels": given.take(f"{MASK}.FC_DIM"),
        "size": given.take(f"{MASK}.OUTPUT_SIDE_RESOLUTION"),
        "targets": targets,
        "point_head": _point_head(given),
    }


def _point_head(given: Options) -> dict[str, Any] | None:
    given.ignore(f"{POINT}.COARSE_SEM_SEG_HEAD_NAME")
    if not given.take(f"{MASK}.POINT_HEAD_ON"):
        given.ignore(f"{POINT}.")
        return None
    given.need(f"{POINT}.NAME", "StandardPointHead")
    classes, head_classes = given.take("MODEL.ROI_HEADS.NUM_CLASSES"), given.take(f"{POINT}.NUM_CLASSES")
    if classes != head_classes:
        raise ConfigError(f"{POINT}.NUM_CLASSES", head_classes, f"must be MODEL.ROI_HEADS.NUM_CLASSES={classes}")
    return {
        "levels": given.take(f"{POINT}.IN_FEATURES"),
        "layers": given.take(f"{POINT}.NUM_FC"),
        "channels": given.take(f"{POINT}.FC_DIM"),
        "coarse_each_layer": given.take(f"{POINT}.COARSE_PRED_EACH_LAYER"),
        "class_agnostic": given.take(f"{POINT}.CLS_AGNOSTIC_MASK"),
        "train_points": given.take(f"{POINT}.TRAIN_NUM_POINTS"),
        "oversample": given.take(f"{POINT}.OVERSAMPLE_RATIO"),
        "important": given.take(f"{POINT}.IMPORTANCE_SAMPLE_RATIO"),
        "steps": given.take(f"{POINT}.SUBDIVISION_STEPS"),
        "points": given.take(f"{POINT}.SUBDIVISION_NUM_POINTS"),
    }
