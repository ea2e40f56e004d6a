"""C4 and DC5 against a slow reference: one picture at a time, unpadded, plain functions and torchvision's operators.

The reference reads the weights by their names in Detectron2's checkpoints, which thereby are tested too.
"""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional

from pipeline.detector.part import WHOLE
from pipeline.detector.pretrained.backbone import load_pretrained
from pipeline.errors import ConfigError, DataError
from tests.detector.models import batch, lively, read_config

Weights = dict[str, Tensor]


def c4(**changes: Any) -> Any:
    cfg: Any = read_config("mask_rcnn_c4_tiny")
    backbone = replace(cfg.backbone, norm="frozen", depth=50, res2_channels=32)
    sample = replace(cfg.roi.sample, order="first", count=1000, positive_fraction=1.0)
    return replace(cfg, backbone=backbone, roi=replace(cfg.roi, sample=sample, **changes))


def conv(w: Weights, name: str, x: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1, relu: bool = False) -> Tensor:
    x = functional.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), stride, padding, dilation)
    if f"{name}.norm.weight" in w:
        keys = ("weight", "bias", "running_mean", "running_var")
        scale, shift, mean, var = (w[f"{name}.norm.{key}"].view(1, -1, 1, 1) for key in keys)
        x = (x - mean) / torch.sqrt(var + 1e-5) * scale + shift
    return x.relu() if relu else x


def block(w: Weights, name: str, x: Tensor, stride: int, dilation: int = 1) -> Tensor:
    short = conv(w, f"{name}.shortcut", x, stride) if f"{name}.shortcut.weight" in w else x
    y = conv(w, f"{name}.conv1", x, relu=True)
    y = conv(w, f"{name}.conv2", y, stride, dilation, dilation, relu=True)
    return (conv(w, f"{name}.conv3", y) + short).relu()


def stage(w: Weights, name: str, x: Tensor, stride: int, dilation: int = 1) -> Tensor:
    number = 0
    while f"{name}.{number}.conv1.weight" in w:
        x = block(w, f"{name}.{number}", x, stride if number == 0 else 1, dilation)
        number += 1
    return x


def features(w: Weights, pixels: Tensor, last: str = "res4", dilation: int = 1) -> Tensor:
    x = conv(w, "backbone.stem.conv1", (pixels.float() - 127) / 64, 2, 3, relu=True)
    x = functional.max_pool2d(x, 3, 2, 1)
    for name, stride in (("res2", 1), ("res3", 2), ("res4", 2), ("res5", 1)):
        x = stage(w, f"backbone.{name}", x, stride, dilation if name == "res5" else 1)
        if name == last:
            return x
    raise AssertionError(last)


def decode(deltas: Tensor, boxes: Tensor, weights: tuple[float, ...]) -> Tensor:
    size, centre = boxes[:, 2:] - boxes[:, :2], (boxes[:, 2:] + boxes[:, :2]) / 2
    d = deltas / torch.tensor(weights)
    centre, size = centre + d[:, :2] * size, size * d[:, 2:].clamp(max=math.log(1000 / 16)).exp()
    return torch.cat([centre - size / 2, centre + size / 2], 1)


def proposals(w: Weights, x: Tensor, size: tuple[int, int], before: int, after: int) -> Tensor:
    y = conv(w, "proposal_generator.rpn_head.conv", x, padding=1, relu=True)
    logits = conv(w, "proposal_generator.rpn_head.objectness_logits", y)[0].permute(1, 2, 0).reshape(-1)
    deltas = conv(w, "proposal_generator.rpn_head.anchor_deltas", y)[0]
    rows, columns = deltas.shape[1:]
    deltas = deltas.reshape(9, 4, rows, columns).permute(2, 3, 0, 1).reshape(-1, 4)
    anchors = []
    for i in range(rows):
        for j in range(columns):
            for side in (12, 24, 48):
                for ratio in (0.5, 1.0, 2.0):
                    width = side / math.sqrt(ratio)
                    height = side * math.sqrt(ratio)
                    cx, cy = (j + 0.5) * 16, (i + 0.5) * 16
                    anchors.append([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])
    best = logits.topk(min(before, len(logits))).indices
    boxes = torchvision.ops.clip_boxes_to_image(decode(deltas[best], torch.tensor(anchors)[best], (1.0,) * 4), size)
    real = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    boxes, scores = boxes[real], logits[best][real]
    return boxes[torchvision.ops.nms(boxes, scores, 0.7)[:after]]


def regions(w: Weights, x: Tensor, boxes: Tensor) -> Tensor:
    return stage(w, "roi_heads.res5", torchvision.ops.roi_align(x, [boxes], 8, 1 / 16, 2, aligned=True), 2)


def predicted(w: Weights, regions_: Tensor) -> tuple[Tensor, Tensor]:
    mean = regions_.mean((2, 3))
    name = "roi_heads.box_predictor"
    scores = functional.linear(mean, w[f"{name}.cls_score.weight"], w[f"{name}.cls_score.bias"])
    return scores, functional.linear(mean, w[f"{name}.bbox_pred.weight"], w[f"{name}.bbox_pred.bias"]).view(len(mean), -1, 4)


def mask_logits(w: Weights, regions_: Tensor) -> Tensor:
    y = conv(w, "roi_heads.mask_head.mask_fcn1", regions_, padding=1, relu=True)
    name = "roi_heads.mask_head.deconv"
    y = functional.conv_transpose2d(y, w[f"{name}.weight"], w[f"{name}.bias"], stride=2).relu()
    return conv(w, "roi_heads.mask_head.predictor", y)


def lively_weights(model: Any) -> Weights:
    """Norms with statistics, so that a wrong one shows."""
    generator = torch.Generator().manual_seed(5)
    for name, value in model.state_dict().items():
        if name.endswith((".norm.weight", "running_var")):
            value.copy_(torch.rand(value.shape, generator=generator) * 0.5 + 0.6)
        elif name.endswith((".norm.bias", "running_mean")):
            value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
    return model.state_dict()


@pytest.mark.parametrize("size", [(64, 64), (61, 83), (50, 33)])
def test_a_picture_of_any_size_without_padding(size: tuple[int, int]) -> None:
    model = lively(c4())
    assert model.divisor == 1
    w = lively_weights(model)
    images, _ = batch(model, [size])
    assert images.pixels_N3HW.shape[2:] == size
    with torch.no_grad():
        found, x = model.detect(images), features(w, images.pixels_N3HW)
        torch.testing.assert_close(model.features(images)["res4"], x, rtol=1e-4, atol=1e-4)
        boxes = proposals(w, x, size, 100, 40)
        logits, deltas = predicted(w, regions(w, x, boxes))
        moved = torch.stack([decode(deltas[:, k], boxes, (10.0, 10.0, 5.0, 5.0)) for k in range(3)], 1)
        moved = torchvision.ops.clip_boxes_to_image(moved.reshape(-1, 4), size).view(-1, 3, 4)
        scores = logits.softmax(1)[:, :3]
        row, label = torch.nonzero(scores > 0.05).unbind(1)
        kept = torchvision.ops.batched_nms(moved[row, label], scores[row, label], label, 0.5)[:50]
        count = int(found.count_N[0])
        assert count == len(kept) > 5
        torch.testing.assert_close(found.scores_ND[0, :count], scores[row, label][kept], rtol=0, atol=1e-4)
        torch.testing.assert_close(found.boxes_ND4[0, :count], moved[row, label][kept], rtol=0, atol=5e-3)
        masks = mask_logits(w, regions(w, x, found.boxes_ND4[0, :count])).sigmoid()
        own = masks[torch.arange(count), found.labels_ND[0, :count]]
        torch.testing.assert_close(found.masks_NDMM[0, :count], own, rtol=0, atol=1e-4)


@pytest.mark.parametrize("train_on_predicted", [False, True])
def test_losses_of_two_pictures(train_on_predicted: bool) -> None:
    model = lively(c4(train_on_predicted=train_on_predicted)).train()
    w = lively_weights(model)
    images, targets = batch(model, [(64, 64), (64, 64)])
    with torch.no_grad():
        given, _ = model.proposal_generator.losses(model.features(images), images.sizes_N2, targets, None, WHOLE)
        losses = model.roi_heads.losses(model.features(images), given, targets, None, WHOLE)
        class_sum, box_sum, count, mask_boxes = 0.0, 0.0, 0, []
        for n in range(2):
            x = features(w, images.pixels_N3HW[n : n + 1])
            expected = proposals(w, x, (64, 64), 200, 60)
            torch.testing.assert_close(given.boxes_NP4[n][given.valid_NP[n]], expected, rtol=0, atol=2e-3)
            real = targets.labels_NG[n] >= 0
            truths, labels = targets.boxes_NG4[n][real], targets.labels_NG[n][real]
            boxes = torch.cat([given.boxes_NP4[n][given.valid_NP[n]], truths])
            best, match = torchvision.ops.box_iou(boxes, truths).max(1)
            wanted = torch.where(best >= 0.5, labels[match], 3)
            logits, deltas = predicted(w, regions(w, x, boxes))
            class_sum += float(functional.cross_entropy(logits, wanted, reduction="sum"))
            positive = wanted < 3
            own = deltas[positive, wanted[positive]]
            source, truth = boxes[positive], truths[match][positive]
            size = source[:, 2:] - source[:, :2]
            shift = ((truth[:, :2] + truth[:, 2:]) - (source[:, :2] + source[:, 2:])) / 2 / size
            aim = torch.cat([shift, ((truth[:, 2:] - truth[:, :2]) / size).log()], 1) * torch.tensor([10.0, 10, 5, 5])
            box_sum += float((own - aim).abs().sum())
            count += len(wanted)
            mask_boxes.append(decode(own, source, (10.0, 10.0, 5.0, 5.0)) if train_on_predicted else source)
        torch.testing.assert_close(float(losses.terms["loss_cls"]), class_sum / count, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(float(losses.terms["loss_box_reg"]), box_sum / count, rtol=1e-4, atol=1e-4)
        # The mask loss from the reference's logits and the head's own targets: what is new in C4 is where the features come from.
        seen: list[Tensor] = []
        model.roi_heads.mask_head.predictor.register_forward_hook(lambda module, inputs, output: seen.append(output))
        model.roi_heads.losses(model.features(images), given, targets, None, WHOLE)
        rows = []
        for n in range(2):
            x = features(w, images.pixels_N3HW[n : n + 1])
            rows.append(mask_logits(w, regions(w, x, mask_boxes[n])))
        wanted_rows = torch.cat(rows)
        distance = (seen[0].unsqueeze(1) - wanted_rows.unsqueeze(0)).abs().flatten(2).amax(2).amin(1)
        assert len(seen[0]) == len(wanted_rows) and float(distance.max()) < 1e-3


def test_a_padded_picture_sees_what_padding_it_itself_gives() -> None:
    """A smaller picture of a batch is padded with zeros after normalisation, as the reference pads a batch."""
    model = lively(c4())
    w = lively_weights(model)
    images, _ = batch(model, [(70, 64), (41, 50)])
    with torch.no_grad():
        own = images.pixels_N3HW[1:, :, :41, :50].float()
        padded = functional.pad((own - 127) / 64, (0, 64 - 50, 0, 70 - 41)) * 64 + 127
        torch.testing.assert_close(model.features(images)["res4"][1:], features(w, padded), rtol=1e-4, atol=1e-4)


def test_dc5_keeps_the_stride_of_res4() -> None:
    cfg = c4()
    backbone = replace(cfg.backbone, res5_dilation=2)
    head: Any = read_config("faster_rcnn_tiny")
    roi = replace(cfg.roi, levels=("res5",), head=head.roi.head, mask=None)
    cfg = replace(cfg, backbone=backbone, rpn=replace(cfg.rpn, levels=("res5",)), roi=roi)
    model = lively(cfg)
    w = lively_weights(model)
    images, _ = batch(model, [(61, 83)])
    with torch.no_grad():
        x = features(w, images.pixels_N3HW, "res5", dilation=2)
        torch.testing.assert_close(model.features(images)["res5"], x, rtol=1e-3, atol=1e-4)
        found = model.proposal_generator.detect(model.features(images), images.sizes_N2)
        expected = proposals(w, x, (61, 83), 100, 40)
        torch.testing.assert_close(found.boxes_NP4[found.valid_NP], expected, rtol=0, atol=5e-3)
        pooled = torchvision.ops.roi_align(x, [expected], 8, 1 / 16, 2, aligned=True)
        hidden = functional.linear(pooled.flatten(1), w["roi_heads.box_head.fc1.weight"], w["roi_heads.box_head.fc1.bias"])
        logits = functional.linear(
            hidden.relu(), w["roi_heads.box_predictor.cls_score.weight"], w["roi_heads.box_predictor.cls_score.bias"]
        )
        best = float(logits.softmax(1)[:, :3].max())
        assert float(model.detect(images).scores_ND.max()) == pytest.approx(best, abs=1e-3)


def test_pretrained_stages_fill_the_backbone_and_the_second_stage(tmp_path: Any) -> None:
    cfg = c4()
    model, donor = lively(cfg), lively(cfg, seed=3)
    state = {name.removeprefix("backbone."): value for name, value in donor.state_dict().items() if name.startswith("backbone.")}
    state |= {name.removeprefix("roi_heads."): value for name, value in donor.state_dict().items() if ".res5." in name}
    torch.save(state, tmp_path / "r50.pth")
    cfg = replace(cfg, backbone=replace(cfg.backbone, weights=str(tmp_path / "r50.pth")))
    load_pretrained(model, cfg)
    for name in ("backbone.res4.0.conv1.weight", "roi_heads.res5.2.conv3.weight"):
        assert torch.equal(model.state_dict()[name], donor.state_dict()[name])
    torch.save({name: value for name, value in state.items() if not name.startswith("res5.")}, tmp_path / "r50.pth")
    with pytest.raises(DataError, match=r"missing: res5\.0\.conv1\.weight"):
        load_pretrained(model, cfg)


def test_held_statistics_and_eps_reach_the_second_stage() -> None:
    cfg = c4()
    model: Any = lively(replace(cfg, backbone=replace(cfg.backbone, norm="affine", norm_eps=1e-3))).train()
    for norm in (model.roi_heads.res5[0].conv1.norm, model.backbone.res4[0].conv1.norm):
        assert not norm.training and norm.weight.requires_grad and norm.eps == 1e-3
    assert lively(replace(cfg, backbone=replace(cfg.backbone, norm="batch"))).train().roi_heads.res5[0].conv1.norm.training


def test_the_proposal_network_alone_does_without_a_pyramid() -> None:
    cfg, alone = c4(), read_config("rpn_tiny")
    model: Any = lively(replace(alone, backbone=cfg.backbone, fpn=None, anchors=cfg.anchors, rpn=cfg.rpn))
    w = lively_weights(model)
    images, _ = batch(model, [(61, 83)])
    with torch.no_grad():
        found = model.detect(images)
        expected = proposals(w, features(w, images.pixels_N3HW), (61, 83), 100, 40)
    torch.testing.assert_close(found.boxes_ND4[0, : int(found.count_N[0])], expected, rtol=0, atol=5e-3)


def test_settings_that_do_not_fit_are_named() -> None:
    cfg = c4()
    with pytest.raises(ConfigError, match=r"roi\.levels"):
        replace(cfg, roi=replace(cfg.roi, levels=("res3",)))
    with pytest.raises(ConfigError, match=r"roi\.mask\.pooler"):
        replace(cfg.roi, mask=replace(cfg.roi.mask, pooler=cfg.roi.pooler))
    with pytest.raises(ConfigError, match=r"must be consecutive stages"):
        replace(cfg, rpn=replace(cfg.rpn, levels=("p4",)))
