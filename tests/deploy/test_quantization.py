"""Which convolutions become INT8, on a graph of two."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.deploy.config import QuantizeConfig
from pipeline.deploy.quantization import calibrate, plan, read_recipe, sample, write_int8
from pipeline.errors import DataError


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """pixels -> stem -> body, 3x3 convolutions of 3 channels."""
    chance = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(chance.normal(size=(3, 3, 3, 3)).astype(np.float32), name) for name in ("stem.w", "body.w")
    ]
    nodes = [
        helper.make_node("Conv", ["pixels", "stem.w"], ["middle"], name="first", pads=[1] * 4),
        helper.make_node("Conv", ["middle", "body.w"], ["out"], name="second", pads=[1] * 4),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 8, 8]) for name in ("pixels", "out")]
    model = helper.make_model(
        helper.make_graph(nodes, "two", ends[:1], ends[1:], weights), opset_imports=[helper.make_opsetid("", 20)]
    )
    model.ir_version = 10
    onnx.save(model, tmp_path / "two.onnx")
    return tmp_path / "two.onnx"


def config(calibrator: str = "minmax", float_layers: tuple[str, ...] = ()) -> QuantizeConfig:
    return QuantizeConfig(
        pictures=4,
        calibrator=calibrator,
        per_channel=True,
        reduce_range=True,
        float_layers=float_layers,
        float_depthwise=False,
        opset=20,
    )  # type: ignore[arg-type]


def in_int8(path: Path) -> set[str]:
    return {
        tensor.name
        for tensor in onnx.load(path).graph.initializer
        if tensor.data_type == TensorProto.INT8 and "weight" not in tensor.name and tensor.name.endswith("quantized")
    }


@pytest.mark.parametrize("calibrator", ["minmax", "entropy", "percentile"])
def test_every_calibrator_quantizes_the_planned_layers_alone(graph: Path, calibrator: str) -> None:
    cfg = config(calibrator)
    recipe = plan(graph, cfg)
    assert recipe.quantized == ("body.w",) and recipe.kept_float == ("stem.w",)
    feeds = [{"pixels": np.random.default_rng(seed).normal(size=(1, 3, 8, 8)).astype(np.float32)} for seed in range(4)]
    calibrate(graph, feeds, cfg, graph.parent / "ranges.json")
    write_int8(graph, graph.parent / "ranges.json", recipe, graph.parent / "int8.onnx")
    assert in_int8(graph.parent / "int8.onnx") == {"body.w_quantized"}


def test_keeping_everything_in_float_changes_nothing(graph: Path) -> None:
    recipe = plan(graph, config(float_layers=("body",)))
    assert recipe.quantized == () and recipe.share == 0
    write_int8(graph, graph.parent / "none.json", recipe, graph.parent / "int8.onnx")
    assert (graph.parent / "int8.onnx").read_bytes() == graph.read_bytes()


def test_a_recipe_survives_its_file_and_another_json_does_not_pass_for_one(graph: Path) -> None:
    recipe = plan(graph, config())
    recipe.write(graph.parent / "recipe.json")
    assert read_recipe(graph.parent / "recipe.json") == recipe
    (graph.parent / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"other\.json: is no quantization recipe"):
        read_recipe(graph.parent / "other.json")


def test_the_sample_is_seeded_without_repeats_and_never_longer_than_the_data() -> None:
    assert sample(100, 10, seed=1) == sample(100, 10, seed=1) != sample(100, 10, seed=2)
    assert len(set(sample(100, 10, seed=1))) == 10 and sample(5, 10, seed=1) == list(range(5))


def test_depthwise_layers_stay_in_float_when_asked(tmp_path: Path) -> None:
    shapes = {"stem.w": (4, 3, 1, 1), "dw.w": (4, 1, 3, 3), "pw.w": (4, 4, 1, 1)}
    weights = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in shapes.items()]
    places = ["pixels", "a", "b", "out"]
    nodes = [
        helper.make_node("Conv", [places[i], name], [places[i + 1]], name=f"n{i}", group=4 if name == "dw.w" else 1)
        for i, name in enumerate(shapes)
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("pixels", "out")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "three", ends[:1], ends[1:], weights)), tmp_path / "three.onnx")
    assert plan(tmp_path / "three.onnx", config()).quantized == ("dw.w", "pw.w")
    assert plan(tmp_path / "three.onnx", replace(config(), float_depthwise=True)).quantized == ("pw.w",)
