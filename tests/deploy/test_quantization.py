"""Ranges and INT8 files of graphs with a few convolutions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.deploy.count import count_int8
from pipeline.deploy.host import ReducedRange
from pipeline.deploy.quantization import Pictures, calibrate, plan, quantized, read_ranges, sample, write_int8
from pipeline.deploy.recipe import Recipe, read_recipe
from pipeline.errors import DataError
from tests.deploy.graphs import FULL, config, conv, graph_of, noise, save

WEIGHTS = {"stem.w": noise((4, 3, 3, 3), 0), "body.w": noise((4, 4, 3, 3), 1), "head.w": noise((2, 4, 3, 3), 2)}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """pixels -> stem -> clipped to 0..6 -> body -> rectified -> head on two levels, whose results are added."""
    bounds = {"low": np.float32(0), "high": np.float32(6)}
    nodes = [
        conv("pixels", "stem.w", "a"),
        helper.make_node("Clip", ["a", "low", "high"], ["a6"], name="clip"),
        conv("a6", "body.w", "b"),
        helper.make_node("Relu", ["b"], ["b0"], name="relu"),
        conv("b0", "head.w", "p"),
        conv("a6", "head.w", "q"),
        helper.make_node("Add", ["p", "q"], ["out"], name="sum"),
    ]
    return save(graph_of(nodes, WEIGHTS | {name: np.asarray(value) for name, value in bounds.items()}), tmp_path)


FEEDS = [{"pixels": noise((1, 3, 8, 8), seed, scale=1 + seed)} for seed in range(4)]


def quantize(graph: Path, recipe: Recipe) -> Path:
    """The INT8 file beside `graph`."""
    calibrate(graph, lambda: FEEDS, recipe.calibrator, graph.parent / "ranges.json")
    write_int8(graph, graph.parent / "ranges.json", recipe, graph.parent / "int8.onnx")
    return graph.parent / "int8.onnx"


def run(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, feed)[0]


@pytest.mark.parametrize("calibrator", ["minmax", "entropy", "percentile"])
def test_every_calibrator_gives_a_file_close_to_the_float_one(graph: Path, calibrator: str) -> None:
    file = quantize(graph, plan(onnx.load(graph), config(calibrator), FULL))
    assert count_int8(onnx.load(file)).share == 1
    wanted, found = run(graph, FEEDS[0]), run(file, FEEDS[0])
    assert 10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()) > 20


@pytest.mark.parametrize("calibrator", ["entropy", "percentile"])
def test_histograms_leave_out_an_outlier_that_minmax_follows(graph: Path, calibrator: str) -> None:
    spiked = [{"pixels": noise((64, 3, 8, 8), seed)} for seed in range(20)]  # one outlier among a quarter of a million
    spiked[7]["pixels"][0, 0, 0, 0] = 1000
    high = {}
    for name in ("minmax", calibrator):
        calibrate(graph, lambda: spiked, name, graph.parent / f"{name}.json")
        high[name] = read_ranges(graph.parent / f"{name}.json")["pixels"][1]
    assert high["minmax"] == 1000 and high[calibrator] < 900


def test_pictures_of_several_sizes_calibrate_together(tmp_path: Path) -> None:
    free = graph_of([conv("pixels", "stem.w", "out")], {"stem.w": WEIGHTS["stem.w"]})
    for axis in (2, 3):
        free.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    path = save(free, tmp_path)
    feeds = [{"pixels": noise((1, 3, 6, 8), 0)}, {"pixels": noise((1, 3, 10, 4), 1, scale=3)}]
    for calibrator in ("minmax", "entropy", "percentile"):
        calibrate(path, lambda: feeds, calibrator, tmp_path / "ranges.json")
        low, high = read_ranges(tmp_path / "ranges.json")["pixels"]
        assert low < -1 and high > 1


def test_minmax_ranges_are_the_extremes_of_all_pictures(graph: Path) -> None:
    calibrate(graph, lambda: FEEDS, "minmax", graph.parent / "ranges.json")
    pixels = np.stack([feed["pixels"] for feed in FEEDS])
    ranges = read_ranges(graph.parent / "ranges.json")
    assert ranges["pixels"] == (pixels.min(), pixels.max())
    assert ranges["a6"] == (0, 6) and ranges["b0"][0] == 0


def test_a_range_that_is_not_finite_is_refused(graph: Path) -> None:
    with pytest.raises(DataError, match="not finite"):
        calibrate(graph, lambda: [{"pixels": np.full((1, 3, 8, 8), np.inf, np.float32)}], "minmax", graph.parent / "ranges.json")


def test_what_is_quantized_is_what_comes_out_of_the_activation(graph: Path) -> None:
    """Between the convolution and its ReLU6 a range of tens would leave a handful of steps to 0..6."""
    file = onnx.load(quantize(graph, plan(onnx.load(graph), config(), FULL)))
    scales = {t.name: numpy_helper.to_array(t) for t in file.graph.initializer if t.name.endswith("_scale")}
    assert scales["a6_scale"] == pytest.approx(6 / 255) and "a_scale" not in scales and "b_scale" not in scales
    assert not {"Clip", "Relu"} & {node.op_type for node in file.graph.node}


def test_reduced_range_takes_seven_bits(graph: Path) -> None:
    for reduced, most in ((ReducedRange(False, ""), 127), (ReducedRange(True, ""), 64)):
        file = onnx.load(quantize(graph, plan(onnx.load(graph), config(), reduced)))
        weights = [
            numpy_helper.to_array(t) for t in file.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) == 4
        ]
        assert len(weights) == 3 and max(int(np.abs(w.astype(int)).max()) for w in weights) == most


def test_convolutions_are_counted_in_the_file_by_weight_and_by_node(graph: Path) -> None:
    model = onnx.load(graph)
    counts = count_int8(model)
    assert (counts.weights, counts.weights_int8, counts.nodes, counts.nodes_int8) == (3, 0, 4, 0)
    counts = count_int8(onnx.load(quantize(graph, plan(model, config(float_layers=("stem",)), FULL))))
    assert (counts.weights_int8, counts.nodes_int8) == (2, 3)
    assert counts.share == pytest.approx(2 / 3) and counts.share_nodes == pytest.approx(3 / 4)


def test_a_weight_that_also_runs_in_float_does_not_count_as_int8(graph: Path) -> None:
    file = onnx.load(quantize(graph, plan(onnx.load(graph), config(), FULL)))
    one = next(node for node in file.graph.node if node.name.startswith("node_head.w_q"))
    one.input[0] = "pixels"  # its data no longer comes out of a DequantizeLinear
    counts = count_int8(file)
    assert (counts.weights, counts.weights_int8, counts.nodes, counts.nodes_int8) == (3, 2, 4, 3)


def test_equal_inputs_give_equal_bytes(graph: Path) -> None:
    recipe = plan(onnx.load(graph), config("entropy"), FULL)
    first = quantize(graph, recipe).read_bytes()
    ranges = (graph.parent / "ranges.json").read_bytes()
    assert quantize(graph, recipe).read_bytes() == first and (graph.parent / "ranges.json").read_bytes() == ranges
    onnx.checker.check_model(onnx.load(graph.parent / "int8.onnx"), full_check=True)


def test_keeping_everything_in_float_changes_no_result(graph: Path) -> None:
    recipe = plan(onnx.load(graph), config(float_layers=("stem", "body", "head")), FULL)
    assert recipe.quantized == () and recipe.share == 0
    np.testing.assert_array_equal(run(quantize(graph, recipe), FEEDS[0]), run(graph, FEEDS[0]))


def test_a_name_that_fits_no_convolution_is_a_mistake(graph: Path) -> None:
    with pytest.raises(DataError, match="no convolution's name begins with 'stam'"):
        plan(onnx.load(graph), config(float_layers=("stam",)), FULL)
    recipe = replace(plan(onnx.load(graph), config(), FULL), quantized=("other.w",))
    with pytest.raises(DataError, match=r"no convolution other\.w"):
        quantized(onnx.load(graph), {}, recipe)


def test_a_recipe_survives_its_file_and_another_json_does_not_pass_for_one(graph: Path) -> None:
    recipe = plan(onnx.load(graph), config(), FULL, kept=("body.w",))
    assert recipe.kept_float == ("body.w",)
    recipe.write(graph.parent / "recipe.json")
    assert read_recipe(graph.parent / "recipe.json") == recipe
    (graph.parent / "other.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match=r"other\.json: is no quantization recipe"):
        read_recipe(graph.parent / "other.json")
    with pytest.raises(DataError, match=r"other\.json: holds no calibrated ranges"):
        read_ranges(graph.parent / "other.json")


def test_samples_are_seeded_without_repeats_and_do_not_overlap() -> None:
    assert sample(100, 10, seed=1) == sample(100, 10, seed=1) != sample(100, 10, seed=2)
    assert len(set(sample(100, 10, seed=1))) == 10 and sample(5, 10, seed=1) == list(range(5))
    first, second = set(sample(100, 10, seed=1)), set(sample(100, 60, seed=1, skip=10))
    assert len(first | second) == 70


@pytest.mark.parametrize("count, calibrated, held", [(200, 4, 4), (6, 3, 3), (7, 4, 3), (2, 1, 1)])
def test_pictures_to_judge_by_were_not_calibrated_on(count: int, calibrated: int, held: int) -> None:
    drawn = Pictures.draw(count, config(), seed=0)
    assert (len(drawn.calibration), len(drawn.held)) == (calibrated, held)
    assert not set(drawn.calibration) & set(drawn.held) and set(drawn.few) <= set(drawn.calibration)


def test_a_single_picture_serves_for_both() -> None:
    drawn = Pictures.draw(1, config(), seed=0)
    assert drawn.calibration == drawn.held == drawn.few == [0]
