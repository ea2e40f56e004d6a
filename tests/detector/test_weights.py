"""Saving, loading and pretrained weights: exact round trips, and errors that list every parameter that does not fit."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.detector.build import build_detector
from pipeline.detector.config import ModelConfig
from pipeline.detector.pretrained.backbone import load_pretrained
from pipeline.detector.pretrained.detectron2.translate import translate
from pipeline.detector.settings.backbones import TimmConfig
from pipeline.detector.weights import load_detector, load_transient_buffers, load_weights, save_detector, transient_buffers
from pipeline.errors import ConfigError, DataError
from tests.detector.models import CONF, batch, lively, read_config, tiny_one_stage, tiny_two_stage

CATEGORIES: Any = [{"id": 1, "name": "disc"}, {"id": 5, "name": "ring"}, {"id": 9, "name": "bar"}]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detector")
    save_detector(folder, lively(tiny_two_stage()), tiny_two_stage(), CATEGORIES)
    return folder


def test_round_trip(saved: Path) -> None:
    model, loaded = lively(tiny_two_stage()), load_detector(saved)
    assert loaded.cfg == tiny_two_stage() and loaded.categories == CATEGORIES and not loaded.model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name
    images, _ = batch(model, [(64, 64)])
    assert torch.equal(model.detect(images).boxes_ND4, loaded.model.detect(images).boxes_ND4)
    assert sorted(os.listdir(saved)) == ["model.json", "weights.safetensors"]


def test_every_misfit_is_listed(saved: Path, tmp_path: Path) -> None:
    state = load_file(saved / "weights.safetensors")
    state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(7, 64)
    state["roi_heads.stranger"] = torch.zeros(3)
    del state["proposal_generator.rpn_head.conv.bias"]
    save_file(state, tmp_path / "weights.safetensors")
    (tmp_path / "model.json").write_bytes((saved / "model.json").read_bytes())
    with pytest.raises(DataError) as error:
        load_detector(tmp_path)
    lines = str(error.value).splitlines()
    assert lines[0] == f"{tmp_path / 'weights.safetensors'}: 3 parameters do not fit this model"
    assert lines[1:] == [
        "  missing: proposal_generator.rpn_head.conv.bias [32]",
        "  unexpected: roi_heads.stranger [3]",
        "  wrong shape: roi_heads.box_predictor.cls_score.weight is [7, 64] in the file, [4, 64] in the model",
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.json", b"{", "not valid JSON"),
        ("model.json", b"{}", "holds no detector"),
        ("weights.safetensors", b"pickle?", "not a safetensors file"),
        ("weights.safetensors", None, "no such file"),
    ],
)
def test_broken_files_are_named(saved: Path, tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    for name in ("model.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((saved / name).read_bytes())
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_detector(tmp_path)
    assert str(tmp_path / file) in str(error.value)


def test_an_unknown_setting_in_model_json_is_named(saved: Path, tmp_path: Path) -> None:
    settings = json.loads((saved / "model.json").read_bytes())
    settings["model"]["fpn"]["flavour"] = 1
    (tmp_path / "model.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="flavour"):
        load_detector(tmp_path)


def test_transient_buffers_carry_the_running_mean() -> None:
    first, second = lively(tiny_one_stage()), lively(tiny_one_stage())
    first.train()
    first.losses(*batch(first, [(64, 64)]))
    kept = {name: value.clone() for name, value in transient_buffers(first).items()}
    assert "normaliser" in kept and "normaliser" not in first.state_dict() and float(kept["normaliser"]) != 100
    load_transient_buffers(second, kept)
    assert torch.equal(transient_buffers(second)["normaliser"], kept["normaliser"])


def test_lite0_weights_are_loaded_and_fixed() -> None:
    cfg = read_config("faster_rcnn_lite0_fpn")
    model = build_detector(cfg, 3)
    before = {name: value.clone() for name, value in model.backbone.bottom_up.state_dict().items()}
    report = load_pretrained(model, cfg)
    assert report is not None and report.loaded == 288 and len(report.unused) == 8
    after = model.backbone.bottom_up.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(changed) > 200
    # ImageNet features tell structure from noise: the published mean and variance must fit the prescribed input scaling
    model.train()
    assert not model.backbone.bottom_up.bn1.training, "statistics of pretrained norms stay fixed"  # type: ignore[union-attr]
    assert all(n.startswith("backbone.bottom_up.") for n, _ in model.named_parameters() if "blocks." in n)


def test_backbone_weights_from_a_file(tmp_path: Path) -> None:
    cfg = tiny_two_stage()
    source, target = lively(cfg, seed=1), build_detector(cfg, 5)
    torch.save(source.backbone.bottom_up.state_dict(), tmp_path / "backbone.pth")
    cfg = replace(cfg, backbone=replace(cfg.backbone, weights=str(tmp_path / "backbone.pth")))
    load_pretrained(target, cfg)
    for name, value in source.backbone.bottom_up.state_dict().items():
        assert torch.equal(value, target.backbone.bottom_up.state_dict()[name])


def test_unknown_weights_are_refused() -> None:
    cfg = tiny_two_stage()
    cfg = replace(cfg, backbone=replace(cfg.backbone, weights="imagenet"))
    with pytest.raises(ConfigError, match=r"model\.backbone\.weights='imagenet'.*efficientnet_lite0"):
        load_pretrained(build_detector(cfg, 2), cfg)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONF.glob("*.yaml")))
def test_every_config_is_valid_and_survives_json(name: str) -> None:
    import pydantic

    cfg = read_config(name)
    assert pydantic.TypeAdapter(ModelConfig).validate_python(json.loads(json.dumps(asdict(cfg)))) == cfg


@pytest.mark.parametrize("norm", ["frozen", "affine", "batch"])
def test_norms_of_a_resnet(norm: Any) -> None:
    cfg = tiny_two_stage()
    model = build_detector(replace(cfg, backbone=replace(cfg.backbone, norm=norm, freeze_at=1)), 2).train()
    norms = {n: m for n, m in model.named_modules() if n.endswith(".norm")}
    trained = {n for n, p in model.named_parameters() if p.requires_grad and ".norm." in n}
    assert not any(n.startswith("backbone.bottom_up.stem") for n in trained), "the stem is frozen"
    assert bool(trained) == (norm != "frozen")
    later = [m for n, m in norms.items() if "res3" in n]
    if norm != "frozen":
        assert all(m.training == (norm == "batch") for m in later)
    x = torch.rand(2, 3, 32, 32)
    mean = {n: b.clone() for n, b in model.named_buffers() if n.endswith("running_mean")}
    model.backbone(x)
    moved = [n for n, b in model.named_buffers() if n.endswith("running_mean") and not torch.equal(b, mean[n])]
    assert bool(moved) == (norm == "batch") and not any("stem" in n for n in moved)


def test_folded_frozen_norm_equals_the_layer() -> None:
    from pipeline.detector.norms import ConvNorm

    torch.manual_seed(0)
    layer = ConvNorm(3, 8, 3, "frozen", stride=2)
    for buffer in (layer.norm.weight, layer.norm.bias, layer.norm.running_mean, layer.norm.running_var):  # type: ignore[union-attr]
        buffer.copy_(torch.rand(8) + 0.5)  # type: ignore[operator]
    x = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(layer.train()(x), layer.eval()(x), rtol=1e-5, atol=1e-6)


def test_timm_backbones() -> None:
    cfg = tiny_two_stage()
    timm = replace(cfg, backbone=TimmConfig(kind="timm", name="test_resnet", norm="frozen", freeze_at=2, weights=None))
    model = build_detector(timm, 2).train()
    images, targets = batch(model, [(64, 64)], classes=2)
    losses = model.losses(images, targets).total()
    assert torch.isfinite(losses)
    losses.backward()
    trained = {name for name, parameter in model.backbone.bottom_up.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith(("conv1.", "layer1.")) for name in trained), "the stem and stride 4 are frozen"
    assert any(name.startswith("layer2.") for name in trained)
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with pytest.raises(ConfigError, match=r"test_resnat.*Did you mean test_resnet"):
        build_detector(replace(cfg, backbone=replace(timm.backbone, name="test_resnat")), 2)
    with pytest.raises(ConfigError, match="stride"):
        build_detector(replace(cfg, backbone=replace(timm.backbone, name="test_vit")), 2)


def test_config_errors_name_the_field() -> None:
    cfg = tiny_two_stage()
    with pytest.raises(ConfigError, match=r"model\.rpn\.levels.*which has p2, p3, p4"):
        replace(cfg, rpn=replace(cfg.rpn, levels=("p2", "p3", "p6")))
    with pytest.raises(ConfigError, match=r"model\.backbone\.depth=20 is not known\. Choices: 18, 34, 50, 101, 152"):
        replace(cfg.backbone, depth=20)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match=r"model\.anchors\.sizes"):
        replace(cfg, anchors=replace(cfg.anchors, sizes=((8,), (16,))))
    with pytest.raises(ConfigError, match="no class"):
        build_detector(cfg, 0)


def test_translation_stops_at_what_it_does_not_know(shared: Path) -> None:
    options = json.loads((shared / "parity" / "faster_rcnn_R50_FPN.json").read_bytes())["config"]
    translate(options)
    with pytest.raises(ConfigError, match=r"MODEL\.RPN\.SPARKLE is not known"):
        translate(options | {"MODEL.RPN.SPARKLE": 1})
    with pytest.raises(ConfigError, match=r"MODEL\.ROI_BOX_HEAD\.NORM='XN' is not supported"):
        translate(options | {"MODEL.ROI_BOX_HEAD.NORM": "XN"})
    with pytest.raises(ConfigError, match=r"MODEL\.META_ARCHITECTURE"):
        translate(options | {"MODEL.META_ARCHITECTURE": "Sparkle"})
    with pytest.raises(ConfigError, match=r"MODEL\.ROI_MASK_HEAD\.NAME is missing"):
        translate(options | {"MODEL.MASK_ON": True})
    missing = {key: value for key, value in options.items() if key != "MODEL.RPN.NMS_THRESH"}
    with pytest.raises(ConfigError, match=r"MODEL\.RPN\.NMS_THRESH is missing"):
        translate(missing)


def test_load_weights_may_miss_what_is_excused() -> None:
    model = build_detector(tiny_two_stage(), 2)
    state = {name: value for name, value in model.state_dict().items() if "cls_score" not in name}
    load_weights(model, state, "here", may_miss=[n for n in model.state_dict() if "cls_score" in n])
    with pytest.raises(DataError, match=r"2 parameters do not fit this model\n  missing: roi_heads\.box_predictor\.cls_score"):
        load_weights(model, state, "here")
