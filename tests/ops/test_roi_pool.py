"""Max-pooling of regions against its definition, torchvision, and in ONNX Runtime."""

import math
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import ops_cuda

SCALES = [0.5, 0.25]


def given(dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 3, side, side + 2, generator=generator, dtype=dtype) for side in (16, 8)]
    corner = torch.rand(9, 2, generator=generator, dtype=dtype) * 24
    boxes = torch.cat([corner, corner + torch.rand(9, 2, generator=generator, dtype=dtype) * 20], dim=1)
    boxes[0], boxes[1] = torch.tensor([40.0, 40, 50, 50]), torch.tensor([3.0, 3, 3, 3])  # outside, and a point
    return features, boxes, torch.tensor([0, 1, 1, 0, 1, 0, 1, 0, 0]), torch.tensor([0, 0, 1, 1, 0, 1, 0, 0, -1])


def by_definition(features: list[np.ndarray], boxes: np.ndarray, image: np.ndarray, level: np.ndarray, size: int) -> np.ndarray:
    out = np.zeros((len(boxes), features[0].shape[1], size, size))
    for m, (box, n, number) in enumerate(zip(boxes, image, level, strict=True)):
        if number < 0:
            continue
        feature = features[number][n]
        x1, y1, x2, y2 = (math.floor(abs(v) + 0.5) for v in box * SCALES[number])
        height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
        for i, j in np.ndindex(size, size):
            rows = range(max(0, y1 + i * height // size), min(feature.shape[1], y1 + -(-(i + 1) * height // size)))
            columns = range(max(0, x1 + j * width // size), min(feature.shape[2], x1 + -(-(j + 1) * width // size)))
            if len(rows) and len(columns):
                out[m, :, i, j] = feature[:, rows.start : rows.stop, columns.start : columns.stop].max(axis=(1, 2))
    return out


def test_equals_its_definition_and_torchvision() -> None:
    features, boxes, image, level = given()
    regions = ops_cuda.roi_pool(features, boxes, image, level, SCALES, (3, 3))
    arrays = [feature.numpy() for feature in features]
    np.testing.assert_allclose(regions, by_definition(arrays, boxes.numpy(), image.numpy(), level.numpy(), 3), atol=1e-6)
    for number, (feature, scale) in enumerate(zip(features, SCALES, strict=True)):
        rois = torch.cat([image[:, None].float(), boxes], 1)[level == number]
        assert torch.equal(regions[level == number], torchvision.ops.roi_pool(feature, rois, (3, 3), scale))
    assert not regions[level == -1].any() and not regions[0].any() and regions[1].any()


def test_gradients_reach_the_largest_features_only() -> None:
    features, boxes, image, level = given(torch.float64)
    leaves = [feature.requires_grad_() for feature in features]
    torch.autograd.gradcheck(lambda *f: ops_cuda.roi_pool(f, boxes, image, level, SCALES, (2, 2)), leaves, fast_mode=True)


class _Layer(nn.Module):
    def forward(self, first: Tensor, second: Tensor, boxes: Tensor, image: Tensor, level: Tensor) -> Tensor:
        return ops_cuda.roi_pool([first, second], boxes, image, level, SCALES, (3, 3))


def test_onnx_runtime_gives_the_same(tmp_path: Path) -> None:
    import onnxruntime

    features, boxes, image, level = given()
    inputs = (*features, boxes, image, level)
    rows = torch.export.Dim("rows")
    program = torch.onnx.export(
        _Layer().eval(),
        inputs,
        dynamo=True,
        opset_version=20,
        dynamic_shapes=(None, None, {0: rows}, {0: rows}, {0: rows}),
        custom_translation_table=ops_cuda.onnx_translations(),
        verbose=False,
    )
    program.save(tmp_path / "pool.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "pool.onnx")
    for count in (9, 4):
        cut = (*features, boxes[:count], image[:count], level[:count])
        feed = {node.name: value.numpy() for node, value in zip(session.get_inputs(), cut, strict=True)}
        np.testing.assert_allclose(session.run(None, feed)[0], _Layer()(*cut), atol=1e-6)
