"""An exported file through ONNX Runtime, and the ways in which models/onnx can be wrong."""

import numpy as np
import orjson
import pytest

from pipeline.errors import DataError
from pipeline.predict.session import Detector, OnnxBackend
from tests.predict.toy import write_toy


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy") / "onnx")


def picture(height: int, width: int, red: int, blue: int) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, :, 0], image[:, :, 2] = red, blue
    return image


def test_boxes_come_back_in_the_pictures_own_pixels(toy):
    found = Detector.open(toy).predict(picture(128, 192, 255, 0))
    np.testing.assert_allclose(found.boxes_D4, [[0, 0, 96, 64], [96, 32, 192, 128]], atol=1e-4)
    assert found.classes == ["plate", "cell"]
    assert found.labels_D.tolist() == [1, 0]
    np.testing.assert_allclose(found.scores_D, [1, 0.6], atol=1e-6)


def test_the_threshold_includes_itself(toy):
    detector = Detector.open(toy)
    assert len(detector.predict(picture(64, 96, 255, 0), 0.7).classes) == 1
    exact = float(detector.predict(picture(64, 96, 255, 0)).scores_D[1])
    assert len(detector.predict(picture(64, 96, 255, 0), exact).classes) == 2


def test_channel_order_is_the_models(toy, tmp_path):
    blue = picture(64, 96, 0, 255)
    assert Detector.open(toy).predict(blue).scores_D[0] == 0
    assert Detector.open(write_toy(tmp_path / "bgr", "bgr")).predict(blue).scores_D[0] == pytest.approx(1)


def test_a_batch_of_different_sizes_equals_one_by_one(toy):
    detector = Detector.open(toy, "int8", optimize=False)
    images = [picture(128, 192, 255, 0), picture(50, 40, 255, 0), picture(300, 100, 255, 0)]
    for image, together in zip(images, detector.predict_batch(images), strict=True):
        np.testing.assert_array_equal(together.boxes_D4, detector.predict(image).boxes_D4)


def test_missing_export_says_what_to_run(tmp_path):
    with pytest.raises(DataError, match=r"(?s)deploy\.json.*python -m pipeline export"):
        Detector.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"input": {"short_side": 64, "long_side": 96, "channels": "grey"}}, "grey"),
        ({"classes": 5}, "deploy.json"),
        ({"files": {}}, "'onnx' is missing"),
        ({"files": {"onnx": {"file": "../detector.onnx", "digest": ""}}}, "leaves the folder"),
        ({"files": {"onnx": {"file": "detector.onnx", "digest": "0" * 32}}}, "detector.onnx: is not the file that deploy.json"),
        ({"files": {"onnx": {"file": "gone.onnx", "digest": ""}}}, "gone.onnx: no such file"),
    ],
)
def test_a_wrong_description_is_one_clear_error(tmp_path, change, names):
    folder = write_toy(tmp_path)
    deploy = orjson.loads((folder / "deploy.json").read_bytes())
    (folder / "deploy.json").write_bytes(orjson.dumps(deploy | change))
    with pytest.raises(DataError, match=names):
        Detector.open(folder)


def test_malformed_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"detector\.onnx: ONNX Runtime cannot load it"):
        Detector.open(write_toy(tmp_path, broken=True))
    (tmp_path / "deploy.json").write_text("{")
    with pytest.raises(DataError, match=r"deploy\.json"):
        Detector.open(tmp_path)


def test_a_graph_with_other_outputs_is_refused(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "other", [value], [other])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "other.onnx")
    with pytest.raises(DataError, match="it has no boxes, count, labels, pixels, scores, sizes"):
        OnnxBackend(tmp_path / "other.onnx")


def test_masks_come_back_in_the_pictures_own_pixels(tmp_path):
    found = Detector.open(write_toy(tmp_path, masks=True)).predict_batch([picture(128, 192, 255, 0), picture(64, 96, 9, 0)], 0.6)
    first, second = found[0].masks()
    whole, half = np.zeros((2, 128, 192), bool)
    whole[:64, :96], half[32:80, 96:192] = True, True
    # The grid is zero outside, so corners are rounded off; between full and empty cells the edge is within half a cell.
    assert first[1:63, 30:66].all() and not first[~whole].any() and (first != whole).sum() < 0.03 * whole.sum()
    assert not second[~whole & ~half].any() and (second != half).sum() < 0.1 * half.sum()
    assert found[1].masks_DMM is not None and len(found[1].masks_DMM) == len(found[1].classes)


def test_a_detector_of_boxes_has_no_masks(toy):
    found = Detector.open(toy).predict(picture(64, 96, 255, 0))
    assert found.masks_DMM is None and list(found.masks()) == []
