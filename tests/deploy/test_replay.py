"""Choices are replayed: what is left of the graph is smooth, and exact."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper

from pipeline.deploy.replay import open_session, record, replayable
from pipeline.errors import UserError
from tests.deploy.graphs import conv, graph_of, noise

FEED = {"pixels": noise((1, 3, 8, 8), 0)}


def two_stages() -> ModelProto:
    """A first convolution scores 64 cells; the two best cells' features go into a second one (as boxes go into a head)."""
    weights = {
        "first": noise((1, 3, 3, 3), 1),
        "second": noise((3, 1, 1, 1), 2),
        "k": np.array([2]),
        "row": np.array([1, 1, 64]),
        "square": np.array([1, 1, 1, 2]),
        "zero": np.float32(0),
    }
    nodes = [
        conv("pixels", "first", "scores"),
        helper.make_node("Reshape", ["scores", "row"], ["flat"], name="flatten"),
        helper.make_node("TopK", ["flat", "k"], ["best", "where"], name="top", axis=-1),
        helper.make_node("Greater", ["best", "zero"], ["good"], name="threshold"),
        helper.make_node("Where", ["good", "best", "zero"], ["kept"], name="keep"),
        helper.make_node("Reshape", ["kept", "square"], ["cells"], name="unflatten"),
        helper.make_node("Conv", ["cells", "second"], ["out"], name="head"),
    ]
    return graph_of(nodes, {name: np.asarray(value) for name, value in weights.items()})


def test_choices_are_indices_and_comparisons_and_the_end_is_the_last_convolution() -> None:
    replay = replayable(two_stages())
    assert replay.choices == ("where", "good") and replay.ends == {"second": ("out",)}
    assert not {"TopK", "Greater"} & {node.op_type for node in replay.model.graph.node}


def test_the_float_graph_replayed_is_the_float_graph() -> None:
    model = two_stages()
    replay = replayable(model)
    picture = record(model, replay, [FEED], threads=1)[0]
    original = open_session(model, 1, optimize=False).run(["out"], FEED)[0]
    np.testing.assert_array_equal(picture.ends["out"], original)
    np.testing.assert_array_equal(open_session(replay.model, 1, optimize=False).run(["out"], picture.feed)[0], original)


def test_a_change_that_swaps_the_order_does_not_jump() -> None:
    """With the scores' sign turned TopK would take the worst cells: replayed, the values at the same cells are what changes."""
    model = two_stages()
    replay = replayable(model)
    picture = record(model, replay, [FEED], threads=1)[0]
    turned = ModelProto()
    turned.CopyFrom(replay.model)
    weight = next(tensor for tensor in turned.graph.initializer if tensor.name == "first")
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), "first"))
    found = open_session(turned, 1, optimize=False).run(["out"], picture.feed)[0]
    np.testing.assert_allclose(found, -picture.ends["out"], rtol=1e-6)


def test_boxes_that_say_where_to_look_do_not_hide_the_first_stage() -> None:
    """The first stage's deltas go into RoIAlign as boxes, and a head follows: both are ends."""
    weights = {"deltas": noise((4, 3, 8, 8), 1), "head": noise((2, 3, 1, 1), 2), "rows": np.array([1, 4]), "image": np.array([0])}
    nodes = [
        helper.make_node("Conv", ["pixels", "deltas"], ["d"], name="rpn"),
        helper.make_node("Reshape", ["d", "rows"], ["boxes"], name="reshape"),
        helper.make_node("RoiAlign", ["pixels", "boxes", "image"], ["regions"], name="align", output_height=2, output_width=2),
        helper.make_node("Conv", ["regions", "head"], ["out"], name="head"),
    ]
    assert replayable(graph_of(nodes, weights)).ends == {"deltas": ("d",), "head": ("out",)}


def test_a_graph_without_convolutions_is_refused() -> None:
    node = helper.make_node("Relu", ["pixels"], ["out"], name="relu")
    with pytest.raises(UserError, match="no convolution that its pixels reach"):
        replayable(graph_of([node], {}))
