"""Input, backbone, pyramid and anchors, and the settings that several heads share."""

from typing import Any

from pipeline.detector.pretrained.detectron2.options import Options

NORMS = {
    "FrozenBN": "frozen",
    "BN": "batch",
    "SyncBN": "sync",
    "nnSyncBN": "sync",
    "naiveSyncBN": "sync",
    "naiveSyncBN_N": "sync",
    "GN": "group",
    "LN": "layer",
}
"""The naive synchronised norms differ in how ranks with different numbers of rows are weighed; ours has ranks alike."""
HEAD_NORMS = NORMS | {"": "none"}
TOWER_NORMS = {name: norm for name, norm in HEAD_NORMS.items() if norm != "sync" or name == "SyncBN"}
"""Of RetinaNet's towers: only by these two names do the reference's batch norms have statistics per level."""
BACKBONES = {
    "build_resnet_fpn_backbone": "maxpool",
    "build_retinanet_resnet_fpn_backbone": "p6p7",
    "build_resnet_backbone": None,
}
"""Backbone builder -> what tops its pyramid; None for no pyramid."""
POOLERS = {"ROIAlignV2": ("align", True), "ROIAlign": ("align", False), "ROIPool": ("pool", False)}
"""Pooler -> method and aligned."""
BOX_LOSSES = {name: name for name in ("smooth_l1", "giou", "diou", "ciou")}
STAGES = ("res2", "res3", "res4", "res5")


def shared_settings(given: Options) -> dict[str, Any]:
    """Input, backbone and pyramid."""
    top = given.choose("MODEL.BACKBONE.NAME", BACKBONES)
    if given.take("MODEL.RESNETS.DEPTH") in (18, 34):  # as the reference asserts of its small ResNets
        for name, only in (("RES2_OUT_CHANNELS", 64), ("NUM_GROUPS", 1), ("RES5_DILATION", 1)):
            given.need(f"MODEL.RESNETS.{name}", only)
        given.need("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False] * 4)
    given.ignore("MODEL.RESNETS.OUT_FEATURES", "INPUT.MASK_FORMAT", "MODEL.ANCHOR_GENERATOR.ANGLES")
    return {
        "weights": None,
        "input": {
            "short_side": given.take("INPUT.MIN_SIZE_TEST", 800),
            "long_side": given.take("INPUT.MAX_SIZE_TEST", 1333),
            "channels": given.choose("INPUT.FORMAT", {"BGR": "bgr", "RGB": "rgb"}),
            "mean": given.take("MODEL.PIXEL_MEAN"),
            "std": given.take("MODEL.PIXEL_STD"),
        },
        "backbone": {
            "kind": "resnet",
            "depth": given.take("MODEL.RESNETS.DEPTH"),
            "stride_in_1x1": given.take("MODEL.RESNETS.STRIDE_IN_1X1"),
            "groups": given.take("MODEL.RESNETS.NUM_GROUPS"),
            "width_per_group": given.take("MODEL.RESNETS.WIDTH_PER_GROUP"),
            "stem_channels": given.take("MODEL.RESNETS.STEM_OUT_CHANNELS"),
            "res2_channels": given.take("MODEL.RESNETS.RES2_OUT_CHANNELS"),
            "norm": given.choose("MODEL.RESNETS.NORM", NORMS),
            "norm_eps": 1e-5,
            "res5_dilation": given.take("MODEL.RESNETS.RES5_DILATION", 1),
            "deform": _deform(given),
            "freeze_at": given.take("MODEL.BACKBONE.FREEZE_AT"),
            "weights": None,
        },
        "fpn": _fpn(given, top),
    }


def anchor_settings(given: Options) -> dict[str, Any]:
    given.need("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator")
    return {
        "sizes": _per_level(given.take("MODEL.ANCHOR_GENERATOR.SIZES")),
        "ratios": _per_level(given.take("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS")),
        "offset": given.take("MODEL.ANCHOR_GENERATOR.OFFSET"),
        "rounding": False,
        "spacing": "stride",
    }


def _per_level(values: Any) -> Any:
    """A list per level; a flat one is that of all levels."""
    return values if all(isinstance(own, list | tuple) for own in values) else [values]


def _fpn(given: Options, top: str | None) -> dict[str, Any] | None:
    if top is None:
        given.ignore("MODEL.FPN.")
        return None
    return {
        "stages": given.take("MODEL.FPN.IN_FEATURES"),
        "channels": given.take("MODEL.FPN.OUT_CHANNELS"),
        "fuse": given.choose("MODEL.FPN.FUSE_TYPE", {"sum": "sum", "avg": "avg"}, "sum"),
        "top": top,
        "top_input": "backbone" if top == "p6p7" else "fpn",
        "norm": given.choose("MODEL.FPN.NORM", HEAD_NORMS, ""),
    }


def _deform(given: Options) -> dict[str, Any] | None:
    wanted = given.take("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False] * 4)
    stages = [stage for stage, on in zip(STAGES, wanted, strict=True) if on]
    modulated, groups = given.take("MODEL.RESNETS.DEFORM_MODULATED", False), given.take("MODEL.RESNETS.DEFORM_NUM_GROUPS", 1)
    return {"stages": stages, "modulated": modulated, "groups": groups} if stages else None


def pooler_settings(given: Options, prefix: str) -> dict[str, Any]:
    method, aligned = given.choose(f"{prefix}.POOLER_TYPE", POOLERS)
    return {
        "method": method,
        "size": given.take(f"{prefix}.POOLER_RESOLUTION"),
        "sampling_ratio": given.take(f"{prefix}.POOLER_SAMPLING_RATIO"),
        "aligned": aligned,
        "canonical_size": 224,
        "canonical_level": 4,
    }


def match_settings(given: Options, prefix: str, low_quality: bool) -> dict[str, Any]:
    thresholds, labels = given.take(f"{prefix}.IOU_THRESHOLDS"), given.take(f"{prefix}.IOU_LABELS")
    return {"thresholds": thresholds, "labels": labels, "low_quality": low_quality}


def sample_settings(given: Options, prefix: str) -> dict[str, Any]:
    count, share = given.take(f"{prefix}.BATCH_SIZE_PER_IMAGE"), given.take(f"{prefix}.POSITIVE_FRACTION")
    return {"count": count, "positive_fraction": share, "order": "random"}


def box_loss_settings(given: Options, prefix: str, factor: float = 1.0) -> dict[str, Any]:
    return {
        "kind": given.choose(f"{prefix}.BBOX_REG_LOSS_TYPE", BOX_LOSSES),
        "beta": given.take(f"{prefix}.SMOOTH_L1_BETA"),
        "weight": given.take(f"{prefix}.BBOX_REG_LOSS_WEIGHT") * factor,
    }
