"""Every check of boxes: a planted fault is found, its clean twin is not."""

from math import inf, nan

import pytest

from tests.labels.planted import Planted

FAULTS = [
    ("box-not-finite", (nan, 10, 40, 40), (10, 10, 40, 41)),
    ("box-not-finite", (10, 10, inf, 40), (10, 10, 1e300, 40)),
    ("box-not-finite", (nan, nan, nan, nan), (0, 0, 1, 1)),
    ("box-zero-area", (10, 10, 10, 40), (10, 10, 11, 40)),
    ("box-zero-area", (10, 10, 40, 10), (10, 10, 40, 10.01)),
    ("box-zero-area", (40, 10, 10, 40), (10, 10, 40, 40)),
    ("box-zero-area", (40, 40, 10, 10), (10, 10, 40, 40)),  # both sides negative: their product is a fine area
    ("box-outside", (100, 10, 140, 40), (98, 10, 100, 40)),
    ("box-outside", (10, -40, 40, 0), (10, 0, 40, 2)),
    ("box-outside", (-30, 90, -10, 95), (0, 70, 10, 80)),
    ("box-partly-outside", (90, 10, 140, 40), (60, 10, 101, 40)),  # 1 px beyond is within the tolerance
    ("box-partly-outside", (-1.5, 10, 40, 40), (-1, 10, 40, 40)),
    ("box-partly-outside", (10, 10, 40, 81.5), (10, 10, 40, 81)),
    ("box-partly-outside", (-5, -5, 105, 85), (0, 0, 100, 80)),
]


@pytest.mark.parametrize(("code", "faulty", "clean"), FAULTS)
def test_fault_is_found_and_its_clean_twin_is_not(planted: Planted, code: str, faulty: tuple, clean: tuple) -> None:
    planted.box("train", "a.png", clean, 3)
    wanted = [planted.box("train", "b.png", faulty, 3), planted.box("train", "b.png", faulty, 7)]
    found = planted.found(code)
    assert [(f.split, f.image, f.annotation) for f in found] == [("train", "b.png", identity) for identity in wanted]


@pytest.mark.parametrize(("code", "faulty", "clean"), FAULTS)
def test_each_fault_is_found_under_one_code_only(planted: Planted, code: str, faulty: tuple, clean: tuple) -> None:
    planted.box("val", "c.png", faulty, 3)
    codes = {code for code, _, _ in FAULTS}
    assert [other for other in sorted(codes) if planted.found(other)] == [code]


def test_the_reason_names_the_numbers(planted: Planted) -> None:
    planted.box("train", "a.png", (10, 10, 10, 40.5), 3)
    planted.box("train", "a.png", (90, 10, 140, 40), 3)
    assert planted.found("box-zero-area")[0].reason == "0 x 30.5 px at (10, 10)"
    assert planted.found("box-partly-outside")[0].reason == "box 90,10,140,40 in a picture of 100 x 80"


def test_tolerance_is_the_configured_one(planted: Planted) -> None:
    planted.box("train", "a.png", (60, 10, 104, 40), 3)
    assert not planted.found("box-partly-outside", outside_px=4.0)
    assert planted.found("box-partly-outside", outside_px=3.9)


def test_a_box_is_judged_by_the_real_size_where_none_is_stored(planted: Planted) -> None:
    planted.picture("train", "nosize.png", stored=(0, 0))
    wanted = planted.box("train", "nosize.png", (110, 10, 140, 40), 3)
    planted.box("train", "nosize.png", (10, 10, 40, 40), 3)
    assert [f.annotation for f in planted.found("box-outside")] == [wanted]


def test_a_box_of_an_unknown_picture_is_not_judged(planted: Planted) -> None:
    planted.box("train", None, (500, 500, 600, 600), 3)
    planted.picture("train", "gone.png", stored=(0, 0)).unlink()
    planted.box("train", "gone.png", (500, 500, 600, 600), 3)
    assert not planted.found("box-outside")
