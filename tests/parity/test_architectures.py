"""Every manifest of the kit through the builder: features, anchors, proposals, detections, losses and gradients.

Tolerances are those of the kit's README. Detections match by index.
"""

import numpy as np
import pytest
import torch

from pipeline.detector.postprocess import postprocess
from pipeline.detector.pretrained.detectron2.translate import translate
from tests.parity.case import Case, KitPart, build, close, compare_losses, in_index_order

pytestmark = pytest.mark.parity

NOISE = 1e-7
"""Gradient norms that are zero but for rounding: a bias that shifts all of a heatmap's logits changes no softmax."""


def test_features(case: Case) -> None:
    wanted = {key.split("/")[1] for key in case.kit.arrays.files if key.startswith("feat/")}
    assert wanted <= case.features.keys()
    for level in sorted(wanted):
        feature, expected = case.features[level], case.kit.arrays[f"feat/{level}/strided"]
        assert list(feature.shape) == case.kit.arrays[f"feat/{level}/shape"].tolist()
        strided = feature[:, :: max(1, feature.shape[1] // 8), ::4, ::4]
        close(strided, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max()), what=level)
        stats = [float(s) for s in (feature.mean(), feature.std(), feature.min(), feature.max())]
        close(stats, case.kit.arrays[f"feat/{level}/stats"], rtol=1e-4, atol=1e-4 * float(feature.std()), what=f"{level} stats")


def test_anchors(case: Case) -> None:
    if "anchors/0/count" not in case.kit.arrays.files:
        pytest.skip(f"{case.kit.name} has no anchors")
    proposer = getattr(case.model, "proposal_generator", case.model)
    anchors = proposer.anchors([case.features[level] for level in proposer.levels])
    for level, boxes in enumerate(anchors):
        expected = {key: case.kit.arrays[f"anchors/{level}/{key}"] for key in ("first20", "last", "count", "sum")}
        assert len(boxes) == int(expected["count"])
        close(boxes[:20], expected["first20"], atol=1e-4, what="first anchors")
        close(boxes[-1], expected["last"], atol=1e-4, what="last anchor")
        close(boxes.double().sum(0), expected["sum"], rtol=1e-6, atol=1, what="sum of anchors")


def test_proposals(case: Case) -> None:
    if "proposals/0/boxes" not in case.kit.arrays.files:
        pytest.skip(f"{case.kit.name} has no proposals")
    with torch.no_grad():
        found = case.model.proposal_generator.detect(case.features, case.images.sizes_N2)  # type: ignore[operator, union-attr]
    assert found.finite_N.all()
    for i in range(len(found.boxes_NP4)):
        count = int(found.valid_NP[i].sum())
        expected = case.kit.arrays[f"proposals/{i}/boxes"]
        assert count == len(expected)
        close(found.boxes_NP4[i, :count], expected, atol=5e-3, what=f"proposals of image {i}")
        close(found.logits_NP[i, :count], case.kit.arrays[f"proposals/{i}/logits"], atol=1e-4, what=f"logits of image {i}")


@pytest.mark.parametrize("stage", ["infer", "final"])
def test_detections(case: Case, stage: str) -> None:
    found = case.detections
    if stage == "final":
        found = postprocess(found, case.images.sizes_N2, torch.from_numpy(case.kit.arrays["inputs/out_hw"]))
    assert found.finite_N.all()
    if f"{stage}/0/boxes" not in case.kit.arrays.files:
        pytest.skip(f"{case.kit.name} has no {stage}")
    for i in range(len(found.boxes_ND4)):
        count, expected = int(found.count_N[i]), case.kit.arrays[f"{stage}/{i}/boxes"]
        assert count == len(expected)
        close(found.boxes_ND4[i, :count], expected, atol=5e-3, what=f"boxes of image {i}")
        if f"{stage}/{i}/scores" in case.kit.arrays.files:
            close(found.scores_ND[i, :count], case.kit.arrays[f"{stage}/{i}/scores"], atol=1e-4, what=f"scores of image {i}")
            assert found.labels_ND[i, :count].tolist() == case.kit.arrays[f"{stage}/{i}/classes"].tolist()
        else:  # proposals keep their logits
            logits = torch.logit(found.scores_ND[i, :count].double())
            close(logits, case.kit.arrays[f"{stage}/{i}/logits"], rtol=1e-3, atol=1e-3, what=f"logits of image {i}")


@pytest.mark.parametrize("mode", ["train_first", "train_all"])
def test_losses_and_gradients(case: Case, mode: str) -> None:
    if f"{mode}/total" not in case.kit.arrays.files:
        pytest.skip(f"{case.kit.name} has no {mode}")
    options = dict(case.options)
    if mode == "train_all":
        pairs = case.kit.manifest["train_all_overrides"]
        options |= dict(zip(pairs[::2], pairs[1::2], strict=True))
    model = build(case.kit, in_index_order(translate(options)), options).train()
    assert {n for n, p in model.named_parameters() if p.requires_grad} == set(case.kit.manifest["trainable"])
    with torch.enable_grad():
        losses = model.losses(case.images, case.targets, part=KitPart())
        losses.total().backward()
    compare_losses(case.kit, mode, losses)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            expected = float(case.kit.arrays[f"{mode}/gradnorm/{name}"])
            close(parameter.grad.double().norm(), expected, rtol=1e-3, atol=NOISE, what=f"{mode} gradient norm of {name}")
