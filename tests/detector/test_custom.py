"""A user's own parts: the README's example as it stands, each kind of part, and no code that the user's settings do not name."""

import re
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pydantic
import pytest
import torch
import yaml

from pipeline.detector.build import build_detector
from pipeline.detector.config import ModelConfig
from pipeline.detector.settings.custom import custom_targets
from pipeline.detector.weights import load_detector, save_detector
from pipeline.errors import ConfigError, DataError
from tests.detector.models import CONF, batch, read_config, tiny_two_stage

PACKAGE = """
import torch
from pipeline.detector.build import build_detector
from pipeline.detector.detector import Detector


class Mean(torch.nn.Module):
    def __init__(self, channels, size, width):
        super().__init__()
        self.width = width
        self.layer = torch.nn.Linear(channels, width)

    def forward(self, x):
        return self.layer(x.mean(dim=(2, 3))).relu()


class Distance:
    def __init__(self, power):
        self.power = power

    def __call__(self, found, wanted):
        return ((found - wanted).abs() ** self.power).sum(dim=-1)


class Whole(Detector):
    def __init__(self, pixels, classes, width):
        backbone = torch.nn.Conv2d(3, width, 1)
        backbone.divisor = 1
        super().__init__(pixels, backbone)
        self.classes = classes

    def losses(self, images, targets, generator=None, part=None):
        raise NotImplementedError

    def detect(self, images):
        raise NotImplementedError


def wrong(pixels, classes):
    return torch.nn.Identity()
"""


@pytest.fixture
def package(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The README's module and a second one, importable; the README's settings."""
    readme = (root / "README.md").read_text()
    code = re.search(r"```python\n# my_package/backbones\.py\n(.*?)```", readme, re.DOTALL)
    settings = re.search(r"```yaml\n(backbone:.*?)```", readme, re.DOTALL)
    assert code and settings
    folder = tmp_path / "packages/my_package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "backbones.py").write_text(code[1])
    (folder / "parts.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]
    backbone: dict[str, Any] = yaml.safe_load(settings[1])
    return backbone


def check(values: dict[str, Any]) -> Any:
    return pydantic.TypeAdapter(ModelConfig).validate_python(values)


def tiny() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((CONF / "faster_rcnn_tiny.yaml").read_text())
    return values


def test_the_readmes_backbone_trains_and_finds(package: dict[str, Any], tmp_path: Path) -> None:
    cfg = check(tiny() | package)
    model = build_detector(cfg, 3)
    images, targets = batch(model, [(64, 64), (40, 60)])
    losses = model.losses(images, targets, torch.Generator().manual_seed(0)).total()
    losses.backward()
    assert torch.isfinite(losses) and all(p.grad is not None for p in model.backbone.bottom_up.parameters())
    model.eval()
    assert model.detect(images).boxes_ND4.shape[0] == 2
    categories: Any = [{"id": n, "name": str(n)} for n in range(3)]
    save_detector(tmp_path, model, cfg, categories)
    with pytest.raises(DataError, match=r"model\.json: names code of its own to run.*my_package\.backbones:Strides"):
        load_detector(tmp_path)
    with pytest.raises(DataError, match="your settings do not"):
        load_detector(tmp_path, {"my_package.backbones:Other"})
    loaded = load_detector(tmp_path, custom_targets(cfg))
    assert loaded.cfg == cfg and asdict(loaded.cfg) == asdict(cfg)


def test_a_strangers_file_imports_nothing(package: dict[str, Any], tmp_path: Path) -> None:
    """Refused before anything is imported, and without settings nothing is trusted."""
    cfg = check(tiny() | package)
    save_detector(tmp_path, build_detector(cfg, 1), cfg, [{"id": 1, "name": "disc"}])
    for name in [name for name in sys.modules if name.startswith("my_package")]:
        del sys.modules[name]
    with pytest.raises(DataError):
        load_detector(tmp_path)
    assert not [name for name in sys.modules if name.startswith("my_package")]


def test_a_head_and_a_loss(package: dict[str, Any]) -> None:
    values = tiny()
    values["roi"]["head"] = {"kind": "custom", "target": "my_package.parts:Mean", "options": {"width": 16}}
    values["roi"]["box_loss"] = {
        "kind": "custom",
        "target": "my_package.parts:Distance",
        "options": {"power": 1.0},
        "weight": 2.0,
    }
    cfg = check(values)
    assert custom_targets(cfg) == {"my_package.parts:Mean", "my_package.parts:Distance"}
    torch.manual_seed(0)
    model = build_detector(cfg, 3)
    images, targets = batch(model, [(64, 64)], truths=3)
    first = model.losses(images, targets, torch.Generator().manual_seed(0))
    first.total().backward()
    assert first.terms["loss_box_reg"] > 0 and all(torch.isfinite(p.grad).all() for p in model.parameters())
    torch.manual_seed(0)
    half = build_detector(replace(cfg, roi=replace(cfg.roi, box_loss=replace(cfg.roi.box_loss, weight=1.0))), 3)
    second = half.losses(images, targets, torch.Generator().manual_seed(0))
    torch.testing.assert_close(first.terms["loss_box_reg"], 2 * second.terms["loss_box_reg"])


def test_a_whole_model(package: dict[str, Any]) -> None:
    values = {"kind": "custom", "target": "my_package.parts:Whole", "options": {"width": 4}, "weights": None, "learns": ["bbox"]}
    cfg = check(values | {"input": tiny()["input"]})
    assert cfg.tasks == ("bbox",) and build_detector(cfg, 7).classes == 7 and custom_targets(cfg) == {"my_package.parts:Whole"}


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("my_package.absent:X", {}, r"model\.target='my_package\.absent:X' cannot be imported"),
        ("my_package.parts:Absent", {}, "cannot be imported"),
        ("my_package.parts:Whole", {"depth": 1}, r"model\.options=.*do not fit"),
        ("my_package.parts:wrong", {}, "makes no"),
        ("os.system", {}, r"must be package\.module:Name"),
        ("my_package.parts:a.b", {}, r"must be package\.module:Name"),
    ],
)
def test_mistakes_are_named(package: dict[str, Any], target: str, options: dict[str, Any], message: str) -> None:
    values = {
        "kind": "custom",
        "target": target,
        "options": options,
        "weights": None,
        "learns": ["bbox"],
        "input": tiny()["input"],
    }
    with pytest.raises(ConfigError, match=message):
        build_detector(check(values), 2)


def test_plain_settings_trust_nothing() -> None:
    assert not custom_targets(tiny_two_stage()) and not custom_targets(read_config("mask_rcnn_r50_fpn"))
