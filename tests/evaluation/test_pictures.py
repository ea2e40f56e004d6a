"""Ratings of single pictures, and the curves' figure and tables."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np

from pipeline.data.annotations import PolygonPool
from pipeline.evaluation import curves
from pipeline.evaluation.coco import measure
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.pictures import Rating, detection_panel, rate_pictures, truth_panel, worst_and_best
from pipeline.evaluation.truth import Truth
from pipeline.predict.postprocess import encode_mask
from pipeline.predict.preprocess import read_image
from tests.data.simple import simple_dataset
from tests.evaluation.cases import predictions_of, truth_of


def case(truths, found):
    """Truths as (image, category, xywh, crowd), detections as (image, category, xywh, score); pictures 1 to 3."""
    rows = [
        {"id": n + 1, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": crowd}
        for n, (i, c, b, crowd) in enumerate(truths)
    ]
    gt = {
        "images": [{"id": i} for i in (1, 2, 3)],
        "categories": [{"id": 2, "name": "a"}, {"id": 5, "name": "b$"}],
        "annotations": rows,
    }
    dt = [{"image_id": i, "category_id": c, "bbox": b, "score": s} for i, c, b, s in found]
    return truth_of(gt), predictions_of(dt)


def test_rating_counts_found_missed_and_false():
    truth, predictions = case(
        [(1, 2, [0, 0, 40, 40], 0), (1, 2, [100, 0, 40, 40], 0), (1, 5, [0, 100, 40, 40], 0), (3, 2, [0, 0, 50, 50], 1)],
        [
            (1, 2, [0, 0, 40, 39], 0.6),  # the same truth as the next, and lower: false
            (1, 2, [0, 0, 40, 40], 0.9),
            (1, 5, [100, 0, 40, 40], 0.8),  # the right place, the wrong class: false
            (1, 5, [0, 100, 40, 40], 0.3),  # below the score: its truth is missed
            (3, 2, [0, 0, 20, 20], 0.9),  # in a crowd: excused
            (3, 2, [45, 45, 20, 20], 0.9),  # hardly in it: false
        ],
    )
    ratings = rate_pictures(truth, predictions, 0.5)
    assert ratings == [Rating(0, 1, 2, 2), Rating(1, 0, 0, 0), Rating(2, 0, 0, 1)]
    assert [round(rating.f1, 3) for rating in ratings] == [0.333, 1, 0]


def test_iou_of_one_half_is_enough_and_less_is_not():
    truth, predictions = case(
        [(1, 2, [0, 0, 40, 40], 0), (2, 2, [0, 0, 40, 40], 0)], [(1, 2, [0, 0, 40, 20], 0.9), (2, 2, [0, 0, 40, 19], 0.9)]
    )
    assert [rating.found for rating in rate_pictures(truth, predictions, 0.5)] == [1, 0, 0]


def test_worst_and_best_share_no_picture():
    ratings = [Rating(0, 5, 0, 0), Rating(1, 0, 3, 0), Rating(2, 9, 0, 0), Rating(3, 0, 1, 0), Rating(4, 1, 1, 0)]
    worst, best = worst_and_best(ratings, 4)
    assert [r.row for r in worst] == [1, 3]
    assert [r.row for r in best] == [2, 0]
    worst, best = worst_and_best(ratings[:3], 12)
    assert sorted(r.row for r in [*worst, *best]) == [0, 1, 2]
    assert worst_and_best(ratings, 0) == ([], [])


def test_figure_and_tables_say_what_was_measured_with_equal_bytes():
    truth, predictions = case(
        [(1, 2, [0, 0, 40, 40], 0), (2, 2, [0, 0, 40, 40], 0)], [(1, 2, [0, 0, 40, 38], 0.9), (3, 5, [0, 0, 9, 9], 1)]
    )
    metrics = measure(truth, predictions, "hotcoco")
    image = curves.figure(metrics)
    assert image.startswith(b"\x89PNG")
    assert image == curves.figure(metrics)
    assert b"matplotlib" not in image.lower()
    rows = list(csv.DictReader(curves.pr_table([metrics]).decode().splitlines()))
    assert len(rows) == 101
    assert list(rows[0]) == ["recall", "iou_50", "iou_75", "mean"]
    precision = np.array([float(row["iou_50"]) for row in rows])
    assert (precision[:51] == 1).all()
    assert (precision[51:] == 0).all()
    assert float(rows[10]["mean"]) == 1.0  # 38 of 40: IoU 0.95 counts at all ten thresholds
    classes = list(csv.DictReader(curves.class_table([metrics]).decode().splitlines()))
    assert [row["class"] for row in classes] == ["a"]
    assert float(classes[0]["AP"]) == round(metrics.numbers["bbox/AP"], 6) == round(51 / 101, 6)


def test_nothing_to_draw_is_drawn_all_the_same():
    metrics = measure(*case([], []), "hotcoco")
    assert curves.figure(metrics).startswith(b"\x89PNG")
    assert curves.class_table([metrics]) == b"class,AP,AP50,AR\n"


def test_panels_show_masks_of_truth_and_detections(tmp_path):
    """A triangle label and a half-covering detection are tinted where they lie, and only there."""
    split = simple_dataset(tmp_path, pictures=1, side=640).split("val")
    triangle = np.array([[300.0, 300], [600, 300], [300, 600]])
    table = replace(split.annotations, polygons=PolygonPool.of([[triangle]] * 2))
    split = replace(split, annotations=replace(table, boxes_A4=np.array([[300.0, 300, 600, 600]] * 2)))
    truth = Truth.of(split, [SimpleNamespace(id=1, name="red"), SimpleNamespace(id=4, name="blue")], tasks=("bbox", "segm"))
    half = np.zeros((640, 640), bool)
    half[320:400, 320:400] = True
    ids, box = np.array([1]), np.array([[300.0, 300, 600, 600]])
    predictions = Predictions(ids, box, np.array([0.9]), np.array([1]), [encode_mask(half)])
    picture = read_image(split.path(0)).astype(int)
    for panel, inside, outside in (
        (truth_panel(split, truth, 0), (350, 350), (560, 560)),
        (detection_panel(split, truth, predictions, 0, 0.5), (360, 360), (450, 350)),
    ):
        assert abs(panel[inside] - picture[inside]).max() > 20
        assert (panel[outside] == picture[outside]).all()
