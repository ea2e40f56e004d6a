"""Both detectors as wholes: nothing waits for the host, empty truths train, padding and compaction change nothing."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.detector.build import build_detector
from pipeline.detector.compact import compact
from pipeline.detector.config import ModelConfig
from pipeline.detector.losses import Losses
from pipeline.structures import Images, Polygons, Targets
from tests.detector.models import (
    batch,
    lively,
    read_config,
    taught,
    tiny_federated,
    tiny_masks,
    tiny_one_stage,
    tiny_two_stage,
)

CONFIGS: dict[str, tuple[Callable[[], ModelConfig], int]] = {
    "faster_rcnn": (tiny_two_stage, 3),
    "mask_rcnn": (tiny_masks, 3),
    "fast_rcnn": (lambda: read_config("fast_rcnn_tiny"), 3),
    "cascade": (lambda: read_config("cascade_mask_rcnn_tiny"), 3),
    "c4": (lambda: read_config("mask_rcnn_c4_tiny"), 3),
    "lvis": (tiny_federated, 40),
    "keypoint_rcnn": (partial(read_config, "keypoint_rcnn_tiny"), 3),
    "point_rend": (partial(read_config, "point_rend_tiny"), 3),
    "retinanet": (tiny_one_stage, 3),
    "rpn": (partial(read_config, "rpn_tiny"), 3),
}
every = pytest.mark.parametrize("name", CONFIGS)


def make(name: str) -> Any:
    cfg, classes = CONFIGS[name]
    return lively(cfg(), classes), classes


def train_step(model: Any, images: Images, targets: Targets, seed: int = 0) -> Losses:
    model.train().zero_grad()
    losses: Losses = model.losses(images, targets, torch.Generator().manual_seed(seed))
    losses.total().backward()
    return losses


@every
def test_no_host_synchronisation(name: str) -> None:
    """FakeTensorMode refuses .item() and nonzero, which a GPU would have to wait for."""
    cfg, classes = CONFIGS[name]
    with FakeTensorMode():
        model = build_detector(cfg(), classes)
        pixels, sizes = torch.empty(2, 3, 64, 96, dtype=torch.uint8), torch.empty(2, 2, dtype=torch.int64)
        starts = torch.empty(9, dtype=torch.int64), torch.empty(11, dtype=torch.int64)
        polygons = Polygons(torch.empty(40, 2, dtype=torch.float64), *starts, sizes)
        images = Images(pixels, sizes, torch.empty(2, 7, 4))
        labels, keypoints = torch.empty(2, 5, dtype=torch.int64), torch.empty(2, 5, 4, 3)
        targets = Targets(torch.empty(2, 5, 4), labels, polygons, keypoints_NGK3=keypoints)
        losses = model.losses(images, targets)
        losses.total().backward()
        assert losses.finite_N.shape == (2,)
        model.eval()
        found = model.detect(images)
        assert found.boxes_ND4.shape[0] == 2 and found.boxes_ND4.shape[1] == found.scores_ND.shape[1]


@every
@pytest.mark.parametrize("truths", [0, 1])
def test_every_parameter_gets_a_gradient(name: str, truths: int) -> None:
    """Without truths, or in one image only: losses stay finite and DDP finds every gradient."""
    model, classes = make(name)
    images, targets = batch(model, [(64, 64), (40, 60)], truths=truths, classes=classes)
    losses = train_step(model, images, targets)
    assert all(torch.isfinite(term) for term in losses.terms.values()) and losses.finite_N.all()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name


@every
def test_padded_truths_change_nothing(name: str) -> None:
    model, classes = make(name)
    images, targets = batch(model, [(64, 64), (40, 60)], truths=3, classes=classes)
    padding = torch.full((2, 4, 4), 7.0), torch.full((2, 4), -1)
    boxes, labels = torch.cat([targets.boxes_NG4, padding[0]], 1), torch.cat([targets.labels_NG, padding[1]], 1)
    more = taught(boxes, labels, *images.pixels_N3HW.shape[2:])
    in_order = [
        m for m in (getattr(model, "proposal_generator", None), getattr(model, "roi_heads", None)) if hasattr(m, "sampler")
    ]
    for module in in_order:
        module.sampler = replace(module.sampler, order="first")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    first = train_step(model, images, targets)
    model.load_state_dict(state)
    if hasattr(model, "normaliser"):
        model.normaliser.fill_(100.0)
    second = train_step(model, images, more)
    for term in first.terms:
        torch.testing.assert_close(first.terms[term], second.terms[term], rtol=1e-6, atol=1e-7)


@every
def test_pixels_outside_the_picture_do_not_matter(name: str) -> None:
    model, _ = make(name)
    images, _ = batch(model, [(64, 64), (37, 50)])
    noisy = images.pixels_N3HW.clone()
    noisy[1, :, 37:] = 255
    noisy[1, :, :, 50:] = 255
    with torch.no_grad():
        clean, dirty = model.detect(images), model.detect(replace(images, pixels_N3HW=noisy))
    assert clean.count_N[1] > 0
    torch.testing.assert_close(clean.boxes_ND4, dirty.boxes_ND4, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["mask_rcnn", "cascade", "c4", "lvis", "keypoint_rcnn", "point_rend"])
def test_compaction_changes_nothing(name: str) -> None:
    model, _ = make(name)
    images, targets = batch(model, [(64, 64), (20, 16), (64, 30)])
    outcomes = []
    for enabled in (True, False):
        model.roi_heads.compact_rows = enabled
        model.eval()
        with torch.no_grad():
            found = model.detect(images)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        losses = train_step(model, images, targets)
        gradients = {key: p.grad.clone() for key, p in model.named_parameters()}
        model.load_state_dict(state)
        outcomes.append((found, losses, gradients))
    (found, losses, gradients), (padded, padded_losses, padded_gradients) = outcomes
    assert torch.equal(found.count_N, padded.count_N) and torch.equal(found.labels_ND, padded.labels_ND)
    torch.testing.assert_close(found.boxes_ND4, padded.boxes_ND4, rtol=0, atol=1e-4)
    for further, of_padded in zip(found.optional().values(), padded.optional().values(), strict=True):
        torch.testing.assert_close(further, of_padded, rtol=0, atol=1e-5)
        assert float(further.std()) > 0.05
    assert found.optional() and losses.counts.keys() == padded_losses.counts.keys()
    for count in losses.counts:
        torch.testing.assert_close(losses.counts[count], padded_losses.counts[count])
    for term in losses.terms:
        torch.testing.assert_close(losses.terms[term], padded_losses.terms[term])
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, padded_gradients[key], rtol=1e-4, atol=1e-6)


def test_compact_takes_and_spreads() -> None:
    valid = torch.tensor([[True, False, True], [False, False, False]])
    values = torch.arange(12.0).view(2, 3, 2)
    for enabled, kept in ((True, 2), (False, 6)):
        rows = compact(valid, enabled)
        assert len(rows.take(values)) == kept and rows.image().tolist() == ([0, 0] if enabled else [0, 0, 0, 1, 1, 1])
        assert torch.equal(rows.spread(rows.take(values))[valid], values[valid])


@every
def test_same_seed_same_bytes(name: str) -> None:
    cfg, classes = CONFIGS[name]
    runs = []
    for _ in range(2):
        model = lively(cfg(), classes)
        images, targets = batch(model, [(64, 64), (40, 60)], classes=classes)
        losses = train_step(model, images, targets, seed=3)
        runs.append([p.grad.numpy().tobytes() for p in model.parameters()] + [losses.total().detach().numpy().tobytes()])
    assert runs[0] == runs[1]


def test_the_generator_draws_the_sample() -> None:
    model, _ = make("faster_rcnn")
    images, targets = batch(model, [(64, 64), (64, 64)])
    model.train()
    totals = {float(model.losses(images, targets, torch.Generator().manual_seed(seed)).total().detach()) for seed in (1, 1, 2)}
    assert len(totals) == 2


@every
def test_a_broken_image_is_flagged_and_the_others_are_not(name: str) -> None:
    model, classes = make(name)
    images, targets = batch(model, [(64, 64), (64, 64)], classes=classes)
    features = model.features

    def broken(batch_of_images: Images) -> dict[str, torch.Tensor]:
        levels = features(batch_of_images)
        return {level: torch.cat([x[:1], torch.full_like(x[1:], float("nan"))]) for level, x in levels.items()}

    with torch.no_grad():
        expected = model.detect(images)
        model.features = broken
        found = model.detect(images)
    assert found.finite_N.tolist() == [True, False] and found.count_N[1] == 0
    assert torch.equal(found.boxes_ND4[0], expected.boxes_ND4[0])
    model.train()
    assert model.losses(images, targets).finite_N.tolist() == [True, False]


@every
def test_an_image_alone_and_in_a_batch_is_the_same(name: str) -> None:
    model, _ = make(name)
    images, _ = batch(model, [(64, 64), (64, 64), (64, 64)], seed=5)
    with torch.no_grad():
        together = model.detect(images)
        for n in range(3):
            one = slice(n, n + 1)
            alone = model.detect(Images(images.pixels_N3HW[one], images.sizes_N2[one], images.proposals_NP4[one]))
            np.testing.assert_array_equal(alone.labels_ND[0], together.labels_ND[n])
            np.testing.assert_allclose(alone.boxes_ND4[0], together.boxes_ND4[n], atol=1e-3)


def test_masks_are_those_of_each_detections_own_class_and_box() -> None:
    """One detection by hand: its region through the head, the predicted class's channel, the sigmoid; padding is zero."""
    model, _ = make("mask_rcnn")
    images, _ = batch(model, [(64, 64), (40, 60)])
    with torch.no_grad():
        found, features = model.detect(images), model.features(images)
    assert found.masks_NDMM.shape == (*found.labels_ND.shape, 14, 14)
    assert not found.masks_NDMM[found.labels_ND < 0].any()
    head, levels = model.roi_heads.mask_head, [features[level] for level in model.roi_heads.levels]
    for n, d in ((0, 0), (1, int(found.count_N[1]) - 1)):
        one = compact(torch.tensor([[False], [False]]).index_fill(0, torch.tensor(n), True))
        region = head.pooler(levels, found.boxes_ND4[:, [d]], one)
        channels = head.predictor(torch.relu(head.deconv(torch.relu(head.mask_fcn1(region)))))
        torch.testing.assert_close(found.masks_NDMM[n, d], channels[0, found.labels_ND[n, d]].sigmoid())


def test_masks_learn_a_diamond() -> None:
    """The targets reach the right regions: some steps on one picture teach the mask head its truths' shape."""
    model, _ = make("mask_rcnn")
    images, targets = batch(model, [(64, 64)], truths=3)
    optimizer = torch.optim.Adam(model.roi_heads.mask_head.parameters(), lr=0.01)
    model.train()
    history = []
    for step in range(60):
        losses = model.losses(images, targets, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        losses.terms["loss_mask"].backward()
        optimizer.step()
        history.append(float(losses.counts["mask_rcnn/accuracy"]))
    assert sum(history[:3]) / 3 < 0.75 and sum(history[-5:]) / 5 > 0.9


def test_a_mask_model_without_polygons_is_told_so() -> None:
    model, _ = make("mask_rcnn")
    images, targets = batch(model, [(64, 64)])
    with pytest.raises(ValueError, match=r"targets\.polygons is None"):
        model.train().losses(images, Targets(targets.boxes_NG4, targets.labels_NG))
