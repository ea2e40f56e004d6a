"""Detectors on disk: a folder of weights.safetensors and model.json, read without executing anything."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from pipeline.detector.build import build_detector
from pipeline.detector.config import ModelConfig
from pipeline.detector.detector import Detector
from pipeline.detector.settings.custom import custom_targets
from pipeline.errors import DataError
from pipeline.files import read_json, write_json

WEIGHTS, SETTINGS, TRAINING = "weights.safetensors", "model.json", "training.json"
TRAIN = "make a detector by: python -m pipeline train"


class CategoryName(TypedDict):
    """A class of the dataset; label k is the k-th of them."""

    id: int
    name: str
    keypoints: NotRequired[list[str]]
    """Names of its keypoints, where it has some."""
    skeleton: NotRequired[list[list[int]]]
    """Pairs of them to join, counted from 1."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A saved detector, in evaluation mode, with what it was built from."""

    model: Detector
    cfg: ModelConfig
    categories: list[CategoryName]
    semantic: list[str]
    """Names of the classes of semantic maps; empty where the detector makes none."""
    stuff: list[CategoryName]
    """Classes of ground in panoptic maps; semantic class s is the s-th of them, from 1. Empty where it makes none."""


def save_detector(
    folder: Path,
    model: Detector,
    cfg: ModelConfig,
    categories: Sequence[CategoryName],
    semantic: Sequence[str] = (),
    stuff: Sequence[CategoryName] = (),
) -> None:
    """Write weights and settings into the existing `folder` (stage it: the two files are not one transaction)."""
    from safetensors.torch import save_file

    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    settings: dict[str, Any] = {"model": asdict(cfg), "categories": [dict(c) for c in categories]}
    if "semantic" in cfg.tasks:
        settings |= {"semantic": list(semantic), "stuff": [dict(c) for c in stuff]}
    write_json(folder / SETTINGS, settings)


def load_detector(folder: Path, trusted: Collection[str] = ()) -> Loaded:
    """The detector that `save_detector` wrote. DataError names the file, and every parameter that is missing or does not fit.

    `trusted` are the import paths that stand in the user's own settings: a file that names another one is refused, for loading it
    would run code that the file's author chose.
    """
    import pydantic
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / SETTINGS).exists():
        raise DataError(folder / SETTINGS, "no such file", TRAIN)
    settings = read_json(folder / SETTINGS)
    if not isinstance(settings, dict) or not {"model", "categories"} <= settings.keys():
        raise DataError(folder / SETTINGS, "holds no detector: model or categories are missing", TRAIN)
    try:
        cfg = pydantic.TypeAdapter[ModelConfig](ModelConfig).validate_python(settings["model"])
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(folder / SETTINGS, f"model.{place}: {first['msg']}", "train again with this version") from error
    if strangers := sorted(custom_targets(cfg) - {*trusted}):
        todo = "if you trust it, choose the model of your own config that names it: python -m pipeline config model=NAME"
        raise DataError(
            folder / SETTINGS, f"names code of its own to run, which your settings do not: {', '.join(strangers)}", todo
        )
    semantic, stuff = settings.get("semantic", []), settings.get("stuff", [])
    model = build_detector(cfg, len(settings["categories"]), len(semantic))
    if not (folder / WEIGHTS).exists():
        raise DataError(folder / WEIGHTS, "no such file", TRAIN)
    try:
        state = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise DataError(folder / WEIGHTS, f"not a safetensors file ({error})") from error
    load_weights(model, state, folder / WEIGHTS)
    return Loaded(model.eval(), cfg, settings["categories"], semantic, stuff)


def save_training(folder: Path, settings: Mapping[str, Any], seed: int, data: str) -> None:
    """Write into `folder` how the detector beside it came to be: settings, seed, and the content digest of the data."""
    write_json(folder / TRAINING, {"settings": dict(settings), "seed": seed, "data": data})


def read_training(folder: Path) -> dict[str, Any]:
    """What `save_training` wrote; DataError when it is not there."""
    try:
        values = read_json(folder / TRAINING)
    except DataError as error:
        raise DataError(folder / TRAINING, "no such file, or not readable", "train again with this version") from error
    if not isinstance(values, dict) or values.keys() != {"settings", "seed", "data"}:
        raise DataError(folder / TRAINING, "does not say how the detector was trained", "train again with this version")
    return values


def load_weights(module: nn.Module, state: Mapping[str, Tensor], place: object, may_miss: Iterable[str] = ()) -> None:
    """Copy `state` into the module by name. DataError lists every parameter that is missing, unexpected or of another shape.

    Names in `may_miss` keep their values when the file has none.
    """
    own, excused = module.state_dict(), set(may_miss)
    wrong = [f"  missing: {name} {_shape(own[name])}" for name in own if name not in state and name not in excused]
    wrong += [f"  unexpected: {name} {_shape(value)}" for name, value in state.items() if name not in own]
    wrong += [
        f"  wrong shape: {name} is {_shape(value)} in the file, {_shape(own[name])} in the model"
        for name, value in state.items()
        if name in own and own[name].shape != value.shape
    ]
    if wrong:
        raise DataError(place, f"{len(wrong)} parameters do not fit this model\n" + "\n".join(wrong))
    module.load_state_dict(dict(state), strict=False)


def transient_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Buffers that a checkpoint of training needs and `state_dict` leaves out (such as RetinaNet's running mean)."""
    kept = model.state_dict().keys()
    return {name: buffer for name, buffer in model.named_buffers() if name not in kept}


def load_transient_buffers(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Put `transient_buffers` back, in place."""
    with torch.no_grad():
        for name, buffer in transient_buffers(model).items():
            buffer.copy_(values[name])


def _shape(value: Tensor) -> str:
    return str(list(value.shape))
