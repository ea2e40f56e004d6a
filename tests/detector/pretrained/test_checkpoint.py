"""Public checkpoints by name: whole detectors and ImageNet backbones, and errors that list what does not fit."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.detector.build import build_detector
from pipeline.detector.pretrained.backbone import load_pretrained
from pipeline.detector.pretrained.checkpoint import load_checkpoint
from pipeline.errors import ConfigError, DataError
from tests.detector.models import lively, tiny_masks, tiny_one_stage, tiny_two_stage


def zoo_file(path: Path, state: dict[str, torch.Tensor], **beside: Any) -> str:
    """As Detectron2's model zoo writes them: numpy arrays under `model`, constants beside the parameters."""
    arrays = {name: value.numpy() for name, value in state.items()}
    arrays |= {"pixel_mean": np.full((3, 1, 1), 127.0, np.float32), "pixel_std": np.full((3, 1, 1), 64.0, np.float32)}
    arrays["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4), np.float32)
    path.write_bytes(pickle.dumps({"model": arrays | beside, "__author__": "zoo"}, 2))
    return str(path)


@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".safetensors"])
def test_a_whole_detector_by_name(tmp_path: Path, suffix: str) -> None:
    cfg = tiny_masks()
    source = lively(cfg, 3, seed=4)
    path = tmp_path / f"model_final{suffix}"
    if suffix == ".pkl":
        zoo_file(path, source.state_dict())
    elif suffix == ".pth":
        torch.save({"model": source.state_dict(), "optimizer": {"state": {0: torch.ones(2)}}, "iteration": 7}, path)
    else:
        from safetensors.torch import save_file

        save_file(source.state_dict(), path)
    target = build_detector(cfg, 3)
    said = load_checkpoint(target, replace(cfg, weights=str(path)), 3)
    assert said is not None and not said.renewed and said.source == str(path)
    for name, value in source.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, target.state_dict()[name]), name
    assert load_checkpoint(target, cfg, 3) is None


def test_heads_for_other_classes_start_anew_and_it_is_said_in_one_line(tmp_path: Path) -> None:
    cfg = tiny_masks()
    source, target = lively(cfg, 5, seed=4), lively(cfg, 3, seed=5)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    said = load_checkpoint(target, replace(cfg, weights=zoo_file(tmp_path / "m.pkl", source.state_dict())), 3)
    heads = ("roi_heads.box_predictor.bbox_pred", "roi_heads.box_predictor.cls_score", "roi_heads.mask_head.predictor")
    assert said is not None and said.renewed == heads
    assert str(said).count("\n") == 0 and "another number of classes" in str(said)
    for name, value in target.state_dict().items():
        same = before if name.startswith(heads) else source.state_dict()
        assert torch.equal(value, same[name]) or name.endswith("num_batches_tracked"), name


def test_one_stage_heads_too(tmp_path: Path) -> None:
    cfg = tiny_one_stage()
    path = zoo_file(tmp_path / "m.pkl", lively(cfg, 5, seed=4).state_dict())
    said = load_checkpoint(build_detector(cfg, 3), replace(cfg, weights=path), 3)
    assert said is not None and said.renewed == ("head.cls_score",)


def test_what_does_not_fit_is_listed_and_stops(tmp_path: Path) -> None:
    cfg = tiny_two_stage()
    state = dict(lively(cfg, 3).state_dict())
    del state["proposal_generator.rpn_head.conv.bias"]
    state["roi_heads.box_head.fc1.weight"] = torch.zeros(64, 7)
    state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(9, 63)  # not only another number of classes
    path = zoo_file(tmp_path / "m.pkl", state, stranger=np.zeros((2, 3), np.float32))
    model = build_detector(cfg, 3)
    before = model.state_dict()["backbone.fpn_lateral2.weight"].clone()
    with pytest.raises(DataError) as error:
        load_checkpoint(model, replace(cfg, weights=path), 3)
    assert str(error.value).splitlines() == [
        f"{path}: 4 parameters do not fit this model",
        "  missing: proposal_generator.rpn_head.conv.bias [32]",
        "  unexpected: stranger [2, 3]",
        "  wrong shape: roi_heads.box_head.fc1.weight is [64, 7] in the file, [64, 800] in the model",
        "  wrong shape: roi_heads.box_predictor.cls_score.weight is [9, 63] in the file, [4, 64] in the model",
    ]
    assert torch.equal(model.state_dict()["backbone.fpn_lateral2.weight"], before), "nothing was copied"


def test_other_pixels_stop(tmp_path: Path) -> None:
    cfg = tiny_two_stage()
    path = zoo_file(tmp_path / "m.pkl", lively(cfg, 3).state_dict(), pixel_mean=np.array([103.53, 116.28, 123.675], np.float32))
    with pytest.raises(ConfigError, match=r"model\.input\.mean=.*is not what .*m\.pkl was trained with: \[103\.53, 116\.28"):
        load_checkpoint(build_detector(cfg, 3), replace(cfg, weights=path), 3)


def test_a_backbone_is_no_detector(tmp_path: Path) -> None:
    cfg = tiny_two_stage()
    torch.save(lively(cfg).backbone.bottom_up.state_dict(), tmp_path / "R-18.pth")
    with pytest.raises(DataError, match=r"model\.backbone\.weights"):
        load_checkpoint(build_detector(cfg, 3), replace(cfg, weights=str(tmp_path / "R-18.pth")), 3)


def resnet50() -> Any:
    cfg = tiny_two_stage()
    fpn = replace(cfg.fpn, stages=("res2", "res3", "res4", "res5"))
    rpn, roi = replace(cfg.rpn, levels=("p2", "p3", "p4")), replace(cfg.roi, levels=("p2", "p3", "p4"))
    backbone = replace(cfg.backbone, depth=50, res2_channels=64, norm="frozen")
    return replace(cfg, backbone=backbone, fpn=fpn, rpn=rpn, roi=roi)


CAFFE2 = {
    "conv1_w": "stem.conv1.weight",
    "res_conv1_bn_s": "stem.conv1.norm.weight",
    "res_conv1_bn_b": "stem.conv1.norm.bias",
    "res2_0_branch1_w": "res2.0.shortcut.weight",
    "res2_0_branch1_bn_s": "res2.0.shortcut.norm.weight",
    "res2_0_branch2a_w": "res2.0.conv1.weight",
    "res3_1_branch2b_bn_b": "res3.1.conv2.norm.bias",
    "res5_2_branch2c_w": "res5.2.conv3.weight",
}
"""Names as MSRA's R-50.pkl has them, and the reference's."""


def caffe2_name(name: str) -> str:
    ours, theirs = next(
        pair for pair in (("norm.weight", "bn_s"), ("norm.bias", "bn_b"), ("weight", "w")) if name.endswith(pair[0])
    )
    body = name.removesuffix(f".{ours}")
    if body == "stem.conv1":
        return "conv1_w" if theirs == "w" else f"res_conv1_{theirs}"
    stage, number, layer = body.split(".")
    branch = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}[layer]
    return f"{stage}_{number}_{branch}_{theirs}"


def test_imagenet_weights_under_caffe2s_names(tmp_path: Path) -> None:
    cfg = resnet50()
    torch.manual_seed(0)
    source = build_detector(cfg, 2).backbone.bottom_up.state_dict()
    arrays = {
        caffe2_name(n): torch.rand_like(v).numpy() for n, v in source.items() if not n.endswith(("running_mean", "running_var"))
    }
    assert CAFFE2.keys() <= arrays.keys(), "the test's own names are those of the file"
    arrays |= {"fc1000_w": np.zeros((1000, 2048), np.float32), "fc1000_b": np.zeros(1000, np.float32)}
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps({"blobs": arrays}, 2))
    model = build_detector(cfg, 2)
    said = load_pretrained(model, replace(cfg, backbone=replace(cfg.backbone, weights=str(path))))
    assert said is not None and set(said.unused) == {"fc1000_w", "fc1000_b"}
    own = model.backbone.bottom_up.state_dict()
    for name, ours in CAFFE2.items():
        np.testing.assert_array_equal(own[ours].numpy(), arrays[name])
    for name in own:
        if name.endswith(("running_mean", "running_var")):
            assert (own[name] == float(name.endswith("var"))).all()


def test_an_unknown_caffe2_name_is_listed(tmp_path: Path) -> None:
    cfg = resnet50()
    source = build_detector(cfg, 2).backbone.bottom_up.state_dict()
    arrays = {caffe2_name(n): v.numpy() for n, v in source.items() if not n.endswith(("running_mean", "running_var"))}
    arrays["res2_0_branch2d_w"] = np.zeros((1, 2), np.float32)
    path = tmp_path / "R-50.pkl"
    path.write_bytes(pickle.dumps(arrays, 2))
    with pytest.raises(DataError, match=r"unexpected: res2_0_branch2d_w \[1, 2\]"):
        load_pretrained(build_detector(cfg, 2), replace(cfg, backbone=replace(cfg.backbone, weights=str(path))))


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvisions_resnet_gives_its_features(tmp_path: Path, depth: int) -> None:
    from torchvision.models import resnet

    cfg = resnet50()
    cfg = replace(
        cfg,
        backbone=replace(
            cfg.backbone, depth=depth, stem_channels=64, width_per_group=64, res2_channels=64 if depth == 18 else 256
        ),
    )
    torch.manual_seed(1)
    peer = getattr(resnet, f"resnet{depth}")(weights=None).eval()
    for module in peer.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1), module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr, operator]
    torch.save(peer.state_dict(), tmp_path / "resnet.pth")
    model = build_detector(cfg, 2).eval()
    said = load_pretrained(model, replace(cfg, backbone=replace(cfg.backbone, weights=str(tmp_path / "resnet.pth"))))
    assert said is not None and said.unused == ("fc.weight", "fc.bias")
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        y = peer.maxpool(peer.relu(peer.bn1(peer.conv1(x))))
        for number, ours in enumerate(model.backbone.bottom_up(x), start=1):
            y = getattr(peer, f"layer{number}")(y)
            torch.testing.assert_close(ours, y, rtol=1e-4, atol=1e-4 * float(y.abs().max()))


@pytest.mark.parametrize(("content", "message"), [(b"{", "is not read"), (None, "no such file")])
def test_a_broken_or_absent_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    path, cfg = tmp_path / "model.pth", tiny_two_stage()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        load_checkpoint(build_detector(cfg, 2), replace(cfg, weights=str(path)), 2)
    assert str(path) in str(error.value)
