"""Rotated detectors: contracts of every detector, the rules of clipping and scaling, and the raw-heads file against torch."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.deploy.onnx import export_onnx
from pipeline.detector.build import build_detector
from pipeline.detector.postprocess import postprocess_rotated
from pipeline.detector.rotated.geometry import RotatedBoxCoder, clip_rotated, scale_rotated
from pipeline.errors import ConfigError
from pipeline.predict.rotated import corners, rotated_to_picture
from pipeline.predict.session import OnnxBackend
from pipeline.structures import Images, RotatedDetections, Targets
from tests.detector.models import batch, lively, read_config
from tests.ops.rotated import iou

KINDS = {"rotated_faster_rcnn_tiny": 3, "rotated_rpn_tiny": 1}
both = pytest.mark.parametrize("name", KINDS)


def make(name: str) -> Any:
    return lively(read_config(name), KINDS[name])


def rotated_batch(model: Any, sizes: list[tuple[int, int]], name: str, truths: int = 4, seed: int = 1) -> tuple[Images, Targets]:
    images, targets = batch(model, sizes, truths, KINDS[name], seed)
    boxes = targets.boxes_NG4
    angle = (torch.arange(boxes[..., 0].numel()).view(boxes.shape[:2]) * 37 % 90 - 45.0).unsqueeze(-1)
    turned = torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2], angle], dim=-1)
    return images, replace(targets, rotated_NG5=turned * (targets.labels_NG >= 0).unsqueeze(-1))


def step(model: Any, images: Images, targets: Targets) -> Any:
    model.train().zero_grad()
    losses = model.losses(images, targets, torch.Generator().manual_seed(0))
    losses.total().backward()
    return losses


@both
def test_no_host_synchronisation(name: str) -> None:
    with FakeTensorMode():
        model = build_detector(read_config(name), KINDS[name])
        images = Images(torch.empty(2, 3, 64, 96, dtype=torch.uint8), torch.empty(2, 2, dtype=torch.int64))
        targets = Targets(torch.empty(2, 5, 4), torch.empty(2, 5, dtype=torch.int64), rotated_NG5=torch.empty(2, 5, 5))
        model.losses(images, targets).total().backward()
        found = model.eval().detect(images)
        assert isinstance(found, RotatedDetections) and found.boxes_ND5.shape == (*found.scores_ND.shape, 5)


@both
@pytest.mark.parametrize("truths", [0, 1, 500])
def test_losses_are_finite_and_every_parameter_gets_a_gradient(name: str, truths: int) -> None:
    model = make(name)
    images, targets = rotated_batch(model, [(64, 64), (1, 1), (40, 60)], name, truths)
    if truths:
        targets.rotated_NG5[0, 0, 2:4] = 1.0  # a box of one pixel
    losses = step(model, images, targets)
    assert all(torch.isfinite(term) for term in losses.terms.values()) and losses.finite_N.all()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), parameter_name


@both
def test_padded_truths_and_what_lies_outside_change_nothing(name: str) -> None:
    model = make(name)
    images, targets = rotated_batch(model, [(64, 64), (40, 60)], name)
    for module in (model.proposal_generator, getattr(model, "roi_heads", None)):
        if module is not None:
            module.sampler = replace(module.sampler, order="first")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    first = step(model, images, targets)
    model.load_state_dict(state)
    more = Targets(
        torch.cat([targets.boxes_NG4, torch.full((2, 3, 4), 7.0)], 1),
        torch.cat([targets.labels_NG, torch.full((2, 3), -1)], 1),
        rotated_NG5=torch.cat([targets.rotated_NG5, torch.full((2, 3, 5), 9.0)], 1),
    )
    noisy = images.pixels_N3HW.clone()
    noisy[1, :, 40:] = 255
    second = step(model, Images(noisy, images.sizes_N2), more)
    for term in first.terms:
        torch.testing.assert_close(first.terms[term], second.terms[term], rtol=1e-6, atol=1e-7)


@both
def test_a_broken_image_is_flagged_and_the_other_stays_as_it_is_alone(name: str) -> None:
    model = make(name)
    images, targets = rotated_batch(model, [(64, 64), (64, 64)], name)
    features = model.features

    def broken(given: Images) -> dict[str, Tensor]:
        return {level: torch.cat([x[:1], torch.full_like(x[1:], torch.nan)]) for level, x in features(given).items()}

    with torch.no_grad():
        alone = model.detect(Images(images.pixels_N3HW[:1], images.sizes_N2[:1]))
        model.features = broken
        found = model.detect(images)
    assert found.finite_N.tolist() == [True, False] and int(found.count_N[1]) == 0 and int(found.count_N[0]) > 3
    torch.testing.assert_close(found.boxes_ND5[0], alone.boxes_ND5[0], atol=1e-3, rtol=0)
    assert model.train().losses(images, targets).finite_N.tolist() == [True, False]


def test_compaction_changes_nothing() -> None:
    model = make("rotated_faster_rcnn_tiny")
    images, targets = rotated_batch(model, [(64, 64), (20, 16)], "rotated_faster_rcnn_tiny")
    outcomes = []
    for enabled in (True, False):
        model.roi_heads.compact_rows = enabled
        with torch.no_grad():
            found = model.eval().detect(images)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        losses = step(model, images, targets)
        model.load_state_dict(state)
        outcomes.append((found, losses))
    (found, losses), (padded, padded_losses) = outcomes
    torch.testing.assert_close(found.boxes_ND5, padded.boxes_ND5, rtol=0, atol=1e-4)
    for term in losses.terms:
        torch.testing.assert_close(losses.terms[term], padded_losses.terms[term])


def test_the_second_stage_equals_a_plain_one() -> None:
    """Softmax, decoding by hand, threshold and greedy suppression per class, in plain Python."""
    model = make("rotated_faster_rcnn_tiny")
    images, _ = rotated_batch(model, [(64, 64)], "rotated_faster_rcnn_tiny")
    heads = model.roi_heads
    with torch.no_grad():
        features = model.features(images)
        proposals = model.proposal_generator.detect(features, images.sizes_N2)
        found = heads.detect_rotated(features, proposals, images.sizes_N2)
        rows = torch.nonzero(proposals.valid_NP[0]).squeeze(1)
        from pipeline.detector.compact import compact

        rows_M = compact(proposals.valid_NP)
        predicted = heads._predict(heads._regions(features, proposals.boxes_NP4, rows_M))
        logits, deltas = predicted.logits_MK, predicted.deltas_MC4
    scored = []
    for p, row in enumerate(rows.tolist()):
        x, y, w, h, angle = proposals.boxes_NP4[0, row].double().tolist()
        share = logits[p].double().softmax(0)
        for label in range(3):
            dx, dy, dw, dh, da = (deltas[p, label].double() / torch.tensor([10.0, 10, 5, 5, 1])).tolist()
            turned = (angle + np.degrees(da) + 180) % 360 - 180
            box = [x + dx * w, y + dy * h, w * np.exp(dw), h * np.exp(dh), turned]
            if abs(turned) > 1 and share[label] > heads.selection.score:
                scored.append((float(share[label]), label, box))
    kept: list[tuple[float, int, list[float]]] = []
    for score, label, box in sorted(scored, key=lambda row: -row[0]):
        if all(label != other or iou(box, own) <= heads.selection.nms for _, other, own in kept):
            kept.append((score, label, box))
    mine = [row for row in range(int(found.count_N[0])) if abs(float(found.boxes_ND5[0, row, 4])) > 1]
    assert len(mine) > 10
    for row, (score, label, box) in zip(mine, kept, strict=False):
        assert float(found.scores_ND[0, row]) == pytest.approx(score, abs=1e-5) and int(found.labels_ND[0, row]) == label
        assert found.boxes_ND5[0, row].tolist() == pytest.approx(box, abs=1e-2)


def test_deltas_turn_the_shorter_way() -> None:
    coder = RotatedBoxCoder((1, 1, 1, 1, 1))
    source, target = torch.tensor([[5.0, 5, 4, 2, 170]]), torch.tensor([[6.0, 5, 8, 2, -170]])
    deltas = coder.encode(source, target)
    assert deltas[0].tolist() == pytest.approx([0.25, 0, np.log(2), 0, np.radians(20)], abs=1e-6)
    assert coder.decode(deltas, source)[0].tolist() == pytest.approx([6, 5, 8, 2, -170], abs=1e-4)


def test_only_nearly_upright_boxes_are_clipped() -> None:
    boxes = torch.tensor([[[0.0, 5, 8, 4, 0.5], [0, 5, 8, 4, 1.5], [0, 5, 8, 4, 359], [20, 5, 4, 4, -180], [-9, 5, 4, 4, 0]]])
    found = clip_rotated(boxes, torch.tensor([[10, 12]]))[0]
    assert found[0].tolist() == [2, 5, 4, 4, 0.5] and found[1].tolist() == [0, 5, 8, 4, 1.5]
    assert found[2].tolist() == [2, 5, 4, 4, -1] and found[3].tolist() == [20, 5, 4, 4, -180]
    assert found[4, 2] == 0, "a box outside is empty: it is dropped"


@pytest.mark.parametrize("scale", [(2.0, 2.0), (3.0, 1.0), (0.5, 2.0)])
def test_scaling_keeps_sides_as_the_picture_stretches_them(scale: tuple[float, float]) -> None:
    boxes = torch.tensor([[[10.0, 8, 6, 4, 0], [10, 8, 6, 4, 90], [10, 8, 6, 4, 35], [10, 8, 6, 4, -120]]])
    found = scale_rotated(boxes, torch.tensor([scale]))[0].numpy()
    stretched = corners(boxes[0].numpy()) * np.array(scale)
    sides = [np.linalg.norm(stretched[:, k + 1] - stretched[:, k], axis=1) for k in (0, 1)]
    np.testing.assert_allclose(found[:, 2:4], np.stack(sides, 1), rtol=1e-5)
    np.testing.assert_allclose(found[:, :2], stretched.mean(axis=1), rtol=1e-5)
    exact = 4 if scale[0] == scale[1] else 2
    np.testing.assert_allclose(corners(found[:exact]), stretched[:exact], atol=1e-3)
    down = stretched[:, 3] - stretched[:, 0]  # the angle follows the stretched height
    np.testing.assert_allclose(np.radians(found[:, 4]), np.arctan2(down[:, 0], down[:, 1]), atol=1e-5)


def test_numpy_and_torch_bring_boxes_to_the_picture_alike() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.cat([torch.rand(1, 30, 4, generator=generator) * 40, torch.rand(1, 30, 1, generator=generator) * 360 - 180], 2)
    boxes[0, ::4, 4], boxes[0, 3, :3] = 0.3, torch.tensor([-50.0, 5, 4])
    boxes[0, 3, 4] = 0
    scores, labels = torch.linspace(1, 0.1, 30)[None], torch.zeros(1, 30, dtype=torch.int64)
    found = RotatedDetections(boxes, scores, labels, torch.tensor([28]), torch.tensor([True]))
    final = postprocess_rotated(found, torch.tensor([[40, 50]]), torch.tensor([[60, 90]]))
    mine, rows = rotated_to_picture(boxes[0, :28].numpy(), (40, 50), (60, 90))
    count = int(final.count_N[0])
    assert len(rows) == count < 28
    np.testing.assert_allclose(mine, final.boxes_ND5[0, :count], atol=1e-4)
    assert final.scores_ND[0, :count].tolist() == scores[0, rows].tolist() and (final.labels_ND[0, count:] == -1).all()


@pytest.fixture(scope="module", params=["rotated_faster_rcnn_tiny", pytest.param("rotated_rpn_tiny", marks=pytest.mark.line)])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model, path = make(request.param), tmp_path_factory.mktemp("onnx") / "detector.onnx"
    export_onnx(model, path, opset=20)
    return model, path


SIZES = [[(64, 64)], [(96, 64), (50, 33), (90, 61)], [(32, 160), (20, 100)], [(0, 0), (64, 64)]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_the_raw_heads_file_and_its_host_equal_torch(exported: tuple[Any, Path], sizes: list[tuple[int, int]]) -> None:
    model, path = exported
    backend = OnnxBackend(path, threads=1)
    images, _ = batch(model, [(max(h, 1), max(w, 1)) for h, w in sizes])
    images.sizes_N2 = torch.tensor(sizes)
    with torch.no_grad():
        expected = model.detect(images)
    found = backend(images.pixels_N3HW.numpy(), images.sizes_N2.numpy())
    assert expected.count_N.max() > 3, "the model must find something, or nothing is compared"
    np.testing.assert_array_equal(found["count"], expected.count_N)
    np.testing.assert_array_equal(found["labels"], expected.labels_ND)
    np.testing.assert_allclose(found["scores"], expected.scores_ND, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found["rotated"], expected.boxes_ND5, rtol=0, atol=0.01)


def test_the_file_is_of_standard_operators(exported: tuple[Any, Path]) -> None:
    import onnx

    graph = onnx.load(exported[1])
    assert {domain.domain for domain in graph.opset_import} <= {""} and not graph.functions
    onnx.checker.check_model(graph, full_check=True)
    assert [entry.key for entry in graph.metadata_props] == ["rotated_raw_heads"]


def test_settings_that_do_not_fit_are_named() -> None:
    cfg = read_config("rotated_rpn_tiny")
    with pytest.raises(ConfigError, match=r"anchors\.angles"):
        replace(cfg, anchors=replace(cfg.anchors, angles=((0.0,), (30.0,))))
