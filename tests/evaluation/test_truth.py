"""Which labels of a split are measured against, and how."""

from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pipeline.data.annotations import PolygonPool
from pipeline.errors import DataError
from pipeline.evaluation.truth import Truth
from tests.data.simple import simple_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return simple_dataset(tmp_path_factory.mktemp("simple"), pictures=4)


def truth(dataset, **changes):
    val = dataset.split("val")
    return Truth.of(replace(val, annotations=replace(val.annotations, **changes)), dataset.info.categories)


def test_clean_labels_are_all_there(dataset):
    table = dataset.split("val").annotations
    ours = truth(dataset)
    np.testing.assert_array_equal(ours.boxes_A4, table.boxes_A4)
    assert ours.crowd_A.tolist() == table.crowd_A.tolist()
    assert ours.crowd_A.any()
    assert ours.names == ("red", "blue")
    assert ours.category_ids_K.tolist() == [1, 4]


def test_labels_that_cannot_be_measured_are_left_out(dataset):
    table = dataset.split("val").annotations
    image_A, category_A, boxes_A4 = table.image_A.copy(), table.category_A.copy(), table.boxes_A4.copy()
    image_A[0], category_A[1], boxes_A4[2, 3] = -1, 99, np.nan
    ours = truth(dataset, image_A=image_A, category_A=category_A, boxes_A4=boxes_A4)
    np.testing.assert_array_equal(ours.boxes_A4, table.boxes_A4[3:])
    assert len(ours.image_ids_I) == 4


def test_the_stated_area_counts_and_the_boxs_where_there_is_none(dataset):
    area_A = dataset.split("val").annotations.area_A.copy()
    expected = area_A.copy()
    area_A[0], area_A[1], expected[0] = 7, np.nan, 7
    np.testing.assert_array_equal(truth(dataset, area_A=area_A).area_A, expected)


def test_ignored_labels_count_as_crowd(dataset):
    ours = truth(dataset, extra={0: {"ignore": 1, "difficult": 1}, 1: {"ignore": 0}}, crowd_A=np.zeros(8, bool))
    assert ours.crowd_A.tolist() == [True] + [False] * 7


def test_two_pictures_of_one_id_are_refused(dataset):
    val = dataset.split("val")
    twice = replace(val, images=replace(val.images, ids_I=np.array([1, 2, 2, 3])))
    with pytest.raises(DataError, match=r"(?s)image id 2.*pipeline validate"):
        Truth.of(twice, dataset.info.categories)


def test_masks_are_the_polygons_run_lengths_and_for_crowds_the_box(dataset):
    """A triangle, plain and packed run lengths, and a crowd without a mask, against bitmaps made by hand."""
    table, square = dataset.split("val").annotations, np.array([[10.0, 10], [20, 10], [20, 30], [10, 30]])
    polygons = [[square] for _ in range(8)]
    polygons[0], polygons[1], polygons[2] = [square, square + np.array([30, 0]), square[:2]], [], []
    polygons[5] = []  # the crowd
    spot = np.zeros((64, 64), np.uint8, order="F")
    spot[3:5, 7] = 1
    plain = {"size": [64, 64], "counts": [7 * 64 + 3, 2, 64 * 64 - 7 * 64 - 5]}
    packed = {"size": [64, 64], "counts": coco_mask.encode(spot)["counts"].decode()}
    changed = replace(table, polygons=PolygonPool.of(polygons), rle={1: plain, 2: packed})
    val = replace(dataset.split("val"), annotations=changed)
    masks = coco_mask.decode(Truth.of(val, dataset.info.categories, tasks=("bbox", "segm")).masks_A).transpose(2, 0, 1)
    both = np.zeros((64, 64), np.uint8)
    both[10:30, 10:20] = both[10:30, 40:50] = 1
    x1, y1, x2, y2 = table.boxes_A4[5].astype(int)
    box = np.zeros((64, 64), np.uint8)
    box[y1:y2, x1:x2] = 1
    for row, expected in {0: both, 1: spot, 2: spot, 5: box}.items():
        np.testing.assert_array_equal(masks[row], expected)
    assert Truth.of(val, dataset.info.categories).masks_A is None


def test_a_missing_mask_is_refused(dataset):
    with pytest.raises(DataError, match="7 of 7 labels of the split val have no mask"):
        Truth.of(dataset.split("val"), dataset.info.categories, tasks=("bbox", "segm"))
