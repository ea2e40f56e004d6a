"""TensorMask's options."""

from typing import Any

from pipeline.detector.pretrained.detectron2.options import Options
from pipeline.detector.pretrained.detectron2.shared import anchor_settings, shared_settings
from pipeline.errors import ConfigError

MASK_CELLS, PRIOR = 56, 0.01
"""Cells of the masks given out over a box (ours: the reference pastes whole windows), and the first probability of a class (its
head's constant)."""


def tensormask_settings(given: Options) -> dict[str, Any]:
    """The settings of META_ARCHITECTURE TensorMask: the aligned representation with the bipyramid."""
    own = "MODEL.TENSOR_MASK"
    for name in ("MODEL.MASK_ON", f"{own}.ALIGNED_ON", f"{own}.BIPYRAMID_ON"):
        given.need(name, True)
        if name not in given.options:
            raise ConfigError(name, None, "is missing: only the model with masks, aligned and with bipyramid is built")
    shared = shared_settings(given)
    anchors = anchor_settings(given)
    levels = given.take(f"{own}.IN_FEATURES")
    if [list(ratios) for ratios in anchors["ratios"]] != [[1.0]] or anchors["offset"] != 0:
        raise ConfigError("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS", anchors["ratios"], "must be [[1.0]], with OFFSET 0: squares")
    cells = {tuple(s / 2 ** int(level[1:]) for s in sizes) for level, sizes in zip(levels, anchors["sizes"], strict=True)}
    if len(cells) != 1 or any(side != int(side) for side in next(iter(cells))):
        raise ConfigError(
            "MODEL.ANCHOR_GENERATOR.SIZES", anchors["sizes"], "must be the same whole numbers of strides on all levels"
        )
    settings = {
        "kind": "tensormask",
        **shared,
        "levels": levels,
        "window_cells": tuple(int(side) for side in next(iter(cells))),
        "head": {
            "convs": given.take(f"{own}.NUM_CONVS"),
            "class_channels": given.take(f"{own}.CLS_CHANNELS"),
            "box_channels": given.take(f"{own}.BBOX_CHANNELS"),
            "mask_channels": given.take(f"{own}.MASK_CHANNELS"),
            "prior": PRIOR,
        },
        "loss": {
            "focal_alpha": given.take(f"{own}.FOCAL_LOSS_ALPHA"),
            "focal_gamma": given.take(f"{own}.FOCAL_LOSS_GAMMA"),
            "mask": given.take(f"{own}.MASK_LOSS_WEIGHT"),
            "mask_inside": given.take(f"{own}.POSITIVE_WEIGHT"),
        },
        "box_weights": given.take(f"{own}.BBOX_REG_WEIGHTS"),
        "box_loss": {"kind": "smooth_l1", "beta": 0.0, "weight": 1.0},
        "candidates": given.take(f"{own}.TOPK_CANDIDATES_TEST"),
        "select": {
            "score": given.take(f"{own}.SCORE_THRESH_TEST"),
            "nms": given.take(f"{own}.NMS_THRESH_TEST"),
            "limit": given.take("TEST.DETECTIONS_PER_IMAGE"),
            "min_size": 0.0,
        },
        "mask_cells": MASK_CELLS,
    }
    given.ignore(f"{own}.NUM_CLASSES", "MODEL.PROPOSAL_GENERATOR.", "MODEL.KEYPOINT_ON", "MODEL.RPN.", "MODEL.ROI_")
    return settings
