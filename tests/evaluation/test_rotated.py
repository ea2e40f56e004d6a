"""Rotated AP: what upright boxes measure does not change when the scene turns; crowds, sizes, and missing boxes."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.coco import measure
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.pictures import rate_pictures
from pipeline.evaluation.rotated import overlaps
from pipeline.evaluation.truth import Truth
from pipeline.predict.rotated import enclosing
from tests.ops.rotated import area, clip, corners, iou


def scene(seed: int) -> tuple[Truth, Predictions]:
    """Upright truths and shaken copies of them as detections, on five pictures, of three classes, some crowds."""
    chance = np.random.default_rng(seed)
    corner = chance.uniform(0, 200, (60, 2))
    boxes = np.concatenate([corner, corner + chance.uniform(5, 150, (60, 2))], axis=1)
    images, labels = chance.integers(1, 6, 60), chance.integers(1, 4, 60)
    sides = boxes[:, 2:] - boxes[:, :2]
    truth = Truth(
        image_ids_I=np.arange(1, 7),
        image_ids_A=images,
        category_ids_A=labels,
        boxes_A4=boxes,
        area_A=sides.prod(axis=1),
        crowd_A=chance.random(60) < 0.1,
        category_ids_K=np.arange(1, 5),
        names=("a", "b", "c", "none"),
        tasks=("rotated",),
    )
    rows = chance.integers(0, 60, 150)
    shaken = boxes[rows] + chance.normal(0, 6, (150, 4))
    shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
    order = np.argsort(images[rows], kind="stable")
    found = Predictions(images[rows], shaken, np.round(chance.random(150), 2), labels[rows]).take(order)
    return truth, found


def turned(boxes: np.ndarray, degrees: float) -> np.ndarray:
    """Upright boxes as rotated ones, turned with the whole scene around the origin."""
    centre, c, s = (boxes[:, :2] + boxes[:, 2:]) / 2, np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    x, y = centre[:, 0] * c + centre[:, 1] * s, centre[:, 1] * c - centre[:, 0] * s
    return np.stack([x, y, *(boxes[:, 2:] - boxes[:, :2]).T, np.full(len(x), degrees)], axis=1)


def rotated_scene(seed: int, degrees: float) -> tuple[Truth, Predictions]:
    truth, found = scene(seed)
    truth_A5, found_D5 = turned(truth.boxes_A4, degrees), turned(found.boxes_D4, degrees)
    return (
        replace(truth, rotated_A5=truth_A5, boxes_A4=enclosing(truth_A5)),
        replace(found, rotated_D5=found_D5, boxes_D4=enclosing(found_D5)),
    )


@pytest.mark.parametrize("degrees", [0, 90, 33, -140])
def test_a_turned_scene_measures_what_it_measures_upright(degrees: float) -> None:
    upright = measure(*scene(1), "pycocotools", 100, "bbox")
    found = measure(*rotated_scene(1, degrees), "hotcoco", 100, "rotated")
    assert 0.1 < upright.numbers["bbox/AP"] < 0.9
    for name, value in upright.numbers.items():
        assert found.numbers[name.replace("bbox/", "rotated/")] == pytest.approx(value, abs=1e-9), name


def test_the_pictures_are_rated_by_rotated_overlap() -> None:
    upright = rate_pictures(*scene(2), 0.3)
    found = rate_pictures(*rotated_scene(2, 40), 0.3)
    assert [(r.found, r.missed, r.false) for r in found] == [(r.found, r.missed, r.false) for r in upright]


def test_overlaps_are_those_of_plain_clipping() -> None:
    chance = np.random.default_rng(0)
    found, truth = (
        np.concatenate([chance.uniform(0, 30, (n, 2)), chance.uniform(1, 30, (n, 2)), chance.uniform(-90, 90, (n, 1))], axis=1)
        for n in (7, 4)
    )
    crowd = np.array([False, True, False, True])
    result = overlaps(found, truth, crowd)
    for d, own in enumerate(found.tolist()):
        for a, other in enumerate(truth.tolist()):
            expected = area(clip(corners(own), corners(other))) / (own[2] * own[3]) if crowd[a] else iou(own, other)
            assert result[d, a] == pytest.approx(expected, abs=1e-9)


def test_nothing_found_and_nothing_to_measure() -> None:
    truth, found = rotated_scene(3, 20)
    assert measure(truth, found.take(np.zeros(0, int)), "hotcoco", 100, "rotated").numbers["rotated/AP"] == 0
    assert measure(truth, Predictions.joined([]), "hotcoco", 100, "rotated").numbers["rotated/AP"] == 0
    with pytest.raises(ValueError, match="rotated boxes can be measured only where"):
        measure(replace(truth, rotated_A5=None), found, "hotcoco", 100, "rotated")
    assert found.to_coco()[0]["rbox"] == found.rotated_D5[0].tolist()
