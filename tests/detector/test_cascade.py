"""The cascade against its description, one picture and one stage after the other in plain torch and torchvision."""

from dataclasses import replace
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from pipeline.detector.part import WHOLE as PART
from tests.detector.models import batch, lively, read_config

WEIGHTS = ((10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0))
IOUS = (0.5, 0.6, 0.7)


def cascade() -> Any:
    cfg: Any = read_config("cascade_mask_rcnn_tiny")
    sample = replace(cfg.roi.sample, order="first", count=1000, positive_fraction=1.0)
    return lively(replace(cfg, roi=replace(cfg.roi, sample=sample)))


def stage(model: Any, features: dict[str, Tensor], boxes_K4: Tensor, image: int, number: int) -> tuple[Tensor, Tensor]:
    """Logits and deltas of one stage for boxes of one picture."""
    level_K = torch.floor(3 + torch.log2((boxes_K4[:, 2:] - boxes_K4[:, :2]).prod(1).sqrt() / 32 + 1e-8)).clamp(2, 3)
    regions = torch.zeros(len(boxes_K4), 32, 5, 5)
    for level in (2, 3):
        mine = level_K == level
        rois = [boxes_K4[mine]]
        regions[mine] = torchvision.ops.roi_align(features[f"p{level}"][image : image + 1], rois, 5, 2.0**-level, 2, aligned=True)
    head, predictor = model.roi_heads.box_head[number], model.roi_heads.box_predictor[number]
    hidden = functional.relu(head.fc1(regions.flatten(1)))
    return predictor.cls_score(hidden), predictor.bbox_pred(hidden)


def moved(boxes_K4: Tensor, deltas_K4: Tensor, weights: tuple[float, ...], size: tuple[int, int]) -> Tensor:
    out = []
    for box, delta in zip(boxes_K4.tolist(), deltas_K4.tolist(), strict=True):
        width, height = box[2] - box[0], box[3] - box[1]
        x, y = (box[0] + box[2]) / 2 + delta[0] / weights[0] * width, (box[1] + box[3]) / 2 + delta[1] / weights[1] * height
        limit = torch.tensor(1000 / 16).log()
        grow = torch.tensor([delta[2] / weights[2], delta[3] / weights[3]]).clamp(max=limit).exp()
        width, height = width * float(grow[0]), height * float(grow[1])
        out.append([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    boxes = torch.tensor(out).reshape(-1, 4)
    return torchvision.ops.clip_boxes_to_image(boxes, size)


def test_detections_are_the_mean_of_the_stages_over_the_last_stages_boxes() -> None:
    model = cascade()
    images, _ = batch(model, [(64, 64), (40, 60)])
    with torch.no_grad():
        features, found = model.features(images), model.detect(images)
        proposals = model.proposal_generator.detect(features, images.sizes_N2)
        for n, size in enumerate(images.sizes_N2.tolist()):
            boxes, scores = proposals.boxes_NP4[n][proposals.valid_NP[n]], []
            for number in range(3):
                logits, deltas = stage(model, features, boxes, n, number)
                scores.append(logits.softmax(1))
                boxes = moved(boxes, deltas, WEIGHTS[number], tuple(size))
            mean = torch.stack(scores).mean(0)[:, :-1]
            row, label = torch.nonzero(mean > 0.05).unbind(1)
            kept = torchvision.ops.batched_nms(boxes[row], mean[row, label], label, 0.5)[:50]
            count = int(found.count_N[n])
            assert count == len(kept) > 3
            torch.testing.assert_close(found.scores_ND[n, :count], mean[row, label][kept], rtol=0, atol=1e-5)
            torch.testing.assert_close(found.boxes_ND4[n, :count], boxes[row][kept], rtol=0, atol=2e-3)


def test_losses_of_every_stage() -> None:
    """Stage k learns from stage k-1's own boxes, matched anew at its IoU; boxes without area are left out."""
    model = cascade().train()
    images, targets = batch(model, [(64, 64), (40, 60)])
    features = model.features(images)
    proposals, _ = model.proposal_generator.losses(features, images.sizes_N2, targets, None, PART)
    losses = model.roi_heads.losses(features, proposals, targets, None, PART)
    drawn = [
        torch.cat([proposals.boxes_NP4[n][proposals.valid_NP[n]], targets.boxes_NG4[n][targets.labels_NG[n] >= 0]])
        for n in range(2)
    ]
    for number in range(3):
        class_sum, box_sum, count = 0.0, 0.0, 0
        for n, size in enumerate(images.sizes_N2.tolist()):
            real = targets.labels_NG[n] >= 0
            truths, labels = targets.boxes_NG4[n][real], targets.labels_NG[n][real]
            if number:
                drawn[n] = drawn[n][((drawn[n][:, 2:] - drawn[n][:, :2]) > 0).all(1)]
            best, match = torchvision.ops.box_iou(drawn[n], truths).max(1)
            wanted = torch.where(best >= IOUS[number], labels[match], 3)
            logits, deltas = stage(model, features, drawn[n], n, number)
            class_sum += float(functional.cross_entropy(logits, wanted, reduction="sum"))
            source, truth = drawn[n][wanted < 3], truths[match][wanted < 3]
            box_sum += float((deltas[wanted < 3] - encoded(source, truth, WEIGHTS[number])).abs().sum())
            count += len(wanted)
            with torch.no_grad():
                drawn[n] = moved(drawn[n], deltas, WEIGHTS[number], tuple(size))
        torch.testing.assert_close(float(losses.terms[f"loss_cls_stage{number}"]), class_sum / count, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(float(losses.terms[f"loss_box_reg_stage{number}"]), box_sum / count, rtol=1e-3, atol=1e-4)


def encoded(source: Tensor, truth: Tensor, weights: tuple[float, ...]) -> Tensor:
    size, wanted = source[:, 2:] - source[:, :2], truth[:, 2:] - truth[:, :2]
    shift = ((truth[:, :2] + truth[:, 2:]) - (source[:, :2] + source[:, 2:])) / 2 / size
    return torch.cat([shift, torch.log(wanted / size)], 1) * torch.tensor(weights)


def test_the_features_get_a_third_of_the_gradient_and_the_heads_all_of_it() -> None:
    model = cascade().train()
    images, targets = batch(model, [(64, 64), (40, 60)])
    features = {name: value.detach().requires_grad_() for name, value in model.features(images).items()}
    with torch.no_grad():
        proposals, _ = model.proposal_generator.losses(features, images.sizes_N2, targets, None, PART)
    heads = model.roi_heads
    heads.branches = ()
    term = heads.losses(features, proposals, targets, None, PART).terms["loss_cls_stage0"]
    scaled = torch.autograd.grad(term, [features["p2"], heads.box_head[0].fc1.weight])
    heads.stages = heads.stages[:1]
    term = heads.losses(features, proposals, targets, None, PART).terms["loss_cls_stage0"]
    whole = torch.autograd.grad(term, [features["p2"], heads.box_head[0].fc1.weight])
    torch.testing.assert_close(scaled[0] * 3, whole[0])
    torch.testing.assert_close(scaled[1], whole[1])


def test_a_box_that_is_no_number_is_dropped_and_flagged() -> None:
    model = cascade()
    images, _ = batch(model, [(64, 64), (40, 60)])
    with torch.no_grad():
        model.roi_heads.box_predictor[0].bbox_pred.bias.fill_(float("nan"))
        found = model.detect(images)
    assert not found.finite_N.any() and not found.count_N.any()
