"""INT8 by calibration: observe activations once, then write QuantizeLinear and DequantizeLinear around chosen convolutions.

ONNX Runtime's calibrators and QDQ quantizer with our choice of nodes. A convolution and the ReLU or ReLU6 behind it are one step:
what is quantized is what comes out of the activation. Before it, a range of -30..40 would be spent on values that end in 0..6;
on EfficientNet-Lite0 that alone cost 0.025 AP. The activation node itself goes: the saturation of the integers does its work.
"""

import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, shape_inference
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from pipeline.deploy.config import QuantizeConfig
from pipeline.deploy.host import ReducedRange
from pipeline.deploy.recipe import Recipe
from pipeline.errors import DataError
from pipeline.files import read_json, write_atomically, write_json

Feed = dict[str, np.ndarray]
Range = tuple[float, float]

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
OPTIONS: dict[str, dict[str, object]] = {
    "minmax": {},
    # ONNX Runtime's 128 bins for 128 steps would leave one range to choose from: all that was seen.
    "entropy": {"num_bins": 512, "num_quantized_bins": 128},
    "percentile": {"num_bins": 2048, "percentile": 99.999},
}
ACTIVATIONS = ("Relu", "Clip")


def convolutions(model: ModelProto) -> dict[str, list[str]]:
    """Names of the nodes that use it, by weight name, for every convolution in the graph: a head's serve several levels."""
    nodes: dict[str, list[str]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            nodes.setdefault(node.input[1], []).append(node.name)
    return nodes


def plan(model: ModelProto, cfg: QuantizeConfig, reduced: ReducedRange, kept: Collection[str] = ()) -> Recipe:
    """The recipe that keeps the weights `kept`, and those that `cfg` names, in float. DataError when a name fits nothing."""
    weights = list(convolutions(model))
    for prefix in cfg.float_layers:
        if not any(name.startswith(prefix) for name in weights):
            raise DataError("quantize.float_layers", f"no convolution's name begins with {prefix!r}", f"there are: {weights}")
    in_float = {name for name in weights if name.startswith(cfg.float_layers)} | set(kept)
    return Recipe(
        calibrator=cfg.calibrator,
        per_channel=cfg.per_channel,
        reduce_range=reduced.on,
        reduce_range_why=reduced.why,
        quantized=tuple(name for name in weights if name not in in_float),
        kept_float=tuple(name for name in weights if name in in_float),
    )


def calibrate(path: Path, feeds: Iterable[Feed], calibrator: str, ranges: Path) -> None:
    """Run the float file on `feeds`, write the ranges {tensor: [low, high]} around its convolutions to `ranges` (JSON).

    One picture at a time: only extremes or histograms of its tensors stay in memory. DataError when a range is not finite.
    """
    model = onnx.load(str(path))
    wanted = _tensors(model)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        observer = create_calibrator(
            path,
            ["Conv", *ACTIVATIONS],
            str(Path(folder) / "augmented.onnx"),
            METHODS[calibrator],
            extra_options={"symmetric": False, **OPTIONS[calibrator]},
        )
        for feed in feeds:
            observer.collect_data(_Feeds([feed]))
        found = observer.compute_data()
    values = {name: [np.asarray(end).item() for end in found[name].range_value] for name in wanted if name in found}
    for name, ends in values.items():
        if not np.isfinite(ends).all():
            raise DataError(path, f"{name} takes values that are not finite", "train again: the detector is broken")
    write_json(ranges, {"calibrator": calibrator, "tensors": values})


def read_ranges(path: Path) -> dict[str, Range]:
    """The ranges that `calibrate` wrote, by tensor. DataError when the file is something else."""
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("tensors"), dict):
        raise DataError(path, "holds no calibrated ranges", "make them anew by: python -m pipeline quantize")
    return {name: (low, high) for name, (low, high) in values["tensors"].items()}


def quantized(model: ModelProto, ranges: Mapping[str, Range], recipe: Recipe) -> ModelProto:
    """A copy of `model` with the recipe's convolutions in INT8: unsigned activations, signed weights, int32 biases.

    DataError when it names a convolution that `model` has not.
    """
    inferred = shape_inference.infer_shapes(model)
    nodes = convolutions(model)
    unknown = [name for name in recipe.quantized if name not in nodes]
    if unknown:
        raise DataError("recipe", f"the graph has no convolution {unknown[0]} that it names", "run quantize again")
    if not recipe.quantized:  # an empty list would mean "all" to ONNX Runtime
        return inferred
    data = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    behind = _activations(model)
    chosen = [node for name in recipe.quantized for node in nodes[name]]
    with _quiet():
        quantizer = QDQQuantizer(
            inferred,
            recipe.per_channel,
            recipe.reduce_range,
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, data),  # the ends are given: how they were found no longer matters
            [*chosen, *(behind[node].name for node in chosen if node in behind and behind[node].output[0] in ranges)],
            [],
            ["Conv", *ACTIVATIONS],
            {},
        )
        quantizer.quantize_model()
    made: ModelProto = quantizer.model.model
    return made


def write_int8(source: Path, ranges: Path, recipe: Recipe, target: Path) -> None:
    """Write the float file `source` with the recipe's convolutions in INT8 (QDQ); equal inputs give equal bytes."""
    made = quantized(onnx.load(str(source)), read_ranges(ranges), recipe)
    write_atomically(target, made.SerializeToString(deterministic=True))


def sample(count: int, wanted: int, seed: int, skip: int = 0) -> Sequence[int]:
    """`wanted` of `count` row numbers, drawn by the seed, in rising order; all of them when there are fewer.

    `skip` leaves out the first so many of the draw: two calls give two samples without a common row.
    """
    drawn = np.random.Generator(np.random.PCG64([seed, count])).permutation(count)[skip : skip + wanted]
    return sorted(drawn.tolist())


def _activations(model: ModelProto) -> dict[str, NodeProto]:
    """The ReLU or clipping behind a convolution that nothing else reads, by the convolution's name."""
    readers: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    results = {value.name for value in model.graph.output}
    return {
        node.name: readers[node.output[0]][0]
        for node in model.graph.node
        if node.op_type == "Conv"
        and node.output[0] not in results
        and [reader.op_type in ACTIVATIONS for reader in readers.get(node.output[0], [])] == [True]
    }


def _tensors(model: ModelProto) -> list[str]:
    """The tensors whose range matters: what goes into convolutions, what comes out of them, and out of what follows them."""
    behind = _activations(model)
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    found = chain.from_iterable((node.input[0], node.output[0]) for node in convs)
    return sorted({*found, *(node.output[0] for node in behind.values())})


class _Feeds(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """An iterator in the shape that ONNX Runtime asks for."""

    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds: Iterator[Feed] = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what ONNX Runtime's quantizer prints, and the advice that it logs through the root logger."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(level)
