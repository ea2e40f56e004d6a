"""TensorMask against slow references written from the paper (assignment, masks, losses), and every detector's contracts."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

import ops_cuda
from pipeline.deploy.onnx import export_onnx
from pipeline.detector.build import build_detector
from pipeline.detector.tensormask import sampled
from pipeline.detector.windows import Windows, assign
from pipeline.errors import ConfigError
from pipeline.structures import Images, Polygons, Targets
from tests.detector.models import batch, diamonds, lively, read_config
from tests.ops.test_swap_align2nat import plain


def make() -> Any:
    model = lively(read_config("tensormask_tiny"))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "mask_pred" in name and name.endswith("weight"):
                parameter.normal_(std=3 / parameter[0].numel() ** 0.5, generator=torch.Generator().manual_seed(0))
    return model


def step(model: Any, images: Images, targets: Targets) -> Any:
    model.train().zero_grad()
    losses = model.losses(images, targets)
    losses.total().backward()
    return losses


def test_no_host_synchronisation() -> None:
    with FakeTensorMode():
        model = build_detector(read_config("tensormask_tiny"), 3)
        images = Images(torch.empty(2, 3, 64, 96, dtype=torch.uint8), torch.empty(2, 2, dtype=torch.int64))
        starts = torch.empty(9, dtype=torch.int64), torch.empty(11, dtype=torch.int64)
        polygons = Polygons(torch.empty(40, 2, dtype=torch.float64), *starts)
        targets = Targets(torch.empty(2, 5, 4), torch.empty(2, 5, dtype=torch.int64), polygons)
        model.losses(images, targets).total().backward()
        assert model.eval().detect(images).masks_NDMM.shape == (2, 50, 14, 14)


@pytest.mark.parametrize("truths", [0, 1, 500])
def test_losses_are_finite_and_every_parameter_gets_a_gradient(truths: int) -> None:
    model = make()
    images, targets = batch(model, [(64, 64), (1, 1), (40, 60)], truths)
    if truths:
        targets.boxes_NG4[0, 0] = torch.tensor([5.0, 5, 6, 6])
    losses = step(model, images, targets)
    assert all(torch.isfinite(term) for term in losses.terms.values()) and losses.finite_N.all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_padding_and_compaction_change_nothing() -> None:
    model = make()
    images, targets = batch(model, [(64, 64), (40, 60)])
    boxes = torch.cat([targets.boxes_NG4, torch.full((2, 3, 4), 7.0)], 1)
    labels = torch.cat([targets.labels_NG, torch.full((2, 3), -1)], 1)
    more, noisy = Targets(boxes, labels, diamonds(boxes, labels)), images.pixels_N3HW.clone()
    noisy[1, :, 40:] = 255
    state = {key: value.clone() for key, value in model.state_dict().items()}
    outcomes = []
    for own_images, own_targets, compacted in ((images, targets, True), (Images(noisy, images.sizes_N2), more, False)):
        model.compact_rows = compacted
        with torch.no_grad():
            found = model.eval().detect(own_images)
        losses = step(model, own_images, own_targets)
        outcomes.append((found, losses, {key: p.grad.clone() for key, p in model.named_parameters()}))
        model.load_state_dict(state)
    (found, losses, gradients), (padded, padded_losses, padded_gradients) = outcomes
    torch.testing.assert_close(found.boxes_ND4, padded.boxes_ND4, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.masks_NDMM, padded.masks_NDMM, rtol=0, atol=1e-5)
    for term in losses.terms:
        torch.testing.assert_close(losses.terms[term], padded_losses.terms[term])
    for key, gradient in gradients.items():
        torch.testing.assert_close(gradient, padded_gradients[key], rtol=1e-4, atol=1e-6)


def test_a_broken_image_is_flagged_and_the_other_stays_as_it_is_alone() -> None:
    model = make()
    images, targets = batch(model, [(64, 64), (64, 64)])
    features = model.features

    def broken(given: Images) -> dict[str, torch.Tensor]:
        return {level: torch.cat([x[:1], torch.full_like(x[1:], torch.nan)]) for level, x in features(given).items()}

    with torch.no_grad():
        alone = model.detect(Images(images.pixels_N3HW[:1], images.sizes_N2[:1]))
        model.features = broken
        found = model.detect(images)
    assert found.finite_N.tolist() == [True, False] and int(found.count_N[1]) == 0 and int(found.count_N[0]) > 3
    torch.testing.assert_close(found.masks_NDMM[0], alone.masks_NDMM[0], atol=1e-4, rtol=0)
    assert model.train().losses(images, targets).finite_N.tolist() == [True, False]


def windows_of(maps: list[torch.Tensor]) -> tuple[Windows, torch.Tensor, torch.Tensor, torch.Tensor]:
    windows = Windows((5, 8), (4, 8))
    levels = windows(maps)
    return windows, torch.cat([b for b, _ in levels]), torch.cat([least for _, least in levels]), windows.units(levels)


def test_assignment_equals_the_papers_rule_in_plain_python() -> None:
    maps = [torch.zeros(1, 1, 12, 16), torch.zeros(1, 1, 6, 8)]
    _, boxes_A4, least_A, unit_A = windows_of(maps)
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(3, 14, 2, generator=generator) * torch.tensor([60.0, 44])
    truths = torch.cat([corner, corner + torch.rand(3, 14, 2, generator=generator) * 34 + 1], dim=2)
    labels = torch.zeros(3, 14, dtype=torch.int64)
    labels[:, 11:] = -1
    match, positive = assign(boxes_A4, least_A, unit_A, Targets(truths, labels))
    number, seen = 0, 0
    for level, (rows, columns, stride) in enumerate(((12, 16, 4), (6, 8, 8))):
        for y in range(rows):
            for x in range(columns):
                for cells in (5, 8):
                    side = cells * stride
                    for n in range(3):
                        fitting = []
                        for g in range(11):
                            x1, y1, x2, y2 = truths[n, g].tolist()
                            inside = (
                                min(x1 - x * stride, y1 - y * stride) >= -side / 2
                                and max(x2 - x * stride, y2 - y * stride) <= side / 2
                            )
                            large = max(x2 - x1, y2 - y1) >= side / 2 or (level == 0 and cells == 5)
                            near = math.hypot((x1 + x2) / 2 - x * stride, (y1 + y2) / 2 - y * stride) <= stride
                            fitting += [g] if inside and large and near else []
                        assert bool(positive[n, number]) == (len(fitting) == 1)
                        if len(fitting) == 1:
                            assert int(match[n, number]) == fitting[0]
                            seen += 1
                    number += 1
    assert number == positive.shape[1] and seen > 40


def mask_features(model: Any, images: Images) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The aligned mask features of both levels, layer by layer."""
    features = model.features(images)
    maps, head = [features[level] for level in model.levels], model.head
    fine, coarse = (functional.relu(functional.conv2d(x, *head.mask_subnet[0].parameters(), padding=1)) for x in maps)
    fused = (fine, functional.interpolate(coarse, scale_factor=2.0, mode="bilinear", align_corners=False) + fine)
    return maps, [functional.relu(functional.conv2d(x, *head.mask_fuse[0].parameters(), padding=1)) for x in fused]


def plain_masks(model: Any, images: Images) -> dict[tuple[int, int], torch.Tensor]:
    """Natural mask logits by (level, cells), through the plain swap_align2nat."""
    maps, aligned = mask_features(model, images)
    found = {}
    for level, (x, size) in enumerate(zip(aligned, [m.shape[-2:] for m in maps], strict=True)):
        for cells in model.head.cells:
            layer = model.head.get_submodule(f"mask_pred_{cells:02d}")
            found[level, cells] = plain(functional.conv2d(x, layer.weight, layer.bias), cells, 2**level, *size, -6.0)
    return found


def test_losses_equal_a_plain_computation() -> None:
    model = make()
    images, targets = batch(model, [(48, 32)], truths=3)
    targets.boxes_NG4[0] = torch.tensor([[3.0, 4, 20, 22], [10, 20, 30, 45], [2, 30, 8, 37]])
    targets = Targets(targets.boxes_NG4, targets.labels_NG, diamonds(targets.boxes_NG4, targets.labels_NG))
    model.train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with torch.no_grad():
        losses = model.losses(images, targets)
        model.load_state_dict(state)
        natural = plain_masks(model, images)
        maps, _ = mask_features(model, images)
        logits, deltas = (torch.cat(values, 1)[0] for values in model.head(maps))
    levels = model.windows(maps)
    boxes = torch.cat([b for b, _ in levels])
    least = torch.cat([b for _, b in levels])
    match, positive = assign(boxes, least, model.windows.units(levels), targets)
    rows = torch.nonzero(positive[0]).squeeze(1).tolist()
    assert len(rows) > 3
    wanted = torch.zeros_like(logits)
    box = mask = 0.0
    places = [
        (level, cells, y, x)
        for level, m in enumerate(maps)
        for y in range(m.shape[2])
        for x in range(m.shape[3])
        for cells in model.head.cells
    ]
    for row in rows:
        g = int(match[0, row])
        wanted[row, targets.labels_NG[0, g]] = 1
        box += float((model.coder.encode(boxes[row], targets.boxes_NG4[0, g]) - deltas[row]).abs().sum())
        level, cells, y, x = places[row]
        side, stride = 2**level * cells, 4 * 2**level
        corner = [(c * stride) - (side // 2 + 0.5) * 4 for c in (x, y)]
        frame = torch.tensor([[*corner, corner[0] + side * 4, corner[1] + side * 4]])
        pools = targets.polygons.points_P2, targets.polygons.polygon_starts, targets.polygons.truth_starts
        inside = ops_cuda.rasterise_polygons(*pools, frame, torch.tensor([g]), side)[0].double()
        value = functional.binary_cross_entropy_with_logits(natural[level, cells][0, :, :, y, x], inside, reduction="none")
        mask += float((value * torch.where(inside > 0, 1.5, 1.0)).mean())
    share = logits.double().sigmoid()
    truth = torch.where(wanted > 0, share, 1 - share)
    focal = torch.where(wanted > 0, 0.3, 0.7) * (1 - truth) ** 3 * -truth.log()
    expected = {"loss_cls": float(focal.sum()), "loss_box_reg": box, "loss_mask": 2 * mask}
    for name, value in expected.items():
        assert float(losses.terms[name]) == pytest.approx(value / len(rows), rel=1e-4), name


def test_a_detections_mask_is_its_windows_mask_seen_in_its_box() -> None:
    model = make()
    images, _ = batch(model, [(48, 32)])
    with torch.no_grad():
        found = model.detect(images)
        natural = plain_masks(model, images)
        maps, _ = mask_features(model, images)
        logits, deltas = (torch.cat(values, 1)[0] for values in model.head(maps))
        boxes = model.coder.decode(deltas, torch.cat([b for b, _ in model.windows(maps)]))
    places = [
        (level, cells, y, x)
        for level, m in enumerate(maps)
        for y in range(m.shape[2])
        for x in range(m.shape[3])
        for cells in model.head.cells
    ]
    seen = set()
    for d in range(int(found.count_N[0])):
        score, label = float(found.scores_ND[0, d]), int(found.labels_ND[0, d])
        row = int((logits[:, label].sigmoid() - score).abs().argmin())
        level, cells, y, x = places[row]
        seen.add((level, cells))
        side, stride = 2**level * cells, 4 * 2**level
        probability = natural[level, cells][0, :, :, y, x].sigmoid().numpy()
        x1, y1, x2, y2 = found.boxes_ND4[0, d].tolist()
        clipped = boxes[row].clamp(min=0).minimum(torch.tensor([32.0, 48, 32, 48]))
        assert clipped.tolist() == pytest.approx([x1, y1, x2, y2], abs=1e-3)
        mine = np.zeros((14, 14))
        for i in range(14):
            for j in range(14):
                v = (y1 + (i + 0.5) / 14 * (y2 - y1)) / 4 - y * stride / 4 + side // 2  # cells lie on whole numbers
                u = (x1 + (j + 0.5) / 14 * (x2 - x1)) / 4 - x * stride / 4 + side // 2
                for a in (math.floor(v), math.floor(v) + 1):
                    for b in (math.floor(u), math.floor(u) + 1):
                        if 0 <= a < side and 0 <= b < side:
                            mine[i, j] += (1 - abs(v - a)) * (1 - abs(u - b)) * probability[a, b]
        np.testing.assert_allclose(found.masks_NDMM[0, d], mine, atol=1e-3)
    assert len(seen) > 1


def test_sampling_reads_zero_beyond_the_window() -> None:
    masks, frames = torch.ones(1, 4, 4), torch.tensor([[0.0, 0, 4, 4]])
    found = sampled(masks, frames, torch.tensor([[2.0, 0, 6, 4]]), 4)
    assert (found[0, :, :2] == 1).all() and not found[0, :, 2:].any()


SIZES = [[(64, 64)], [(96, 64), (50, 33), (90, 61)], [(32, 160), (20, 100)]]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model, path = make(), tmp_path_factory.mktemp("onnx") / "detector.onnx"
    export_onnx(model, path, opset=20)
    return model, path


@pytest.mark.line
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_onnx_equals_torch(exported: tuple[Any, Path], sizes: list[tuple[int, int]]) -> None:
    import onnxruntime

    model, path = exported
    images, _ = batch(model, sizes)
    with torch.no_grad():
        expected = model.detect(images)
    feed = {"pixels": images.pixels_N3HW.numpy(), "sizes": images.sizes_N2.numpy()}
    boxes, scores, labels, count, masks = onnxruntime.InferenceSession(path).run(None, feed)
    assert expected.count_N.max() > 3 and expected.masks_NDMM.std() > 0.05
    np.testing.assert_array_equal(count, expected.count_N)
    np.testing.assert_array_equal(labels, expected.labels_ND)
    np.testing.assert_allclose(boxes, expected.boxes_ND4, rtol=0, atol=1e-2)
    np.testing.assert_allclose(scores, expected.scores_ND, rtol=0, atol=1e-4)
    np.testing.assert_allclose(masks, expected.masks_NDMM, rtol=0, atol=2e-3)


def test_names_are_those_of_the_public_checkpoints() -> None:
    names = {name for name, _ in build_detector(read_config("tensormask_r50_fpn"), 80).named_parameters()}
    assert {f"head.{part}.{k}.weight" for part in ("cls_subnet", "bbox_subnet", "mask_subnet") for k in (0, 2, 4, 6)} <= names
    assert {f"head.{part}.bias" for part in ("cls_score", "bbox_pred", "mask_fuse.0", "mask_pred_11", "mask_pred_15")} <= names
    with pytest.raises(ConfigError, match="window_cells"):
        replace(read_config("tensormask_tiny"), window_cells=(5, 5))
