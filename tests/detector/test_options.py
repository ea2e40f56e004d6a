"""Options together: what other kits may hold is built, trains and finds, by the translation of the reference's names."""

from typing import Any

import pytest
import torch

from pipeline.detector.build import build_detector
from pipeline.detector.pretrained.detectron2.translate import translate
from tests.detector.models import batch
from tests.detector.pretrained.test_heads_options import BASE, FPN

SMALL = {
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 60,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 20,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 60,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 10,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 32,
}
CASCADE = {"MODEL.ROI_HEADS.NAME": "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True}
LVIS = {"MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": True, "MODEL.ROI_BOX_HEAD.USE_FED_LOSS": True}
GN = dict.fromkeys(("MODEL.RESNETS.NORM", "MODEL.FPN.NORM", "MODEL.ROI_BOX_HEAD.NORM", "MODEL.ROI_MASK_HEAD.NORM"), "GN") | {
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.ROI_BOX_HEAD.NUM_CONV": 2,
    "MODEL.ROI_BOX_HEAD.CONV_DIM": 32,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "c4 resnet-18": {},
    "c4 group norm": GN,
    "c4 batch norm": {"MODEL.RESNETS.NORM": "BN", "MODEL.BACKBONE.FREEZE_AT": 0},
    "c4 pool, predicted boxes": {"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIPool", "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True},
    "c4 lvis": LVIS,
    "c4 precomputed": {"MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals"},
    "fpn group norm": FPN | GN,
    "fpn pool, predicted boxes": FPN
    | {"MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIPool", "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": True},
    "fpn boundary, two convolutions": FPN | {"MODEL.RPN.BOUNDARY_THRESH": 0, "MODEL.RPN.CONV_DIMS": [-1, 32]},
    "fpn average, legacy align": FPN | {"MODEL.FPN.FUSE_TYPE": "avg", "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign"},
    "cascade lvis": FPN | CASCADE | LVIS,
    "cascade group norm, ciou": FPN | CASCADE | GN | {"MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "ciou"},
    "cascade precomputed": FPN | CASCADE | {"MODEL.PROPOSAL_GENERATOR.NAME": "PrecomputedProposals"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_it_trains_and_finds(name: str) -> None:
    torch.manual_seed(0)
    model: Any = build_detector(translate(BASE | SMALL | OPTIONS[name]), 5)
    images, targets = batch(model, [(64, 64), (61, 40)], classes=5)
    losses = model.train().losses(images, targets, torch.Generator().manual_seed(0))
    losses.total().backward()
    assert losses.finite_N.all()
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
    with torch.no_grad():
        found = model.eval().detect(images)
    assert found.finite_N.all() and (found.count_N > 0).all() and found.masks_NDMM is not None
