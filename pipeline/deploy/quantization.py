"""INT8 by calibration: observe activations once, decide which convolutions to quantize, write QDQ nodes around those.

ONNX Runtime's static quantization (QDQ format, so that TensorRT and OpenVINO read the file too) with our choice of layers.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, create_calibrator, quantize_static
from onnxruntime.quantization.calibrate import save_tensors_data

from pipeline.deploy.config import QuantizeConfig
from pipeline.errors import DataError
from pipeline.files import read_json, write_json

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
Feed = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Which convolutions become INT8 and how; written by quantize, followed by export."""

    calibrator: str
    per_channel: bool
    reduce_range: bool
    quantized: tuple[str, ...]
    """Names of the weights of convolutions in INT8."""
    kept_float: tuple[str, ...]
    """Names of the weights of convolutions that stay in float."""

    @property
    def share(self) -> float:
        """Share of convolutions in INT8, 0..1."""
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
    return Recipe(
        calibrator=values["calibrator"],
        per_channel=values["per_channel"],
        reduce_range=values["reduce_range"],
        quantized=tuple(values["quantized"]),
        kept_float=tuple(values["kept_float"]),
    )


def convolutions(path: Path) -> dict[str, list[str]]:
    """Names of the nodes that use it, by weight name, for every convolution in the file: a head's serve several levels."""
    graph = onnx.load(str(path), load_external_data=False).graph
    nodes: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type == "Conv":
            nodes.setdefault(node.input[1], []).append(node.name)
    return nodes


def depthwise(path: Path) -> set[str]:
    """Weights of convolutions in which each channel sees itself alone: [C, 1, h, w]."""
    graph = onnx.load(str(path), load_external_data=False).graph
    alone = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 4 and tensor.dims[1] == 1 and tensor.dims[0] > 1}
    return alone & convolutions(path).keys()


def plan(path: Path, cfg: QuantizeConfig) -> Recipe:
    """The recipe for the file at `path`: the first convolution and those that `cfg` names stay in float."""
    weights = list(convolutions(path))
    named = {name for name in weights if name.startswith(cfg.float_layers)}
    kept = [*weights[:1], *(name for name in weights[1:] if name in named | (depthwise(path) if cfg.float_depthwise else set()))]
    return Recipe(
        calibrator=cfg.calibrator,
        per_channel=cfg.per_channel,
        reduce_range=cfg.reduce_range,
        quantized=tuple(name for name in weights if name not in kept),
        kept_float=tuple(kept),
    )


def calibrate(path: Path, feeds: Iterable[Feed], cfg: QuantizeConfig, ranges: Path) -> None:
    """Run the float file on `feeds` and write the ranges of its convolutions' tensors to `ranges` (JSON)."""
    with tempfile.TemporaryDirectory() as folder, _quiet_root():
        calibrator = create_calibrator(
            path, ["Conv"], str(Path(folder) / "augmented.onnx"), METHODS[cfg.calibrator], extra_options={"symmetric": False}
        )
        calibrator.collect_data(_Feeds(feeds))
        save_tensors_data(calibrator.compute_data(), Path(folder) / "ranges.json")
        write_json(ranges, read_json(Path(folder) / "ranges.json"))  # ours sorts the keys: equal ranges are equal bytes


def write_int8(source: Path, ranges: Path, recipe: Recipe, target: Path) -> None:
    """Write the float file `source` with the recipe's convolutions in INT8 (QDQ): unsigned activations, signed weights."""
    nodes = convolutions(source)
    unknown = [name for name in recipe.quantized if name not in nodes]
    if unknown:
        raise DataError(source, f"has no convolution {unknown[0]} that the recipe names", "run quantize again")
    if not recipe.quantized:  # an empty list would mean "all" to ONNX Runtime
        shutil.copyfile(source, target)
        return
    with _quiet_root():
        quantize_static(
            source,
            target,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=[node for name in recipe.quantized for node in nodes[name]],
            per_channel=recipe.per_channel,
            reduce_range=recipe.reduce_range,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[recipe.calibrator],
            calibration_cache_path=ranges,
        )


def sample(count: int, wanted: int, seed: int) -> Sequence[int]:
    """`wanted` of `count` row numbers, drawn by the seed, in rising order; all of them when there are fewer."""
    drawn = np.random.Generator(np.random.PCG64([seed, count])).permutation(count)[:wanted]
    return sorted(drawn.tolist())


class _Feeds(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """An iterator in the shape that ONNX Runtime asks for."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


@contextmanager
def _quiet_root() -> Iterator[None]:
    """Silence the advice that ONNX Runtime's quantizer prints through the root logger about steps done elsewhere."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
