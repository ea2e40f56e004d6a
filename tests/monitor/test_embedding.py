"""The inner layer of an exported file: found, mean-pooled, and without an effect on what the file finds."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from pipeline.monitor.embedding import descriptors, widest_layer, with_features
from tests.predict.toy import write_toy

WEIGHT = np.random.default_rng(0).normal(size=(5, 3, 1, 1)).astype(np.float32)


def with_convolutions(path: Path) -> None:
    """Three of them: 5 channels, 2, and 8 in the place of a depthwise one, on the pixels of the toy."""
    model = onnx.load(str(path))
    model.graph.initializer.append(numpy_helper.from_array(WEIGHT, "wide"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 5, 1, 1), np.float32), "thin"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 1, 1, 1), np.float32), "each"))
    model.graph.node.append(helper.make_node("Conv", ["pixels_f", "wide"], ["seen"]))
    model.graph.node.append(helper.make_node("Conv", ["seen", "thin"], ["less"]))
    model.graph.node.append(helper.make_node("Tile", ["less", "four"], ["tiled"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 4, 1, 1], np.int64), "four"))
    model.graph.node.append(helper.make_node("Conv", ["tiled", "each"], ["depthwise"], group=8))
    onnx.save(model, str(path))


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (64, 96, 3), dtype=np.uint8)


def test_the_widest_convolution_is_pooled_and_the_file_finds_the_same(tmp_path, picture):
    path = write_toy(tmp_path / "onnx") / "detector.onnx"
    with_convolutions(path)
    assert widest_layer(onnx.load(str(path))) == "seen"
    backend = with_features(path, tmp_path / "copy/features.onnx")
    assert backend is not None and backend.layer == "seen"
    pixels_13HW, sizes_12 = picture.transpose(2, 0, 1)[None], np.array([[64, 96]])
    found = backend(pixels_13HW, sizes_12)
    np.testing.assert_allclose(backend.pooled, WEIGHT[:, :, 0, 0] @ picture.mean(axis=(0, 1)), rtol=1e-4)
    plain = onnx.load(str(path))
    assert "seen" not in {output.name for output in plain.graph.output} and "seen" not in found
    assert found["scores"].shape == (1, 3)


def test_a_file_without_convolutions_has_no_layer(tmp_path):
    assert with_features(write_toy(tmp_path / "onnx") / "detector.onnx", tmp_path / "copy.onnx") is None
    assert not (tmp_path / "copy.onnx").exists()


def test_descriptors_tell_colours_and_edges_apart_and_are_finite(picture):
    grey = np.full((64, 96, 3), 128, np.uint8)
    stripes = grey.copy()
    stripes[:, ::8] = 255
    vectors = [descriptors(image) for image in (grey, stripes, stripes.transpose(1, 0, 2), picture)]
    assert len({vector.shape for vector in vectors}) == 1 and all(np.isfinite(vector).all() for vector in vectors)
    apart = [float(abs(one - other).max()) for place, one in enumerate(vectors) for other in vectors[:place]]
    assert min(apart) > 0.1
