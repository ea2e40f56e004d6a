"""The ONNX file of every manifest's model on the kit's pictures: equal to torch, through ONNX Runtime."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.deploy.onnx import export_onnx
from tests.parity.case import Case, close

pytestmark = pytest.mark.parity

LIMITS = {"boxes": 0.01, "scores": 1e-4, "labels": 0.0, "count": 0.0}
"""Largest difference: pixels, probability, and none."""
FLIPPED = 0.001
"""Share of a mask's cells that may lie on the other side of one half."""
RELATIVE = 1e-3
"""Of other outputs: largest difference over the largest value."""


def test_onnx_equals_torch(case: Case, tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "detector.onnx"
    export_onnx(case.model, path, opset=20)
    session = onnxruntime.InferenceSession(path)
    batch = {"pixels": case.images.pixels_N3HW.numpy(), "sizes": case.images.sizes_N2.numpy()}
    if case.images.proposals_NP4 is not None:
        batch["proposals"] = case.images.proposals_NP4.numpy()
    names = [output.name for output in session.get_outputs()]
    expected = case.found.named()
    assert names == list(expected)
    found = dict(zip(names, session.run(names, batch), strict=True))
    for name, values in expected.items():
        if name in LIMITS:
            close(found[name], values, atol=LIMITS[name], what=name)
        elif name == "masks":
            real = case.found.named()["labels"] >= 0
            flipped = ((torch.from_numpy(found[name]) > 0.5) != (values > 0.5))[real].float().mean(dim=(1, 2))
            one_cell = 1 / values[0, 0].numel()  # a mask of 28 x 28 cells cannot express a thousandth
            assert len(flipped) and float(flipped.max()) <= max(FLIPPED, one_cell) and float(flipped.mean()) <= FLIPPED
        else:
            close(found[name], values, atol=RELATIVE * float(np.abs(values).max()), what=name)
