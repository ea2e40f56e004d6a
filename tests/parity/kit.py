"""Reader of a parity kit: manifest, arrays, and the weights regenerated from the rule in the kit's README."""

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Kit:
    """One architecture of a kit."""

    folder: Path
    name: str
    manifest: dict[str, Any] = field(init=False)
    arrays: Any = field(init=False)

    def __post_init__(self) -> None:
        self.manifest = json.loads((self.folder / f"{self.name}.json").read_bytes())
        self.arrays = np.load(self.folder / f"{self.name}.npz")

    def weights(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every state-dict entry by name. ValueError when a regenerated tensor misses the manifest's checksum."""
        for name, info in self.manifest["state_dict"].items():
            value = self._value(name, tuple(info["shape"]))
            if "crc32" in info and zlib.crc32(np.ascontiguousarray(value).tobytes()) != info["crc32"]:
                raise ValueError(f"{self.name}: {name} is not what the manifest's checksum says")
            yield name, value

    def _value(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        leaf = name.rsplit(".", 1)[-1]
        if leaf == "num_batches_tracked":
            return np.zeros(shape, np.int64)
        if leaf in ("running_mean", "running_var"):
            return np.full(shape, float(leaf == "running_var"), np.float32)
        if leaf == "bias":
            return np.full(shape, self._first("biases", name, 0.0), np.float32)
        gain = self._first("gains", name, 1.0)
        if len(shape) == 1:
            return np.full(shape, gain, np.float32)
        generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
        return (generator.standard_normal(shape) * (gain * (2.0 / int(np.prod(shape[1:]))) ** 0.5)).astype(np.float32)

    def _first(self, table: str, name: str, otherwise: float) -> float:
        return next((value for pattern, value in self.manifest[table] if re.search(pattern, name)), otherwise)


def kit_names(folder: Path) -> list[str]:
    """Architectures of the kit in `folder`."""
    return sorted(path.stem for path in folder.glob("*.json") if path.with_suffix(".npz").exists())
