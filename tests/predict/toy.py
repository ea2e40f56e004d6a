"""An exported detector small enough to read: its boxes are fixed shares of the picture, its first score is channel 0's mean."""

from pathlib import Path

import numpy as np
import orjson

from pipeline.files import digest_file

SHARES_D4 = np.array([[0.0, 0.0, 0.5, 0.5], [0.5, 0.25, 1.5, 1.25], [1.2, 0.0, 1.4, 0.5]], np.float32)
"""Top left quarter; lower right, sticking out; and one outside the picture, which postprocessing must drop."""
SCORES_D = np.array([1.0, 0.6, 0.4], np.float32)
LABELS_D = np.array([1, 0, 0], np.int64)


MASKS_DMM = np.stack([np.ones((4, 4)), np.kron([[1, 1], [0, 0]], np.ones((2, 2))), np.zeros((4, 4))]).astype(np.float32)
"""A full mask, the upper half of a box, and nothing."""


def write_toy(folder: Path, channels: str = "rgb", broken: bool = False, masks: bool = False) -> Path:
    """deploy.json and detector.onnx in `folder`; the float and the INT8 entry name the same file."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    d = len(SCORES_D)
    constants = {
        "shares": SHARES_D4[None],
        "scales": np.array([1 / 255, 0, 0], np.float32).reshape(1, 3),
        "mix": np.eye(3, d, dtype=np.float32),
        "others": (SCORES_D * [0, 1, 1]).astype(np.float32)[None],
        "labels_1D": LABELS_D[None],
        "ones_D": np.ones((1, d), np.int64),
        "whxy": np.array([1, 0, 1, 0], np.int64),
        "axes": np.array([2, 3], np.int64),
        "axis1": np.array([1], np.int64),
    }
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    nodes = [
        helper.make_node("Cast", ["sizes"], ["sizes_f"], to=f32),
        helper.make_node("Gather", ["sizes_f", "whxy"], ["wh_N4"], axis=1),
        helper.make_node("Unsqueeze", ["wh_N4", "axis1"], ["wh_N14"]),
        helper.make_node("Mul", ["wh_N14", "shares"], ["boxes"]),
        helper.make_node("Cast", ["pixels"], ["pixels_f"], to=f32),
        helper.make_node("ReduceMean", ["pixels_f", "axes"], ["means_N3"], keepdims=0),
        helper.make_node("Mul", ["means_N3", "scales"], ["scaled_N3"]),
        helper.make_node("MatMul", ["scaled_N3", "mix"], ["first_ND"]),
        helper.make_node("Add", ["first_ND", "others"], ["scores"]),
        helper.make_node("ReduceSum", ["sizes", "axis1"], ["any_N1"], keepdims=1),
        helper.make_node("Sub", ["any_N1", "any_N1"], ["zero_N1"]),
        helper.make_node("Add", ["zero_N1", "labels_1D"], ["labels"]),
        helper.make_node("Add", ["zero_N1", "ones_D"], ["ones_ND"]),
        helper.make_node("ReduceSum", ["ones_ND", "axis1"], ["count"], keepdims=0),
    ]
    if masks:
        constants |= {"masks_1DMM": MASKS_DMM[None], "axes23": np.array([2, 3], np.int64)}
        nodes += [
            helper.make_node("Sub", ["scores", "scores"], ["zero_ND"]),
            helper.make_node("Unsqueeze", ["zero_ND", "axes23"], ["zero_ND11"]),
            helper.make_node("Add", ["zero_ND11", "masks_1DMM"], ["masks"]),
        ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [
            helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", 3, "H", "W"]),
            helper.make_tensor_value_info("sizes", i64, ["N", 2]),
        ],
        [
            helper.make_tensor_value_info("boxes", f32, ["N", d, 4]),
            helper.make_tensor_value_info("scores", f32, ["N", d]),
            helper.make_tensor_value_info("labels", i64, ["N", d]),
            helper.make_tensor_value_info("count", i64, ["N"]),
            *([helper.make_tensor_value_info("masks", f32, ["N", d, 4, 4])] if masks else []),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "detector.onnx").write_bytes(b"not a graph" if broken else model.SerializeToString())
    file = {"file": "detector.onnx", "digest": digest_file(folder / "detector.onnx")}
    deploy = {
        "input": {"short_side": 64, "long_side": 96, "channels": channels, "mean": [0, 0, 0], "std": [1, 1, 1]},
        "divisor": 32,
        "classes": ["cell", "plate"],
        "category_ids": [3, 7],
        "files": {"onnx": file, "int8": file},
    }
    (folder / "deploy.json").write_bytes(orjson.dumps(deploy))
    return folder
