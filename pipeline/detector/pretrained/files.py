"""Files of weights: tensors by name from .pkl, .pth and .safetensors, without executing anything in them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import DataError

SUFFIXES = (".pkl", ".pth", ".pt", ".safetensors")


def read_state(path: Path, setting: str = "model.backbone.weights") -> dict[str, Tensor]:
    """Tensors by name; `setting` is what led here. DataError when the file is absent, damaged, or no file of weights."""
    if not path.exists():
        raise DataError(path, "no such file", f"check {setting}")
    if path.suffix not in SUFFIXES:
        raise DataError(path, f"is no file of weights: {', '.join(SUFFIXES)} are", f"check {setting}")
    if path.suffix == ".safetensors":
        return _safetensors(path)
    values = _pickled(path) if path.suffix == ".pkl" else _torch(path)
    for key in ("model", "blobs", "state_dict"):  # Detectron2's and torchvision's, Detectron's, other trainers'
        if isinstance(values.get(key), dict):
            values = values[key]
            break
    state = {name: _tensor(value) for name, value in values.items() if isinstance(name, str)}
    found = {name: value for name, value in state.items() if value is not None}
    if not found:
        raise DataError(path, "holds no parameters by name", f"check {setting}")
    return found


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise DataError(path, f"not a safetensors file ({error})") from error


def _pickled(path: Path) -> dict[str, Any]:
    from pipeline.detector.pretrained.pickles import read_pickle

    return read_pickle(path)


def _torch(path: Path) -> dict[str, Any]:
    from pickle import UnpicklingError

    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            path, f"is not read: it holds more than tensors and plain containers, or is damaged ({reason})"
        ) from error
    if not isinstance(values, dict):
        raise DataError(path, "holds no parameters by name")
    return values


def _tensor(value: Any) -> Tensor | None:
    """A parameter; None for what stands beside them: steps, authors, settings."""
    import numpy as np

    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))  # a copy that may be written
    return None
