"""Detectron2's settings as ours: dotted option names and values in, a model config out.

Every option must be understood: one that is unknown, or set to something not built, stops by name.
"""

from collections.abc import Mapping
from typing import Any

import pydantic

from pipeline.detector.config import ModelConfig
from pipeline.errors import ConfigError

NORMS = {"FrozenBN": "frozen", "BN": "batch"}
BACKBONES = {"build_resnet_fpn_backbone": "maxpool", "build_retinanet_resnet_fpn_backbone": "p6p7"}
"""Backbone builder -> what tops its pyramid."""
POOLERS = {"ROIAlignV2": True, "ROIAlign": False}
"""Pooler -> aligned."""


class NotBuiltError(ConfigError):
    """The options describe an architecture that this project does not have."""


def translate(options: Mapping[str, Any]) -> ModelConfig:
    """The model config of a Detectron2 config given as {"MODEL.BACKBONE.FREEZE_AT": 2, ...}.

    NotBuiltError for another architecture, ConfigError naming the option for a value or a name that is not understood.
    """
    given = _Options(options)
    architecture = given.take("MODEL.META_ARCHITECTURE")
    if architecture not in ARCHITECTURES:
        raise NotBuiltError("MODEL.META_ARCHITECTURE", architecture, f"is not built. Choices: {', '.join(ARCHITECTURES)}")
    for extra in ("MODEL.KEYPOINT_ON", "MODEL.DENSEPOSE_ON"):
        if given.take(extra, False):
            raise NotBuiltError(extra, True, "is not built")
    settings = ARCHITECTURES[architecture](given)
    given.require_all_read()
    return pydantic.TypeAdapter[ModelConfig](ModelConfig).validate_python(settings)


class _Options:
    """The given options; remembers which were read."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options, self.unread = options, set(options)

    def take(self, name: str, default: Any = None) -> Any:
        """The value of an option; ConfigError when it is absent and has no default."""
        self.unread.discard(name)
        if name not in self.options and default is None:
            raise ConfigError(name, None, "is missing")
        return self.options.get(name, default)

    def choose(self, name: str, choices: Mapping[Any, Any], default: Any = None) -> Any:
        """What the option's value stands for among `choices`."""
        value = self.take(name, default)
        if value not in choices:
            raise ConfigError(name, value, f"is not supported. Choices: {', '.join(map(str, choices))}")
        return choices[value]

    def need(self, name: str, *allowed: Any) -> None:
        """ConfigError when the option is given with another value than the ones that are built."""
        value = self.take(name, allowed[0])
        if value not in allowed:
            raise ConfigError(name, value, f"is not supported. Choices: {', '.join(map(str, allowed))}")

    def ignore(self, *prefixes: str) -> None:
        """Options that mean nothing to this architecture."""
        self.unread = {name for name in self.unread if not name.startswith(prefixes)}

    def require_all_read(self) -> None:
        """ConfigError naming the options that nothing asked for."""
        if self.unread:
            names = ", ".join(sorted(self.unread))
            raise ConfigError(names, None, "is not known: this translation would change the model silently")


def _faster_rcnn(given: _Options) -> dict[str, Any]:
    heads, proposals = given.take("MODEL.ROI_HEADS.NAME"), given.take("MODEL.PROPOSAL_GENERATOR.NAME")
    if heads != "StandardROIHeads":
        raise NotBuiltError("MODEL.ROI_HEADS.NAME", heads, "is not built. Choices: StandardROIHeads")
    if proposals != "RPN":
        raise NotBuiltError("MODEL.PROPOSAL_GENERATOR.NAME", proposals, "is not built. Choices: RPN")
    return {"kind": "faster_rcnn", **_shared(given), "rpn": _rpn(given), "roi": _roi(given)}


def _proposal_network(given: _Options) -> dict[str, Any]:
    given.need("MODEL.PROPOSAL_GENERATOR.NAME", "RPN")
    given.need("MODEL.MASK_ON", False)
    settings = {"kind": "rpn", **_shared(given), "rpn": _rpn(given)}
    given.ignore("MODEL.ROI_", "TEST.DETECTIONS_PER_IMAGE")
    return settings


def _retinanet(given: _Options) -> dict[str, Any]:
    settings = {
        "kind": "retinanet",
        **_shared(given),
        "levels": given.take("MODEL.RETINANET.IN_FEATURES"),
        "head": {"convs": given.take("MODEL.RETINANET.NUM_CONVS"), "prior": given.take("MODEL.RETINANET.PRIOR_PROB")},
        "match": _match(given, "MODEL.RETINANET", low_quality=True),
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
    given.ignore("MODEL.RETINANET.NUM_CLASSES", "MODEL.PROPOSAL_GENERATOR.")
    return settings


ARCHITECTURES = {"GeneralizedRCNN": _faster_rcnn, "ProposalNetwork": _proposal_network, "RetinaNet": _retinanet}


def _shared(given: _Options) -> dict[str, Any]:
    """Input, backbone, pyramid and anchors."""
    top = given.choose("MODEL.BACKBONE.NAME", BACKBONES)
    given.need("MODEL.FPN.NORM", "")
    given.need("MODEL.RESNETS.RES5_DILATION", 1)
    if any(given.take("MODEL.RESNETS.DEFORM_ON_PER_STAGE", [False] * 4)):
        raise NotBuiltError("MODEL.RESNETS.DEFORM_ON_PER_STAGE", True, "is not built")
    given.ignore("MODEL.RESNETS.DEFORM_", "MODEL.RESNETS.OUT_FEATURES", "INPUT.MASK_FORMAT", "MODEL.ANCHOR_GENERATOR.ANGLES")
    given.need("MODEL.ANCHOR_GENERATOR.NAME", "DefaultAnchorGenerator")
    return {
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
            "freeze_at": given.take("MODEL.BACKBONE.FREEZE_AT"),
            "weights": None,
        },
        "fpn": {
            "stages": given.take("MODEL.FPN.IN_FEATURES"),
            "channels": given.take("MODEL.FPN.OUT_CHANNELS"),
            "fuse": given.take("MODEL.FPN.FUSE_TYPE"),
            "top": top,
            "top_input": "backbone" if top == "p6p7" else "fpn",
        },
        "anchors": {
            "sizes": given.take("MODEL.ANCHOR_GENERATOR.SIZES"),
            "ratios": given.take("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"),
            "offset": given.take("MODEL.ANCHOR_GENERATOR.OFFSET"),
        },
    }


def _rpn(given: _Options) -> dict[str, Any]:
    given.need("MODEL.RPN.HEAD_NAME", "StandardRPNHead")
    given.need("MODEL.RPN.BOUNDARY_THRESH", -1)
    weight = given.take("MODEL.RPN.LOSS_WEIGHT")
    return {
        "levels": given.take("MODEL.RPN.IN_FEATURES"),
        "convs": given.take("MODEL.RPN.CONV_DIMS"),
        "match": _match(given, "MODEL.RPN", low_quality=True),
        "sample": _sample(given, "MODEL.RPN"),
        "box_weights": given.take("MODEL.RPN.BBOX_REG_WEIGHTS"),
        # The reference weighs both losses by LOSS_WEIGHT, and the box loss by its own factor as well.
        "box_loss": _box_loss(given, "MODEL.RPN", factor=weight),
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


def _roi(given: _Options) -> dict[str, Any]:
    mask = _mask(given)  # first: a head that is not built changes options of the others
    given.need("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead")
    given.need("MODEL.ROI_BOX_HEAD.NORM", "")
    given.need("MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES", False)
    given.need("MODEL.ROI_BOX_HEAD.USE_FED_LOSS", False)
    given.need("MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE", False)
    given.ignore("MODEL.ROI_BOX_HEAD.FED_LOSS_", "MODEL.ROI_HEADS.NUM_CLASSES")
    return {
        "levels": given.take("MODEL.ROI_HEADS.IN_FEATURES"),
        "match": _match(given, "MODEL.ROI_HEADS", low_quality=False),
        "sample": _sample(given, "MODEL.ROI_HEADS"),
        "append_truths": given.take("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT"),
        "pooler": _pooler(given, "MODEL.ROI_BOX_HEAD"),
        "head": {
            "convs": given.take("MODEL.ROI_BOX_HEAD.NUM_CONV"),
            "conv_channels": given.take("MODEL.ROI_BOX_HEAD.CONV_DIM"),
            "fcs": given.take("MODEL.ROI_BOX_HEAD.NUM_FC"),
            "fc_channels": given.take("MODEL.ROI_BOX_HEAD.FC_DIM"),
        },
        "class_agnostic": given.take("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"),
        "box_weights": given.take("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"),
        "box_loss": _box_loss(given, "MODEL.ROI_BOX_HEAD"),
        "select": {
            "score": given.take("MODEL.ROI_HEADS.SCORE_THRESH_TEST"),
            "nms": given.take("MODEL.ROI_HEADS.NMS_THRESH_TEST"),
            "limit": given.take("TEST.DETECTIONS_PER_IMAGE"),
        },
        "mask": mask,
    }


def _mask(given: _Options) -> dict[str, Any] | None:
    if not given.take("MODEL.MASK_ON", False):
        given.ignore("MODEL.ROI_MASK_HEAD.")
        return None
    name = given.take("MODEL.ROI_MASK_HEAD.NAME")
    if name != "MaskRCNNConvUpsampleHead":
        raise NotBuiltError("MODEL.ROI_MASK_HEAD.NAME", name, "is not built. Choices: MaskRCNNConvUpsampleHead")
    given.need("MODEL.ROI_MASK_HEAD.NORM", "")
    return {
        "kind": "conv",
        "pooler": _pooler(given, "MODEL.ROI_MASK_HEAD"),
        "convs": given.take("MODEL.ROI_MASK_HEAD.NUM_CONV"),
        "channels": given.take("MODEL.ROI_MASK_HEAD.CONV_DIM"),
        "class_agnostic": given.take("MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK"),
    }


def _pooler(given: _Options, prefix: str) -> dict[str, Any]:
    return {
        "size": given.take(f"{prefix}.POOLER_RESOLUTION"),
        "sampling_ratio": given.take(f"{prefix}.POOLER_SAMPLING_RATIO"),
        "aligned": given.choose(f"{prefix}.POOLER_TYPE", POOLERS),
        "canonical_size": 224,
        "canonical_level": 4,
    }


def _match(given: _Options, prefix: str, low_quality: bool) -> dict[str, Any]:
    thresholds, labels = given.take(f"{prefix}.IOU_THRESHOLDS"), given.take(f"{prefix}.IOU_LABELS")
    return {"thresholds": thresholds, "labels": labels, "low_quality": low_quality}


def _sample(given: _Options, prefix: str) -> dict[str, Any]:
    count, share = given.take(f"{prefix}.BATCH_SIZE_PER_IMAGE"), given.take(f"{prefix}.POSITIVE_FRACTION")
    return {"count": count, "positive_fraction": share, "order": "random"}


def _box_loss(given: _Options, prefix: str, factor: float = 1.0) -> dict[str, Any]:
    return {
        "kind": given.take(f"{prefix}.BBOX_REG_LOSS_TYPE"),
        "beta": given.take(f"{prefix}.SMOOTH_L1_BETA"),
        "weight": given.take(f"{prefix}.BBOX_REG_LOSS_WEIGHT") * factor,
    }
