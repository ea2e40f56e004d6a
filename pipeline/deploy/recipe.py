"""The recipe: which convolutions become INT8 and how. Written by quantize, followed by export."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline.errors import DataError
from pipeline.files import read_json, write_json


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that turns the float graph and the ranges into the INT8 file: equal recipes give equal bytes on any host."""

    calibrator: str
    per_channel: bool
    reduce_range: bool
    """7-bit weights, for hosts that saturate."""
    reduce_range_why: str
    """Who chose that: the setting, or the host that quantize ran on."""
    quantized: tuple[str, ...]
    """Names of the weights of convolutions in INT8."""
    kept_float: tuple[str, ...]
    """Names of the weights of convolutions that stay in float."""

    @property
    def share(self) -> float:
        """Share of convolutions planned in INT8, 0..1; `pipeline.deploy.count` says what a file really has."""
        return len(self.quantized) / max(1, len(self.quantized) + len(self.kept_float))

    def write(self, path: Path) -> None:
        """The recipe as JSON."""
        write_json(path, asdict(self))


def read_recipe(path: Path) -> Recipe:
    """The recipe at `path`; DataError when it is not one."""
    values = read_json(path)
    wanted = {field.name for field in fields(Recipe)}
    if not isinstance(values, dict) or values.keys() != wanted:
        raise DataError(path, "is no quantization recipe", "make it anew by: python -m pipeline quantize")
    return Recipe(**values | {name: tuple(values[name]) for name in ("quantized", "kept_float")})
