"""The keypoint branch: cells against a slow reference, normalisers, what is learnt, and decoding in the picture's frame."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from pipeline.detector.build import build_detector
from pipeline.detector.keypoint_head import has_visible, heatmap_cells
from pipeline.detector.postprocess import postprocess
from pipeline.predict.keypoints import decode_keypoints, to_picture_points
from pipeline.predict.postprocess import to_picture
from pipeline.structures import Targets
from tests.detector.models import batch, lively, read_config


def tiny(**changes: Any) -> Any:
    cfg: Any = read_config("keypoint_rcnn_tiny")
    return replace(cfg, roi=replace(cfg.roi, keypoint=replace(cfg.roi.keypoint, **changes)))


def cell_of(x: float, y: float, v: float, box: list[float], size: int) -> int | None:
    """One keypoint by hand: edges on the right and at the bottom fall into the last cell."""
    column = size - 1 if x == box[2] else int(np.floor((x - box[0]) / (box[2] - box[0]) * size))
    row = size - 1 if y == box[3] else int(np.floor((y - box[1]) / (box[3] - box[1]) * size))
    return row * size + column if v > 0 and 0 <= column < size and 0 <= row < size else None


def test_cells_and_visibility_equal_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0.0, 0, 16, 8], [3, 3, 4, 35], [10, 2, 42, 34]])
    keypoints = torch.randint(-8, 88, (3, 400, 3), generator=generator) / torch.tensor([2.0, 2.0, 1.0])
    keypoints[..., 2] = torch.randint(0, 3, (3, 400), generator=generator)
    cell, valid = heatmap_cells(keypoints, boxes, 28)
    expected = [[cell_of(*point, box, 28) for point in own] for own, box in zip(keypoints.tolist(), boxes.tolist(), strict=True)]
    assert valid.tolist() == [[one is not None for one in own] for own in expected]
    assert cell.tolist() == [[one or 0 for one in own] for own in expected]
    one_each = keypoints[0].unsqueeze(1).unsqueeze(0)
    inside = has_visible(one_each, boxes[0].expand(1, 400, 4))
    assert inside[0].tolist() == [0 <= x <= 16 and 0 <= y <= 8 and v >= 1 for x, y, v in keypoints[0].tolist()]


def test_cells_of_degenerate_boxes_are_not_learnt() -> None:
    boxes = torch.tensor([[0.0, 0, 0, 0], [5, 5, 5, 9]])
    cell, valid = heatmap_cells(torch.tensor([[[1.0, 1, 2]], [[7.0, 6, 2]]]), boxes, 28)
    assert not valid.any() and not cell.any()


@pytest.mark.parametrize("normalise", ["visible", "sampled"])
def test_the_loss_by_hand(normalise: str) -> None:
    """Every positive region and keypoint by itself, divided by what the setting says, times the weight."""
    cfg = tiny(normalise=normalise, loss_weight=0.5)
    cfg = replace(cfg, roi=replace(cfg.roi, sample=replace(cfg.roi.sample, order="first")))
    model: Any = lively(cfg).train()
    images, targets = batch(model, [(64, 64), (40, 60)])
    branch, seen = model.roi_heads.branches[0], {}
    losses_of = branch.losses
    branch.losses = lambda maps, regions, *rest: seen.update(maps=maps, regions=regions) or losses_of(maps, regions, *rest)
    loss = model.losses(images, targets).terms["loss_keypoint"]
    total, count, regions = torch.zeros(()), 0, seen["regions"]
    from pipeline.detector.compact import Rows

    for n, s in torch.nonzero(regions.valid_NS).tolist():
        box = regions.boxes_NS4[n, s]
        points = targets.keypoints_NGK3.flatten(0, 1)[regions.truth_NS[n, s]]
        rows = Rows(regions.valid_NS, torch.tensor([n * regions.valid_NS.shape[1] + s]))
        logits = branch.head(seen["maps"], regions.boxes_NS4, rows)[0]
        for k, point in enumerate(points.tolist()):
            cell = cell_of(*point, box.tolist(), 28)
            if cell is not None:
                total, count = total - functional.log_softmax(logits[k].flatten(), 0)[cell], count + 1
    divisor = count if normalise == "visible" else 2 * 32 * 0.25 * 4
    assert count > 4
    torch.testing.assert_close(loss, 0.5 * total / divisor, rtol=1e-4, atol=1e-5)


def test_no_visible_keypoint_gives_no_loss_but_every_gradient() -> None:
    model = lively(tiny()).train()
    images, targets = batch(model, [(64, 64), (40, 60)])
    losses = model.losses(images, replace(targets, keypoints_NGK3=torch.zeros(2, 4, 0, 3)))
    losses.total().backward()
    assert float(losses.terms["loss_keypoint"].detach()) == 0 and losses.finite_N.all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name


def test_truths_that_do_not_fit_are_told_so() -> None:
    model = lively(tiny()).train()
    images, targets = batch(model, [(64, 64)])
    with pytest.raises(ValueError, match=r"targets\.keypoints_NGK3 is None"):
        model.losses(images, Targets(targets.boxes_NG4, targets.labels_NG))
    with pytest.raises(ValueError, match="have 9 keypoints, the keypoint head 4"):
        model.losses(images, replace(targets, keypoints_NGK3=torch.zeros(1, 4, 9, 3)))


def test_keypoints_learn_their_places() -> None:
    """Some steps on one picture: corners and middles are found where they are."""
    torch.manual_seed(0)
    model: Any = lively(tiny())
    images, targets = batch(model, [(64, 64)], truths=3)
    optimizer = torch.optim.Adam(model.roi_heads.keypoint_head.parameters(), lr=0.003)
    model.train()
    for step in range(60):
        losses = model.losses(images, targets, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        losses.terms["loss_keypoint"].backward()
        optimizer.step()
        if not step:
            first = float(losses.terms["loss_keypoint"].detach())
    assert first > 6 and float(losses.terms["loss_keypoint"].detach()) < 0.6 * first


def test_postprocess_decodes_and_its_twin_in_numpy_agrees() -> None:
    model = lively(tiny())
    images, _ = batch(model, [(64, 64), (40, 60)])
    with torch.no_grad():
        found = model.detect(images)
    assert found.heatmaps_NDKMM is not None and "heatmaps" in found.named()
    final = postprocess(found, images.sizes_N2, torch.tensor([[96, 80], [20, 30]]))
    assert final.heatmaps_NDKMM is None and final.keypoints_NDK3 is not None
    for n, (size, out) in enumerate((((64, 64), (96, 80)), ((40, 60), (20, 30)))):
        count = int(found.count_N[n])
        _, kept = to_picture(found.boxes_ND4[n, :count].numpy(), size, out)
        points = decode_keypoints(found.heatmaps_NDKMM[n, :count].numpy()[kept], found.boxes_ND4[n, :count].numpy()[kept])
        np.testing.assert_allclose(
            final.keypoints_NDK3[n, : len(kept)], to_picture_points(points, size, out), rtol=1e-4, atol=1e-3
        )
        assert not final.keypoints_NDK3[n, len(kept) :].any() and len(kept) > 3


def test_parameter_names_are_the_reference_s() -> None:
    names = set(build_detector(tiny(channels=(16, 16, 16)), 1).state_dict())
    own = {name for name in names if name.startswith("roi_heads.keypoint_head.")}
    layers = [*(f"conv_fcn{i}" for i in (1, 2, 3)), "score_lowres"]
    assert own == {f"roi_heads.keypoint_head.{layer}.{part}" for layer in layers for part in ("weight", "bias")}
