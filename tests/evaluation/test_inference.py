"""From pictures on disk through a backend to rows in the pictures' own pixels."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pipeline.errors import DataError
from pipeline.evaluation.coco import measure
from pipeline.evaluation.inference import TorchBackend, predict_split
from pipeline.evaluation.truth import Truth
from tests.data.simple import simple_dataset
from tests.evaluation.colours import ColourDetector

RGB = SimpleNamespace(short_side=150, long_side=200, channels="rgb")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return simple_dataset(tmp_path_factory.mktemp("simple"), pictures=7)


def predicted(dataset, batch=3, shape=RGB, **options):
    backend = TorchBackend(ColourDetector(), "cpu")
    ids = [category.id for category in dataset.info.categories]
    return predict_split(backend, dataset.split("val"), shape, 32, batch, ids, **options)


def ap50(dataset, predictions):
    truth = Truth.of(dataset.split("val"), dataset.info.categories)
    return measure(truth, predictions, "hotcoco").numbers["bbox/AP50"]


def test_a_detector_that_is_right_scores_so(dataset):
    """Resizing by 150/64, padding to 160 and back: boxes land on the labels, ids and categories are the dataset's."""
    predictions = predicted(dataset)
    assert ap50(dataset, predictions) > 0.85
    assert set(predictions.category_ids_D.tolist()) == {1, 4}
    val = dataset.split("val")
    label = np.flatnonzero((val.annotations.image_A == 2) & (val.annotations.category_A == 4))
    found = predictions.of(int(val.images.ids_I[2]))
    np.testing.assert_allclose(found.boxes_D4[found.category_ids_D == 4], val.annotations.boxes_A4[label], atol=1)


def test_the_wrong_channel_order_is_noticed(dataset):
    assert ap50(dataset, predicted(dataset, shape=SimpleNamespace(short_side=150, long_side=200, channels="bgr"))) < 0.2


def test_the_batch_size_changes_nothing(dataset):
    one, many = predicted(dataset, batch=1), predicted(dataset, batch=100)
    for name in ("image_ids_D", "boxes_D4", "scores_D", "category_ids_D"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))


def test_rows_and_progress(dataset):
    seen = []
    chosen = predicted(dataset, batch=2, rows=[4, 0, 6], progress=lambda done, total: seen.append((done, total)))
    ids = dataset.split("val").images.ids_I
    assert list(dict.fromkeys(chosen.image_ids_D.tolist())) == [ids[4], ids[0], ids[6]]
    assert seen == [(2, 3), (3, 3)]
    assert len(predicted(dataset, rows=[])) == 0


def test_a_missing_picture_is_named(dataset):
    val = dataset.split("val")
    names = [*val.images.file_names]
    names[3] = "gone.png"
    broken = replace(val, images=replace(val.images, file_names=names))
    with pytest.raises(DataError, match=r"gone\.png"):
        predict_split(TorchBackend(ColourDetector(), "cpu"), broken, RGB, 32, 2, [1, 4])


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_left_as_it_was(dataset, training):
    model = ColourDetector().train(training)
    predict_split(TorchBackend(model, "cpu"), dataset.split("val"), RGB, 32, 4, [1, 4])
    assert model.training is training


def test_coco_results_format(dataset):
    predictions = predicted(dataset)
    rows = predictions.to_coco()
    assert len(rows) == len(predictions)
    assert set(rows[0]) == {"image_id", "category_id", "bbox", "score"}
    x1, y1, x2, y2 = predictions.boxes_D4[0]
    assert rows[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=1e-3)
    assert all(type(value) is int for value in (rows[0]["image_id"], rows[0]["category_id"]))


def test_masks_are_run_lengths_in_the_pictures_own_pixels(dataset):
    """A backend whose masks are the left half of each box: decoded they cover the left half of the found box, row by row."""
    plain = TorchBackend(ColourDetector(), "cpu")

    def halves(pixels_N3HW, sizes_N2):
        raw = plain(pixels_N3HW, sizes_N2)
        left = np.kron([[1.0, 0.0]], np.ones((20, 10))).astype(np.float32)
        return raw | {"masks": np.broadcast_to(left, (*raw["scores"].shape, 20, 20))}

    predictions = predict_split(halves, dataset.split("val"), RGB, 32, 3, [1, 4])
    assert predictions.masks_D is not None and len(predictions.masks_D) == len(predictions)
    masks_HWD = coco_mask.decode(predictions.masks_D)
    assert masks_HWD.shape[:2] == (64, 64)
    for d, (x1, y1, x2, y2) in enumerate(predictions.boxes_D4):
        expected = np.zeros((64, 64))
        expected[round(y1) : round(y2), round(x1) : round((x1 + x2) / 2)] = 1
        assert abs(masks_HWD[..., d] - expected).sum() <= 2 * (y2 - y1) + (x2 - x1)
    chosen = predictions.of(int(predictions.image_ids_D[-1]))
    assert chosen.masks_D == predictions.masks_D[-len(chosen) :]
    assert predictions.to_coco()[0]["segmentation"]["counts"] == predictions.masks_D[0]["counts"].decode()
    assert predicted(dataset).masks_D is None
