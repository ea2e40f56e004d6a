"""`detect` as one ONNX graph of standard operators: equal to torch for any batch, height and width."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.deploy.onnx import export_onnx
from pipeline.detector.detector import Detector
from pipeline.structures import Images
from tests.detector.models import batch, lively, read_config

SIZES = [
    [(64, 64)],
    [(96, 64), (50, 33), (90, 61)],
    [(32, 160), (20, 100)],
    [(128, 128), (128, 100), (64, 128), (1, 1), (127, 3)],
]


OTHERS = [
    pytest.param(name, marks=pytest.mark.line)
    for name in ("fast_rcnn", "mask_rcnn_c4", "mask_rcnn_dconv", "keypoint_rcnn", "point_rend")
]
"""A further input, no common divisor, offsets: traced for half a minute each."""


@pytest.fixture(scope="module", params=["mask_rcnn", "retinanet", *OTHERS])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Detector, Path]:
    cfg = read_config(f"{request.param}_tiny")
    seed = 4 if request.param == "point_rend" else 2  # one with which it finds enough, no two equally likely
    model, path = lively(cfg, seed=seed), tmp_path_factory.mktemp("onnx") / "detector.onnx"
    export_onnx(model, path, opset=20)
    return model, path


def feed_of(model: Detector, images: Images) -> dict[str, np.ndarray]:
    """What the exported file is given."""
    feed = {"pixels": images.pixels_N3HW.numpy(), "sizes": images.sizes_N2.numpy()}
    return feed | ({"proposals": images.proposals_NP4.numpy()} if model.takes_proposals else {})


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_onnx_equals_torch(exported: tuple[Detector, Path], sizes: list[tuple[int, int]]) -> None:
    import onnxruntime

    model, path = exported
    images, _ = batch(model, sizes)
    with torch.no_grad():
        expected = model.detect(images)
    feed = feed_of(model, images)
    boxes, scores, labels, count, *further = onnxruntime.InferenceSession(path).run(None, feed)
    assert expected.count_N.max() > 3, "the model must find something, or nothing is compared"
    np.testing.assert_array_equal(count, expected.count_N)
    np.testing.assert_allclose(scores, expected.scores_ND, rtol=0, atol=1e-4)
    told = np.array([min(size) > 1 for size in sizes])  # all of one pixel looks alike: its scores tie up to rounding
    np.testing.assert_array_equal(labels[told], expected.labels_ND[told])
    np.testing.assert_allclose(boxes[told], expected.boxes_ND4[told], rtol=0, atol=1e-3)
    for values, wanted in zip(further, expected.optional().values(), strict=True):
        assert wanted.std() > 0.05
        # A refined mask's cells are chosen by certainty: where two are equally certain, another may be predicted anew.
        assert (np.abs(values[told] - wanted.numpy()[told]) <= 1e-3).mean() >= 0.9999


def test_standard_operators_only(exported: tuple[Detector, Path]) -> None:
    import onnx

    graph = onnx.load(exported[1])
    assert {domain.domain for domain in graph.opset_import} <= {""}
    assert not graph.functions
    onnx.checker.check_model(graph, full_check=True)


def test_the_files_work_on_masks_grows_with_what_it_finds(exported: tuple[Detector, Path]) -> None:
    """A mask head over every slot would cost more than the rest: the file drops empty slots before it."""
    import onnx
    import onnxruntime

    model, path = exported
    if not hasattr(model, "roi_heads") or not model.roi_heads.branches:
        pytest.skip("it has no mask head")
    graph = onnx.load(path)
    per_row = ("deconv.weight", "score_lowres.weight", "coarse_head.prediction.weight")
    node = next(node for node in graph.graph.node if any(name.endswith(per_row) for name in node.input))
    graph.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8).numpy()
    for sizes, found in (([[0, 0], [0, 0]], 0), ([[64, 64], [0, 0]], 1), ([[64, 64], [64, 64]], 2)):
        *_, count, _, upsampled = session.run(None, {"pixels": pixels, "sizes": np.array(sizes)})
        assert len(upsampled) == 1 + count.sum() and (count > 0).sum() == found


def test_nothing_found(exported: tuple[Detector, Path]) -> None:
    """Pictures without area clip every proposal away: zero regions reach the second stage, zero rows leave it."""
    import onnxruntime

    model, path = exported
    if not hasattr(model, "roi_heads"):
        pytest.skip("RetinaNet does not clip: it has no empty case of its own")
    for sizes in ([[0, 0]], [[0, 0], [64, 64]]):
        proposals = torch.tensor([[[1.0, 1, 20, 20], [5, 5, 50, 50]]]).repeat(len(sizes), 1, 1)
        images = Images(torch.zeros(len(sizes), 3, 64, 64, dtype=torch.uint8), torch.tensor(sizes), proposals)
        with torch.no_grad():
            expected = model.detect(images)
        assert expected.count_N[0] == 0
        boxes, scores, labels, count, *masks = onnxruntime.InferenceSession(path).run(None, feed_of(model, images))
        assert all(not values[0].any() for values in masks)
        assert count.tolist() == expected.count_N.tolist()
        assert (labels[0] == -1).all() and not boxes[0].any() and not scores[0].any()
