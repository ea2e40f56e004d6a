"""PointRend: choice of points, subdivision against brute force, learning, and boxes as the box head predicts them."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional

from pipeline.detector.build import build_detector
from pipeline.detector.compact import Rows, compact
from pipeline.detector.part import Part
from pipeline.detector.point_rend import PointRules, grid_points, in_picture
from pipeline.errors import ConfigError
from pipeline.structures import Targets
from tests.detector.models import batch, lively, read_config


def tiny(**changes: Any) -> Any:
    cfg: Any = read_config("point_rend_tiny")
    return replace(cfg, roi=replace(cfg.roi, mask=replace(cfg.roi.mask, **changes)))


def test_the_start_of_subdivision() -> None:
    """The reference's rule: double while four times the cells are no more than the points of a step."""
    for size, steps, points, expected in ((7, 5, 784, (28, 3)), (7, 1, 784, (14, 0)), (7, 5, 100, (7, 5)), (4, 3, 64, (8, 2))):
        assert PointRules(1, 1, 1, steps, points).start(size) == expected


def test_the_least_certain_points_are_chosen() -> None:
    rules = PointRules(train_points=40, oversample=3.0, important=0.75, steps=0, points=1)
    rows = compact(torch.tensor([[True, False, True], [True, True, False]]))
    coarse = torch.randn(4, 7, 7, generator=torch.Generator().manual_seed(1))
    chosen = rules.choose(coarse, rows, torch.Generator().manual_seed(5), Part())
    generator = torch.Generator().manual_seed(5)
    drawn, anew = Part().points(rows, 120, generator), Part().points(rows, 10, generator)
    for m in range(4):
        value = functional.grid_sample(coarse[None, [m]], drawn[m][None, None] * 2 - 1, align_corners=False)[0, 0, 0]
        least = {tuple(point) for point in drawn[m, value.abs().argsort()[:30]].tolist()}
        assert {tuple(point) for point in chosen[m, :30].tolist()} == least
        assert torch.equal(chosen[m, 30:], anew[m])


def test_points_do_not_depend_on_dropped_padding_or_on_the_part() -> None:
    valid = torch.tensor([[True, False, True], [True, True, False]])
    whole = Part().points(Rows(valid, None), 6, torch.Generator().manual_seed(0))
    assert torch.equal(Part().points(compact(valid), 6, torch.Generator().manual_seed(0)), whole[valid.flatten()])
    second = Part(first=1, pictures=2).points(Rows(valid[1:], None), 6, torch.Generator().manual_seed(0))
    assert torch.equal(second, whole[3:])


def test_subdivision_equals_brute_force() -> None:
    """Enough points for every cell: the result is the point head at every centre of the finest grid."""
    model: Any = lively(tiny(point_head=replace(tiny().roi.mask.point_head, steps=3, points=10**6)))
    images, _ = batch(model, [(64, 64), (40, 60)])
    with torch.no_grad():
        found = model.detect(images)
        branch, features = model.roi_heads.branches[0], model.features(images)
        maps = [features[level] for level in model.roi_heads.levels]
        rows = compact(found.labels_ND >= 0)
        boxes, labels = rows.take(found.boxes_ND4), rows.take(found.labels_ND)
        coarse = branch._coarse(maps, boxes, rows)
        grid = grid_points(32, boxes).expand(len(boxes), -1, -1)
        logits = branch._at_points(maps, coarse, boxes, labels, grid, rows).unflatten(1, (32, 32))
    torch.testing.assert_close(rows.take(found.masks_NDMM), logits.sigmoid(), rtol=0, atol=1e-6)
    assert found.masks_NDMM.shape[-1] == 32 and len(boxes) > 2


def test_a_step_changes_the_least_certain_cells_alone() -> None:
    model: Any = lively(tiny())
    images, _ = batch(model, [(64, 64)])
    with torch.no_grad():
        found, features = model.detect(images), model.features(images)
        branch, maps = model.roi_heads.branches[0], [features[level] for level in model.roi_heads.levels]
        rows = compact(found.labels_ND >= 0)
        boxes, labels = rows.take(found.boxes_ND4), rows.take(found.labels_ND)
        coarse = branch._coarse(maps, boxes, rows)
        steps = [branch._refined(replace(branch.rules, steps=steps), maps, coarse, boxes, labels, rows) for steps in (1, 2)]
    before = functional.interpolate(steps[0].unsqueeze(1), scale_factor=2.0, mode="bilinear", align_corners=False).squeeze(1)
    changed = (steps[1] != before).flatten(1)
    certain = before.flatten(1).abs().masked_fill(changed, float("inf")).amin(1)
    assert (changed.sum(1) <= 64).all() and changed.any(1).all()
    assert (before.flatten(1).abs().masked_fill(~changed, 0).amax(1) <= certain).all()


def test_coarse_masks_alone() -> None:
    model = lively(tiny(point_head=None))
    images, targets = batch(model, [(64, 64)])
    with torch.no_grad():
        found = model.detect(images)
    assert found.masks_NDMM is not None and found.masks_NDMM.shape[-1] == 4
    assert "loss_mask_point" not in model.train().losses(images, targets).terms


def test_the_branch_sees_predicted_boxes_unclipped() -> None:
    model: Any = lively(tiny()).train()
    images, targets = batch(model, [(64, 64), (40, 60)])
    branch, seen = model.roi_heads.branches[0], {}
    losses_of = branch.losses
    branch.losses = lambda maps, regions, *rest: seen.update(regions=regions) or losses_of(maps, regions, *rest)
    model.losses(images, targets)
    boxes = seen["regions"].boxes_NS4[seen["regions"].valid_NS]
    sizes = images.sizes_N2.flip(1).repeat(1, 2).unsqueeze(1).expand_as(seen["regions"].boxes_NS4)[seen["regions"].valid_NS]
    assert not boxes.requires_grad and ((boxes < 0) | (boxes > sizes)).any()


def test_masks_learn_a_diamond() -> None:
    model: Any = lively(tiny())
    images, targets = batch(model, [(64, 64)], truths=3)
    optimizer = torch.optim.Adam(model.roi_heads.mask_head.parameters(), lr=0.003)
    model.train()
    history = []
    for step in range(60):
        losses = model.losses(images, targets, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        (losses.terms["loss_mask"] + losses.terms["loss_mask_point"]).backward()
        optimizer.step()
        history.append(float(losses.terms["loss_mask_point"].detach()))
    assert sum(history[-5:]) < 0.5 * sum(history[:5]), history


def test_truths_without_sizes_are_told_so() -> None:
    model = lively(tiny()).train()
    images, targets = batch(model, [(64, 64)])
    with pytest.raises(ValueError, match=r"targets\.polygons is None"):
        model.losses(images, Targets(targets.boxes_NG4, targets.labels_NG))
    bare = replace(targets, polygons=replace(targets.polygons, sizes_N2=None))  # type: ignore[type-var]
    with pytest.raises(ValueError, match="sizes_N2 is None"):
        model.losses(images, bare)


def test_levels_must_be_the_second_stage_s() -> None:
    with pytest.raises(ConfigError, match=r"roi\.mask\.levels"):
        tiny(levels=("p4",))


def test_several_levels_and_wide_features() -> None:
    """Features of two levels are joined; more channels than the coarse head's are reduced first."""
    model = build_detector(tiny(levels=("p2", "p3"), channels=16), 2)
    names = set(dict(model.named_parameters()))
    assert "roi_heads.mask_head.coarse_head.reduce_channel_dim_conv.weight" in names
    images, targets = batch(model, [(64, 64)], classes=2)
    assert torch.isfinite(model.losses(images, targets).total())


def test_points_in_boxes() -> None:
    boxes = torch.tensor([[10.0, 20, 30, 60]])
    torch.testing.assert_close(
        in_picture(grid_points(2, boxes), boxes)[0], torch.tensor([[15.0, 30], [25, 30], [15, 50], [25, 50]])
    )
