"""A whole pretrained detector: where `model.weights` leads."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pipeline.detector.build import build_detector
from pipeline.detector.config import ModelConfig
from pipeline.detector.detector import Detector
from pipeline.detector.pretrained.caffe2 import is_caffe2
from pipeline.detector.pretrained.files import read_state
from pipeline.detector.pretrained.torchvision import detector_from_torchvision, is_torchvision_detector, is_torchvision_resnet
from pipeline.detector.weights import load_weights
from pipeline.errors import ConfigError, DataError

NOT_PARAMETERS = ("pixel_mean", "pixel_std")
"""Detectron2's buffers of constants that older checkpoints hold; ours come from the settings."""
CONSTANTS = ("anchor_generator.cell_anchors.", ".num_batches_tracked", ".fed_loss_cls_weights")
"""Parts of names: anchors follow from the settings, counters teach nothing, and how often a class is seen is the dataset's."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What `model.weights` gave."""

    source: str
    loaded: int
    """Tensors copied into the detector."""
    renewed: tuple[str, ...]
    """Heads that depend on the number of classes, which is another here: they start anew."""

    def __str__(self) -> str:
        heads = f"; {', '.join(self.renewed)} start anew: the file has another number of classes" if self.renewed else ""
        return f"{self.source} ({self.loaded} tensors{heads})"


def load_checkpoint(model: Detector, cfg: ModelConfig, classes: int) -> Checkpoint | None:
    """Fill the detector from `cfg.weights`; None when the settings name none.

    DataError lists every parameter that is missing, unexpected or of another shape; only along what depends on the number of
    classes may a shape differ.
    """
    if cfg.weights is None:
        return None
    path = Path(cfg.weights)
    state = in_our_names(read_state(path, "model.weights"), cfg, classes, path)
    own = model.state_dict()
    differing = {name for name, value in state.items() if name in own and own[name].shape != value.shape}
    axes = class_axes(cfg, classes) if differing else {}
    renewed = sorted(name for name in differing if _same_but_for(own[name].shape, state[name].shape, axes.get(name, ())))
    kept = {name: value for name, value in state.items() if name not in renewed}
    counters = [name for name in own if name.endswith(".num_batches_tracked")]
    load_weights(model, kept, path, may_miss=[*renewed, *counters])
    return Checkpoint(str(path), len(kept), tuple(dict.fromkeys(name.rpartition(".")[0] for name in renewed)))


def in_our_names(state: Mapping[str, Tensor], cfg: ModelConfig, classes: int, place: Path) -> dict[str, Tensor]:
    """The state of a Detectron2 or torchvision detector by our names, without constants. DataError for a backbone alone."""
    if is_torchvision_detector(state):
        sizes = len(cfg.anchors.sizes[0]) if hasattr(cfg, "anchors") else 1
        return detector_from_torchvision(state, sizes, classes)
    if is_caffe2(state) or is_torchvision_resnet(state) or "stem.conv1.weight" in state:
        raise DataError(place, "holds a backbone, not a whole detector", "name it by model.backbone.weights")
    check_pixels(state, cfg, place)
    return {name: value for name, value in state.items() if name not in NOT_PARAMETERS and not is_constant(name)}


def check_pixels(state: Mapping[str, Tensor], cfg: ModelConfig, place: Path) -> None:
    """ConfigError when the file says that its detector saw other pixels than the settings give it."""
    for name, given in (("pixel_mean", cfg.input.mean), ("pixel_std", cfg.input.std)):
        if name in state and not torch.allclose(
            state[name].flatten().double(), torch.tensor(given, dtype=torch.float64), rtol=1e-4
        ):
            theirs = [round(value, 3) for value in state[name].flatten().tolist()]
            field = f"model.input.{name.removeprefix('pixel_')}"
            raise ConfigError(field, list(given), f"is not what {place} was trained with: {theirs}")


def class_axes(cfg: ModelConfig, classes: int) -> dict[str, tuple[int, ...]]:
    """Which axes of which parameters depend on the number of classes: found by building with another number, without memory."""
    shapes: list[dict[str, torch.Size]] = []
    for count in (classes, classes + 1):
        try:
            with torch.device("meta"):
                shapes.append({name: value.shape for name, value in build_detector(cfg, count).state_dict().items()})
        except ConfigError:  # a detector of one class only
            return {}
    first, second = shapes
    moved = {name: tuple(a for a in range(len(shape)) if shape[a] != second[name][a]) for name, shape in first.items()}
    return {name: axes for name, axes in moved.items() if axes}


def _same_but_for(own: torch.Size, given: torch.Size, axes: tuple[int, ...]) -> bool:
    return len(own) == len(given) and all(own[a] == given[a] or a in axes for a in range(len(own)))


def is_constant(name: str) -> bool:
    """Whether the reference keeps a tensor under this name that is no parameter."""
    return any(part in name for part in CONSTANTS)
