"""The exported graph with its choices replayed, so that what quantization does to it can be measured as a smooth signal.

A detector's outputs jump: a score that moves by a thousandth changes which box `TopK` or NMS takes, and then every row after it.
So each number that is not a float but was computed from floats (indices of TopK and NMS, comparisons, a box's pyramid level) is
taken from a run of the float file and fed in. What is left is smooth, through both stages and every head. Measured are its ends:
the outputs of the weighted operators that no other one follows, which are the logits and deltas of each stage.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto, NodeProto, TensorProto, helper, shape_inference

from pipeline.errors import UserError

Arrays = dict[str, np.ndarray]
PIXELS = "pixels"
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
ABOUT_SHAPES = ("Shape", "Size")
"""Depend on a tensor's size alone, not on what is in it."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A graph whose choices are inputs and whose outputs are the ends."""

    model: ModelProto
    choices: tuple[str, ...]
    ends: dict[str, tuple[str, ...]]
    """Name of the weight -> the tensors that it gives: a head shared by pyramid levels gives several."""

    @property
    def outputs(self) -> list[str]:
        """All ends, in a fixed order."""
        return [name for names in self.ends.values() for name in names]


@dataclass(frozen=True, slots=True)
class Recorded:
    """One picture: what to feed to the replayed graph, and what the float file's ends were."""

    feed: Arrays
    ends: Arrays


def replayable(model: ModelProto) -> Replay:
    """Cut `model` (an exported detector) at its choices. UserError when it has no weighted operator behind the pixels."""
    model = shape_inference.infer_shapes(model, data_prop=True)
    types = _types(model)
    moving, choices = _moving(model, types)
    ends = _ends(model, moving)
    if not ends:
        raise UserError("the graph has no convolution that its pixels reach: there is nothing to quantize")
    nodes = [_without_choice(node, choices) for node in model.graph.node]
    outputs = [name for names in ends.values() for name in names]
    kept = _needed([node for node in nodes if node is not None], outputs)
    used = {name for node in kept for name in node.input}
    inputs = [value for value in model.graph.input if value.name in used]
    inputs += [helper.make_tensor_value_info(name, types[name], None) for name in choices if name in used]
    cut = helper.make_graph(
        kept,
        "replay",
        inputs,
        [helper.make_tensor_value_info(name, types[name], None) for name in outputs],
        [tensor for tensor in model.graph.initializer if tensor.name in used],
        value_info=[value for value in model.graph.value_info if value.name in used],
    )
    made = helper.make_model(cut, opset_imports=model.opset_import, ir_version=model.ir_version)
    return Replay(made, tuple(name for name in choices if name in used), ends)


def record(model: ModelProto, replay: Replay, feeds: Iterable[Arrays], threads: int) -> list[Recorded]:
    """Run the float graph on each picture and keep its choices and its ends."""
    watched = ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in watched.graph.output}
    types = _types(shape_inference.infer_shapes(model, data_prop=True))
    wanted = [*replay.choices, *replay.outputs]
    watched.graph.output.extend(helper.make_tensor_value_info(name, types[name], None) for name in wanted if name not in known)
    session = open_session(watched, threads, optimize=False)
    asked = {value.name for value in replay.model.graph.input}
    recorded = []
    for feed in feeds:
        found = dict(zip(wanted, session.run(wanted, feed), strict=True))
        given = {name: value for name, value in feed.items() if name in asked}
        recorded.append(
            Recorded(
                given | {name: found[name] for name in replay.choices},
                {name: found[name] for name in replay.outputs},
            )
        )
    return recorded


def open_session(model: ModelProto, threads: int, optimize: bool) -> onnxruntime.InferenceSession:
    """A session of a graph in memory; `optimize=False` computes every node as it is written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _types(model: ModelProto) -> dict[str, int]:
    graph = model.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def _moving(model: ModelProto, types: dict[str, int]) -> tuple[set[str], list[str]]:
    """Tensors that the pixels' values reach without a choice in between, and the choices, in the graph's order."""
    moving, choices = {PIXELS}, []
    for node in model.graph.node:
        sources = [name for name in node.input if name in moving]
        if node.op_type in ABOUT_SHAPES or not sources:
            continue
        from_float = any(types.get(name) in FLOATS for name in sources)
        for name in filter(None, node.output):
            if types.get(name) in FLOATS or not from_float:
                moving.add(name)
            else:
                choices.append(name)
    return moving, choices


def _ends(model: ModelProto, moving: set[str]) -> dict[str, tuple[str, ...]]:
    """Outputs of weighted nodes from which the pixels' values reach no other weighted node, by the name of the weight.

    Where boxes go into RoIAlign they say where to look, not what is there: that way does not count.
    """
    goes_on: set[str] = set()
    ends: dict[str, list[str]] = {}
    for node in reversed(model.graph.node):
        weighted = node.op_type in WEIGHTED and node.input[0] in moving
        if weighted and node.output[0] not in goes_on:
            ends.setdefault(node.input[1], []).insert(0, node.output[0])
        if weighted or any(name in goes_on for name in node.output):
            seen = node.input[:1] if node.op_type == "RoiAlign" else node.input
            goes_on.update(name for name in seen if name in moving)
    return {name: tuple(ends[name]) for name in sorted(ends)}


def _without_choice(node: NodeProto, choices: Sequence[str]) -> NodeProto | None:
    """`node` without its chosen outputs: none is left of most; TopK's values are gathered at the indices that are fed."""
    if not any(name in choices for name in node.output):
        return node
    if node.op_type == "TopK" and node.output[0]:
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), -1)
        return helper.make_node("GatherElements", [node.input[0], node.output[1]], [node.output[0]], node.name, axis=axis)
    return None


def _needed(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> list[NodeProto]:
    """The nodes that `outputs` are computed from, in order."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if any(name in wanted for name in node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]
