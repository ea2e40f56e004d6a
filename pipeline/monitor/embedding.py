"""A vector per picture that says what the detector sees, without torch: an inner layer of its ONNX file, mean-pooled.

The layer is the last of the widest convolutions that mix channels: in a backbone's last stage, where features are the most
abstract. The file is not changed; a copy that also gives this layer lies in work/. A file whose raw heads are decoded outside,
or one without convolutions, gives no layer: then colours and edges of the picture itself stand in (`descriptors`).
"""

from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.files import write_atomically
from pipeline.predict.postprocess import RawDetections
from pipeline.predict.preprocess import Pixels, resize
from pipeline.predict.session import OnnxBackend

if TYPE_CHECKING:
    from onnx import ModelProto

SIDE = 64
"""Pixels a side that descriptors are measured on."""
CELLS = 8
"""Cells of a histogram of colour or of edge directions."""
SCALES = 3


class FeatureBackend(OnnxBackend):
    """A file that also gives one inner layer: `pooled` is its mean over all places, of the picture predicted last."""

    def __init__(self, path: Path, layer: str, threads: int = 0) -> None:
        super().__init__(path, threads)
        self.layer = layer
        self.pooled: NDArray[np.float32] = np.zeros(0, np.float32)

    def __call__(
        self, pixels_N3HW: Pixels, sizes_N2: NDArray[np.int64], proposals_NP4: NDArray[np.float32] | None = None
    ) -> RawDetections:
        """As the plain file; one picture at a time."""
        found = cast("dict[str, NDArray[np.float32]]", super().__call__(pixels_N3HW, sizes_N2, proposals_NP4))
        values_NChw = found.pop(self.layer)
        self.pooled = values_NChw.mean(
            axis=tuple(axis for axis in range(values_NChw.ndim) if axis != 1), dtype=np.float64
        ).astype(np.float32)
        return cast(RawDetections, found)


def with_features(path: Path, copy: Path, threads: int = 0) -> FeatureBackend | None:
    """The detector at `path` with an inner layer, by a file written to `copy`; None where it exposes none."""
    import onnx

    if OnnxBackend(path, threads).raw_heads is not None:
        return None
    model = onnx.load(str(path))
    layer = widest_layer(model)
    if layer is None:
        return None
    if not copy.exists():
        if layer not in {output.name for output in model.graph.output}:
            model.graph.output.append(onnx.helper.make_tensor_value_info(layer, onnx.TensorProto.FLOAT, None))
        write_atomically(copy, model.SerializeToString())
    return FeatureBackend(copy, layer, threads)


def widest_layer(model: "ModelProto") -> str | None:
    """The output of the last of the convolutions with the most channels out, depthwise ones aside."""
    shapes = {weights.name: tuple(weights.dims) for weights in model.graph.initializer}
    best, layer = 0, None
    for node in model.graph.node:
        if node.op_type != "Conv" or len(shape := shapes.get(node.input[1], ())) != 4 or shape[1] == 1:
            continue
        if shape[0] >= best:
            best, layer = shape[0], str(node.output[0])
    return layer


def descriptors(image_HW3: Pixels) -> NDArray[np.float32]:
    """Colours and edges of an RGB picture [3 CELLS + CELLS + SCALES]: histograms, and the strength of edges at three scales."""
    small_HW3 = resize(image_HW3, SIDE, SIDE).astype(np.float64) / 255
    colours = [np.histogram(small_HW3[:, :, channel], CELLS, (0, 1))[0] / SIDE**2 for channel in range(3)]
    grey_HW = small_HW3.mean(axis=2)
    down_HW, across_HW = np.gradient(grey_HW)
    strength_HW = np.hypot(down_HW, across_HW)
    angle_HW = np.arctan2(down_HW, across_HW) % np.pi
    directions = np.histogram(angle_HW, CELLS, (0, np.pi), weights=strength_HW)[0] / max(float(strength_HW.sum()), 1e-9)
    strengths = [np.log(np.abs(np.diff(grey_HW[:: 2**scale], axis=0)).mean() + 1e-3) for scale in range(SCALES)]
    return np.concatenate([*colours, directions, strengths]).astype(np.float32)
