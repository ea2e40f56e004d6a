"""Small graphs for the tests of this folder, and what they need around them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from pipeline.deploy.config import QuantizeConfig
from pipeline.deploy.host import ReducedRange

FULL = ReducedRange(False, "a test")


def graph_of(nodes: Sequence[NodeProto], weights: dict[str, np.ndarray], output: str = "out", channels: int = 3) -> ModelProto:
    """pixels [n, channels, 8, 8] -> `output`, float32, opset 20."""
    ends = [
        helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", channels, 8, 8]),
        helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", "c", "h", "w"]),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def conv(source: str, weight: str, target: str) -> NodeProto:
    """A 3x3 convolution that keeps the size; its node is named after the weight."""
    return helper.make_node("Conv", [source, weight], [target], name=f"node_{weight}_{target}", pads=[1] * 4)


def noise(shape: Sequence[int], seed: int, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def save(model: ModelProto, folder: Path, name: str = "graph.onnx") -> Path:
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / name)
    return folder / name


def config(calibrator: str = "minmax", float_layers: tuple[str, ...] = (), share_least: float = 0.8) -> QuantizeConfig:
    return QuantizeConfig(
        pictures=4,
        calibrator=calibrator,  # type: ignore[arg-type]
        per_channel=True,
        reduce_range=False,
        float_layers=float_layers,
        share_least=share_least,
        sensitivity_pictures=2,
        held_pictures=4,
        held_loss=0.01,
        opset=20,
    )
