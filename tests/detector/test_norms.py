"""Norms by name, against their formulas, and where every part of a detector takes them; the backbones' stages and strides."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from pipeline.detector.backbones import BLOCKS, Deform, ResNet
from pipeline.detector.build import build_detector
from pipeline.detector.norms import NORMS, ConvNorm, LevelBatchNorms
from pipeline.errors import ConfigError
from tests.detector.models import batch, lively, read_config


def by_groups(x: torch.Tensor, groups: int, eps: float) -> torch.Tensor:
    flat = x.reshape(len(x), groups, -1)
    mean, var = flat.mean(2, keepdim=True), flat.var(2, correction=0, keepdim=True)
    return ((flat - mean) / (var + eps).sqrt()).view_as(x)


def test_norms_are_their_formulas() -> None:
    x = torch.randn(2, 64, 5, 6, generator=torch.Generator().manual_seed(0)) * 3 + 1
    torch.testing.assert_close(NORMS["group"](64)(x), by_groups(x, 32, 1e-5))
    cells = x.permute(0, 2, 3, 1).reshape(-1, 64)
    expected = by_groups(cells, 1, 1e-6).view(2, 5, 6, 64).permute(0, 3, 1, 2)
    torch.testing.assert_close(NORMS["layer"](64)(x), expected, rtol=1e-4, atol=1e-5)
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    for name in ("batch", "sync"):
        torch.testing.assert_close(NORMS[name](64).train()(x), (x - mean) / (var + 1e-5).sqrt())
    assert NORMS["frozen"](64)(x).equal(x / (1 + 1e-5) ** 0.5) or torch.allclose(NORMS["frozen"](64)(x), x)
    with pytest.raises(ConfigError, match="multiples of 32; one layer has 48"):
        NORMS["group"](48)


def test_a_norm_of_several_levels_keeps_their_statistics_apart() -> None:
    norm = LevelBatchNorms(2, 4, nn.BatchNorm2d).train()
    norm(torch.full((1, 4, 3, 3), 2.0), 0)
    norm(torch.full((1, 4, 3, 3), -6.0), 1)
    assert norm[0].running_mean.tolist() == pytest.approx([0.2] * 4) and norm[1].running_mean.tolist() == pytest.approx(
        [-0.6] * 4
    )
    names = set(norm.state_dict())
    assert {"weight", "bias", "0.running_mean", "1.running_var"} <= names and "0.weight" not in names


def test_a_bias_only_without_a_norm() -> None:
    assert ConvNorm(4, 4, 3, "none").bias is not None and ConvNorm(4, 4, 3, "none").norm is None
    assert ConvNorm(4, 4, 3, "batch").bias is None


PLACES = {
    "fpn": ("mask_rcnn_tiny", "backbone.fpn_lateral2.norm.weight"),
    "box": ("mask_rcnn_tiny", "roi_heads.box_head.conv1.norm.weight"),
    "mask": ("mask_rcnn_tiny", "roi_heads.mask_head.mask_fcn1.norm.weight"),
    "retina": ("retinanet_tiny", "head.cls_subnet.1.weight"),
    "cascade": ("cascade_mask_rcnn_tiny", "roi_heads.box_head.2.conv1.norm.weight"),
}


def normed(place: str, norm: str) -> Any:
    cfg: Any = read_config(PLACES[place][0])
    if place == "fpn":
        return replace(cfg, fpn=replace(cfg.fpn, norm=norm))
    if place == "retina":
        return replace(cfg, head=replace(cfg.head, norm=norm))
    if place == "mask":
        return replace(cfg, roi=replace(cfg.roi, mask=replace(cfg.roi.mask, norm=norm)))
    return replace(cfg, roi=replace(cfg.roi, head=replace(cfg.roi.head, norm=norm, convs=1, conv_channels=32)))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("norm", ["group", "sync"])
def test_every_part_takes_its_norm_under_the_references_name(place: str, norm: str) -> None:
    model = lively(normed(place, norm))
    names = dict(model.named_parameters())
    assert PLACES[place][1] in names
    conv = PLACES[place][1].replace(".norm.weight", "").replace("subnet.1.weight", "subnet.0")
    assert (f"{conv}.bias" in names) == (place == "retina"), "RetinaNet's towers keep their biases beside a norm"
    images, targets = batch(model, [(64, 64), (40, 60)])
    model.train()
    model.losses(images, targets, torch.Generator().manual_seed(0)).total().backward()
    assert names[PLACES[place][1]].grad.abs().sum() > 0


@pytest.mark.parametrize("norm", ["group", "layer", "sync", "batch", "affine"])
def test_frozen_stages_have_constant_batch_norms_and_keep_others(norm: Any) -> None:
    settings = {"stride_in_1x1": False, "groups": 1, "width_per_group": 32, "stem_channels": 32, "res2_channels": 32}
    resnet = ResNet(18, ("res2", "res3"), norm=norm, freeze_at=2, **settings)
    frozen, free = resnet.res2[0].conv1.norm, resnet.res3[0].conv1.norm
    kept = norm in ("group", "layer")
    assert type(frozen) is type(NORMS[norm if kept else "frozen"](32)) and type(free) is type(NORMS[norm](64))
    assert not any(parameter.requires_grad for part in (resnet.stem, resnet.res2) for parameter in part.parameters())
    assert all(parameter.requires_grad for parameter in resnet.res3.parameters())


@pytest.mark.parametrize("depth", BLOCKS)
def test_depths_have_their_blocks_strides_and_channels(depth: int) -> None:
    """Convolutions with weights, the stem and shortcuts aside, are as many as the paper's table 1 counts."""
    settings = {"stride_in_1x1": False, "groups": 1, "width_per_group": 4, "stem_channels": 8}
    with torch.device("meta"):
        resnet = ResNet(
            depth, ("res2", "res3", "res4", "res5"), norm="batch", freeze_at=0, res2_channels=8 if depth < 50 else 16, **settings
        )
    convs = [name for name, m in resnet.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
    assert len(convs) == depth - 1  # the table's last layer is the classifier
    assert resnet.strides == (4, 8, 16, 32) and resnet.channels == tuple((8 if depth < 50 else 16) * 2**i for i in range(4))


def test_a_resnext_block_has_groups_and_a_deformable_one_offsets() -> None:
    settings = {"stride_in_1x1": False, "stem_channels": 8, "res2_channels": 64}
    deform = (None, Deform(modulated=True, groups=2), None, None)
    resnet = ResNet(50, ("res2", "res3"), norm="batch", freeze_at=0, groups=4, width_per_group=4, deform=deform, **settings)
    assert resnet.res2[0].conv2.weight.shape == (16, 4, 3, 3)
    assert resnet.res3[0].conv2_offset.weight.shape == (2 * 9 * 3, 32, 3, 3) and resnet.res3[0].conv2.weight.shape == (
        32,
        8,
        3,
        3,
    )
    assert not resnet.res3[0].conv2_offset.weight.any(), "it starts as a plain convolution whose taps all weigh one half"
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    resnet.eval()
    block, inputs = resnet.res3[0], resnet.res2(resnet.stem(x))
    hidden = block.conv1(inputs)
    plain = torch.nn.functional.conv2d(hidden, block.conv2.weight, None, 2, 1, 1, 4) / 2
    moves = block.conv2_offset(hidden)
    torch.testing.assert_close(
        block.conv2(hidden, moves[:, :36], moves[:, 36:].sigmoid()), block.conv2.norm(plain).relu(), rtol=1e-4, atol=1e-5
    )


def test_settings_of_basic_blocks_refuse_what_they_cannot() -> None:
    cfg: Any = read_config("mask_rcnn_dconv_tiny")
    with pytest.raises(ConfigError, match="needs bottlenecks: depth 18"):
        replace(cfg.backbone, depth=18)
    with pytest.raises(ConfigError, match="multiples of 32"):
        build_detector(replace(cfg, backbone=replace(cfg.backbone, norm="group")), 3)
