"""INT8 by calibration: observe activations once, then write QuantizeLinear and DequantizeLinear around chosen convolutions.

ONNX Runtime's calibrators and QDQ quantizer with our choice of nodes. A convolution and the ReLU or ReLU6 behind it are one step:
what is quantized is what comes out of the activation. Before it, a range of -30..40 would be spent on values that end in 0..6;
on EfficientNet-Lite0 that alone cost 0.025 AP. The activation node itself goes: the saturation of the integers does its work.
"""

import logging
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import chain
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, shape_inference
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, create_calibrator
from onnxruntime.quantization.calibrate import HistogramCollector, TensorsData
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
BINS = {"entropy": 512, "percentile": 2048}
"""Of the histograms, from minus to plus the largest magnitude. ONNX Runtime's 128 for the entropy leave one range to choose."""
STEPS, PERCENTILE = 128, 99.999
"""Steps that the entropy is compared at (half of 8 bits), and the share of values that a percentile keeps: ONNX Runtime's own."""
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


def calibrate(path: Path, feeds: Callable[[], Iterable[Feed]], calibrator: str, ranges: Path) -> None:
    """Run the float file on `feeds()`, write the ranges {tensor: [low, high]} around its convolutions to `ranges` (JSON).

    One picture at a time: only extremes or histograms of its tensors stay in memory. Histograms take a second pass, so that their
    bins span all that comes. DataError when a range is not finite.
    """
    wanted = _tensors(onnx.load(str(path)))
    found = _observe(path, feeds(), "minmax")
    values = {name: [np.asarray(end).item() for end in found[name].range_value] for name in wanted if name in found}
    for name, ends in values.items():
        if not np.isfinite(ends).all():
            raise DataError(path, f"{name} takes values that are not finite", "train again: the detector is broken")
    if calibrator != "minmax":
        furthest = {name: float(np.abs(found[name].range_value).max()) for name in found}
        found = _observe(path, feeds(), calibrator, furthest)
        values = {name: [np.asarray(end).item() for end in found[name].range_value] for name in values}
    write_json(ranges, {"calibrator": calibrator, "tensors": values})


def _observe(path: Path, feeds: Iterable[Feed], method: str, furthest: Mapping[str, float] | None = None) -> TensorsData:
    """ONNX Runtime's calibrator over `feeds`. `furthest` is each tensor's largest magnitude, where histograms need it.

    Left to itself its histogram takes its bins from the first picture and adds more of that width for whatever comes: one outlier
    later makes a hundred thousand, and the search for the entropy's threshold takes the square of that.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        augmented = str(Path(folder) / "augmented.onnx")
        observer = create_calibrator(path, ["Conv", *ACTIVATIONS], augmented, METHODS[method], extra_options={"symmetric": False})
        if furthest is not None:
            bins = BINS[method]
            observer.collector = HistogramCollector(method, False, bins, STEPS, PERCENTILE, "same")
            for name, far in furthest.items():
                if far > 0:
                    edge, edges = np.float32(far), np.linspace(-far, far, bins + 1, dtype=np.float32)
                    observer.collector.histogram_dict[name] = (np.zeros(bins, np.int64), edges, edge, -edge, edge)
        for feed in feeds:
            observer.collect_data(_Feeds([feed]))
        return observer.compute_data()


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
        quantizer.model.topological_sort()
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


@dataclass(frozen=True, slots=True)
class Pictures:
    """Rows of the training split: those calibrated on, and others held back to judge by."""

    calibration: Sequence[int]
    held: Sequence[int]
    few: Sequence[int]
    """The first of the calibrated ones, on which each convolution is measured."""

    @classmethod
    def draw(cls, count: int, cfg: QuantizeConfig, seed: int) -> "Pictures":
        """Of `count`, by the seed, without a common row; a small split is halved, and a single picture serves for both."""
        held = min(cfg.held_pictures, count // 2)
        calibration = sample(count, min(cfg.pictures, count - held), seed)
        judged = sample(count, held, seed, skip=len(calibration)) if held else calibration
        return cls(calibration, judged, calibration[: cfg.sensitivity_pictures])


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
