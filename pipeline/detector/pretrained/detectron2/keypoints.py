"""The keypoint branch."""

from typing import Any

from pipeline.detector.pretrained.detectron2.options import Options
from pipeline.detector.pretrained.detectron2.shared import pooler_settings
from pipeline.errors import ConfigError

PREFIX = "MODEL.ROI_KEYPOINT_HEAD"
NORMALISERS = {True: "visible", False: "sampled"}


def keypoint_settings(given: Options) -> dict[str, Any] | None:
    if not given.take("MODEL.KEYPOINT_ON", False):
        given.ignore(f"{PREFIX}.")
        return None
    name = given.take(f"{PREFIX}.NAME")
    if name != "KRCNNConvDeconvUpsampleHead":
        raise ConfigError(f"{PREFIX}.NAME", name, "is not built. Choices: KRCNNConvDeconvUpsampleHead")
    return {
        "kind": "conv",
        "pooler": pooler_settings(given, PREFIX),
        "channels": given.take(f"{PREFIX}.CONV_DIMS"),
        "keypoints": given.take(f"{PREFIX}.NUM_KEYPOINTS"),
        "normalise": given.choose(f"{PREFIX}.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS", NORMALISERS),
        "loss_weight": given.take(f"{PREFIX}.LOSS_WEIGHT"),
        "least_visible": given.take(f"{PREFIX}.MIN_KEYPOINTS_PER_IMAGE"),
    }
