"""Every box loss in every stage that has one; anchors outside the picture; boxes that many classes share."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pipeline.detector.rpn import within
from pipeline.detector.select import Selection
from tests.detector.models import batch, lively, read_config

KINDS = ("smooth_l1", "giou", "diou", "ciou")


def losing(name: str, kind: str) -> Any:
    cfg: Any = read_config(name)
    if name == "retinanet_tiny":
        return replace(cfg, box_loss=replace(cfg.box_loss, kind=kind))
    roi, rpn = (replace(part, box_loss=replace(part.box_loss, kind=kind)) for part in (cfg.roi, cfg.rpn))
    return replace(cfg, roi=roi, rpn=rpn)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["mask_rcnn_tiny", "cascade_mask_rcnn_tiny", "mask_rcnn_c4_tiny", "retinanet_tiny"])
def test_every_loss_teaches_every_regressor(name: str, kind: str) -> None:
    model = lively(losing(name, kind))
    images, targets = batch(model, [(64, 64), (40, 60)])
    losses = model.train().losses(images, targets, torch.Generator().manual_seed(0))
    losses.total().backward()
    assert losses.finite_N.all()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), key
        later = "box_predictor.1" in key or "box_predictor.2" in key  # where a random stage's boxes may match nothing
        if not later and ("bbox_pred.weight" in key or "anchor_deltas.weight" in key):
            assert parameter.grad.abs().sum() > 0, key


def test_anchors_that_reach_outside_are_ignored() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [-1, 0, 5, 5], [0, 0, 20, 10], [0, 0, 19.9, 31], [-2.5, 0, 4, 4]])
    sizes = torch.tensor([[32, 20], [10, 50]])
    for margin in (0.0, 2.0):
        expected = [
            [bool(x1 >= -margin and y1 >= -margin and x2 < w + margin and y2 < h + margin) for x1, y1, x2, y2 in boxes.tolist()]
            for h, w in sizes.tolist()
        ]
        assert within(boxes, sizes, margin).tolist() == expected
    cfg: Any = read_config("faster_rcnn_tiny")
    counted = []
    for boundary in (None, 0.0):
        sample = replace(cfg.rpn.sample, count=100_000, positive_fraction=1.0)
        model = lively(replace(cfg, rpn=replace(cfg.rpn, boundary=boundary, sample=sample)))
        images, targets = batch(model, [(64, 64), (40, 60)])
        counts = model.train().losses(images, targets).counts
        counted.append(float(counts["rpn/num_pos_anchors"] + counts["rpn/num_neg_anchors"]))
        maps = [model.features(images)[level] for level in ("p2", "p3", "p4")]
        anchors = torch.cat(model.proposal_generator.anchors(maps))  # type: ignore[operator, union-attr]
        inside = within(anchors, images.sizes_N2, 0.0).sum() / 2
    assert counted[1] <= float(inside) < counted[0]


def test_many_classes_share_boxes_without_a_matrix_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,203 classes over 300 regions: equal to class by class, and nothing as large as regions x regions x classes."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(1, 300, 1, 2, generator=generator) * 200
    boxes = torch.cat([corner, corner + 20 + torch.rand(1, 300, 1, 2, generator=generator) * 60], dim=3)
    scores = (torch.randperm(300 * 1203, generator=generator) / (300 * 1203)).view(1, 300, 1203)  # no two are equal
    largest = 0
    taken = torch.Tensor.gather

    def gather(self: torch.Tensor, *args: Any) -> torch.Tensor:
        nonlocal largest
        out = taken(self, *args)
        largest = max(largest, out.numel())
        return out

    monkeypatch.setattr(torch.Tensor, "gather", gather)
    found = Selection(0.9, 0.5, 300).per_class(boxes, scores, torch.ones(1, 300, dtype=torch.bool), torch.tensor([True]))
    assert 0 < largest <= 1203 * 300 * 4
    import torchvision

    row, label = torch.nonzero(scores[0] > 0.9).unbind(1)
    kept = torchvision.ops.batched_nms(boxes[0, row, 0], scores[0, row, label], label, 0.5)[:300]
    assert torch.equal(found.labels_ND[0], label[kept])
    torch.testing.assert_close(found.scores_ND[0], scores[0, row, label][kept])
    torch.testing.assert_close(found.boxes_ND4[0], boxes[0, row, 0][kept])
