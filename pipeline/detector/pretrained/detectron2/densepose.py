"""The dense pose head (DensePose project of Detectron2). Charts are built; continuous surface embeddings (CSE) are not."""

from typing import Any

from pipeline.detector.pretrained.detectron2.options import Options
from pipeline.detector.pretrained.detectron2.shared import pooler_settings
from pipeline.errors import ConfigError

HEAD = "MODEL.ROI_DENSEPOSE_HEAD"
NORMS = {"": "none", "GN": "group"}
CHARTS = {"DensePoseChartPredictor": False, "DensePoseChartWithConfidencePredictor": True}
"""Predictor -> whether it can learn confidences."""
LOSSES = {"DensePoseChartLoss": False, "DensePoseChartWithConfidenceLoss": True}


def densepose_settings(given: Options) -> dict[str, Any] | None:
    """`roi.densepose`, or None. ConfigError names what is not built: CSE and the training from other detectors' results."""
    if not given.take("MODEL.DENSEPOSE_ON", given.options.get("MODEL.ROI_HEADS.NAME") == "DensePoseROIHeads"):
        given.ignore(f"{HEAD}.")
        return None
    _refuse(given)
    segm = given.take(f"{HEAD}.SEGM_CONFIDENCE.ENABLED", False)
    pooler = pooler_settings(given, HEAD)
    kernel, upscale = given.take(f"{HEAD}.DECONV_KERNEL"), given.take(f"{HEAD}.UP_SCALE")
    settings = {
        "pooler": pooler,
        "decoder": _decoder(given),
        "head": _head(given),
        "parts": given.take(f"{HEAD}.NUM_PATCHES"),
        "coarse_channels": given.take(f"{HEAD}.NUM_COARSE_SEGM_CHANNELS"),
        "deconv_kernel": kernel,
        "upscale": upscale,
        "least_iou": given.take(f"{HEAD}.FG_IOU_THRESHOLD"),
        "coarse_from_masks": given.take(f"{HEAD}.COARSE_SEGM_TRAINED_BY_MASKS", False),
        "uv_confidence": _uv_confidence(given),
        "segm_confidence": given.take(f"{HEAD}.SEGM_CONFIDENCE.EPSILON", 0.01) if segm else None,
        "coarse_weight": given.take(f"{HEAD}.INDEX_WEIGHTS"),
        "part_weight": given.take(f"{HEAD}.PART_WEIGHTS"),
        "point_weight": given.take(f"{HEAD}.POINT_REGRESSION_WEIGHTS"),
    }
    given.ignore(
        f"{HEAD}.SEGM_CONFIDENCE.EPSILON", f"{HEAD}.UV_CONFIDENCE.", f"{HEAD}.DECODER_", f"{HEAD}.DEEPLAB.", f"{HEAD}.CSE."
    )
    confident = given.choose(f"{HEAD}.PREDICTOR_NAME", CHARTS, "DensePoseChartPredictor")
    learns = given.choose(f"{HEAD}.LOSS_NAME", LOSSES, "DensePoseChartLoss")
    wanted = settings["uv_confidence"] is not None or settings["segm_confidence"] is not None
    if wanted and confident != learns:
        name = given.options.get(f"{HEAD}.LOSS_NAME", "DensePoseChartLoss")
        raise ConfigError(f"{HEAD}.LOSS_NAME", name, f"does not go with {HEAD}.PREDICTOR_NAME: both know confidences, or neither")
    if not confident:  # this predictor and loss know no confidence, whatever the switches say
        settings |= {"uv_confidence": None, "segm_confidence": None}
    # The reference's targets and maps must have one size; another value could not be trained there either.
    given.need(f"{HEAD}.HEATMAP_SIZE", pooler["size"] * 2 * upscale)
    return settings


def _refuse(given: Options) -> None:
    if given.options.get(f"{HEAD}.PREDICTOR_NAME") == "DensePoseEmbeddingPredictor":
        raise ConfigError(f"{HEAD}.PREDICTOR_NAME", "DensePoseEmbeddingPredictor", "is not built: charts only, no CSE")
    for loss in ("EMBED_LOSS_NAME", "SHAPE_TO_SHAPE_CYCLE_LOSS.ENABLED", "PIX_TO_SHAPE_CYCLE_LOSS.ENABLED"):
        value = given.take(f"{HEAD}.CSE.{loss}", False)
        if loss.endswith("ENABLED") and value:
            raise ConfigError(f"{HEAD}.CSE.{loss}", value, "is not built: charts only, no CSE")
    for switch in ("MODEL.DENSEPOSE_ON_BOOTSTRAP", "BOOTSTRAP_DATASETS"):
        if given.take(switch, False):
            raise ConfigError(switch, given.options[switch], "is not built")


def _decoder(given: Options) -> dict[str, Any] | None:
    if not given.take(f"{HEAD}.DECODER_ON", True):
        return None
    return {
        "channels": given.take(f"{HEAD}.DECODER_CONV_DIMS"),
        "outputs": given.take(f"{HEAD}.DECODER_NUM_CLASSES"),
        "stride": given.take(f"{HEAD}.DECODER_COMMON_STRIDE"),
        "norm": given.choose(f"{HEAD}.DECODER_NORM", NORMS),
    }


def _head(given: Options) -> dict[str, Any]:
    name = given.take(f"{HEAD}.NAME")
    shared = {
        "convs": given.take(f"{HEAD}.NUM_STACKED_CONVS"),
        "channels": given.take(f"{HEAD}.CONV_HEAD_DIM"),
        "kernel": given.take(f"{HEAD}.CONV_HEAD_KERNEL"),
    }
    if name == "DensePoseV1ConvXHead":
        return {"kind": "conv", **shared}
    if name != "DensePoseDeepLabHead":
        raise ConfigError(f"{HEAD}.NAME", name, "is not built. Choices: DensePoseV1ConvXHead, DensePoseDeepLabHead")
    # Any other norm leaves the convolutions with neither norm nor bias in the reference: no known model has that.
    norm = given.choose(f"{HEAD}.DEEPLAB.NORM", NORMS)
    return {"kind": "deeplab", **shared, "norm": norm, "nonlocal_block": bool(given.take(f"{HEAD}.DEEPLAB.NONLOCAL_ON", 0))}


def _uv_confidence(given: Options) -> dict[str, Any] | None:
    if not given.take(f"{HEAD}.UV_CONFIDENCE.ENABLED", False):
        return None
    kinds = {"iid_iso": "iid_iso", "indep_aniso": "indep_aniso"}
    return {
        "kind": given.choose(f"{HEAD}.UV_CONFIDENCE.TYPE", kinds),
        "epsilon": given.take(f"{HEAD}.UV_CONFIDENCE.EPSILON"),
    }
