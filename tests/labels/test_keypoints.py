"""Every check of keypoints: a planted fault is found at its place, its clean twin is not; and what is unlabelled."""

from math import inf, nan

import numpy as np
import pytest

from pipeline.data.dataset import Category
from pipeline.labels.validation import validate
from tests.labels.planted import Planted, settings

NAMES = ("nose", *(f"{side}_{part}" for part in ("eye", "ear", "shoulder", "hip") for side in ("left", "right")))
BOX = (10, 10, 60, 70)


def pose(**changed: tuple[float, float, float]) -> list[float]:
    """Nine keypoints of a figure that faces the camera: its left is on the right."""
    points = {"nose": (35.0, 20.0, 2.0)}
    for y, part in ((18, "eye"), (20, "ear"), (35, "shoulder"), (60, "hip")):
        points |= {f"left_{part}": (45.0, float(y), 2.0), f"right_{part}": (25.0, float(y), 2.0)}
    return [value for name in NAMES for value in (points | changed)[name]]


@pytest.fixture
def people(planted: Planted) -> Planted:
    planted.classes = [Category(3, "person", "", NAMES), Category(7, "dog")]
    return planted


def person(planted: Planted, picture: str, points: list[float], category: int = 3) -> int:
    return planted.box("train", picture, BOX, category, keypoints=points)


FAULTS = [
    ("keypoint-count", pose()[:-3], pose()),
    ("keypoint-count", [*pose(), 1, 1, 2], [0.0] * 24),
    ("keypoint-visibility", pose(nose=(35, 20, 0.9)), pose(nose=(35, 20, 1))),
    ("keypoint-visibility", pose(nose=(35, 20, 3)), pose(nose=(0, 0, 0))),
    ("keypoint-visibility", pose(nose=(nan, 20, 2)), pose()),
    ("keypoint-visibility", pose(nose=(inf, 20, 2)), pose(nose=(35, 20, 0))),
    ("keypoint-outside", pose(nose=(102, 20, 2)), pose(nose=(101, 20, 2))),
    ("keypoint-outside", pose(nose=(35, -2, 1)), pose(nose=(-50, -2, 0))),
    ("keypoints-all-zero", [0.0] * 27, [0.0] * 24 + [20, 20, 1]),
    ("keypoint-outside-box", pose(nose=(75, 20, 2)), pose(nose=(72, 20, 2))),  # a fifth of 60 and a pixel
]


@pytest.mark.parametrize(("code", "faulty", "clean"), FAULTS)
def test_fault_is_found_and_its_clean_twin_is_not(people: Planted, code: str, faulty: list, clean: list) -> None:
    person(people, "a.png", clean)
    wanted = person(people, "b.png", faulty)
    assert [(f.split, f.image, f.annotation) for f in people.found(code)] == [("train", "b.png", wanted)]


def test_keypoints_of_a_class_that_names_none(people: Planted) -> None:
    wanted = person(people, "a.png", pose(), category=7)
    assert [(f.annotation, f.reason) for f in people.found("keypoint-count")] == [(wanted, "9 keypoints, its class has 0")]


def test_a_list_that_is_no_triples(people: Planted) -> None:
    person(people, "a.png", pose())
    wanted = people.box("train", "b.png", BOX, 3, extra={"keypoints": [1.0, 2.0]})
    assert [(f.annotation, f.reason) for f in people.found("keypoint-form")] == [(wanted, "2 numbers, not a multiple of 3")]


def test_a_pair_against_all_others_is_found_where_that_is_rare(people: Planted) -> None:
    swapped = {"left_hip": (25.0, 60.0, 2.0), "right_hip": (45.0, 60.0, 2.0)}
    turned = {name: (70 - x, y, v) for name, (x, y, v) in zip(NAMES, np.reshape(pose(), (-1, 3)).tolist(), strict=True)}
    for _ in range(40):
        person(people, "a.png", pose())
        person(people, "a.png", pose(**turned))  # seen from behind: all pairs the other way
    assert not people.found("keypoint-sides-swapped")
    wanted = person(people, "b.png", pose(**swapped))
    assert [(f.image, f.annotation, f.reason) for f in people.found("keypoint-sides-swapped")] == [
        ("b.png", wanted, "left_hip and right_hip lie the other way round than all other pairs")
    ]
    for _ in range(10):  # a habit, as of crossed legs, is no slip
        person(people, "b.png", pose(**swapped))
    assert not people.found("keypoint-sides-swapped")


def test_a_dataset_without_keypoints_is_quiet(planted: Planted) -> None:
    assert not [f for code, _, _ in FAULTS for f in planted.found(code)]


def test_what_is_at_fault_is_unlabelled_and_the_rest_stays(people: Planted) -> None:
    one = person(people, "a.png", pose(nose=(35, 20, 0.9)))
    short = person(people, "b.png", pose()[:-3])
    far = person(people, "b.png", pose(left_eye=(200, 20, 2)))
    result = validate(people.dataset(), settings("all", box_near_duplicate="ignore", keypoint_outside_box="ignore"))
    rows = result.mended.split("train").annotations
    after = {number: rows.keypoints_AK3[rows.ids_A.tolist().index(number)] for number in (one, short, far)}
    np.testing.assert_array_equal(after[one].reshape(-1), pose(nose=(0, 0, 0)))
    assert np.isnan(after[short]).all()
    np.testing.assert_array_equal(after[far].reshape(-1), pose(left_eye=(0, 0, 0)))
    changed = {change.annotation: change for change in result.changes}
    assert changed[one].old["keypoints"][2] == pytest.approx(0.9) and changed[one].new["keypoints"][:3] == [0, 0, 0]
    assert validate(result.mended, settings("all", box_near_duplicate="ignore")).changes == []
