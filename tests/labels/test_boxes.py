"""Every check of boxes: a planted fault is found, its clean twin is not."""

from math import inf, nan

import numpy as np
import pytest

from pipeline.labels.validation import validate
from tests.labels.planted import Planted, settings

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


MORE = [
    ("box-sliver", (10, 10, 11.5, 40), (10, 10, 12, 40)),
    ("box-extreme-aspect", (0, 10, 100, 13), (0, 10, 100, 14)),
]


@pytest.mark.parametrize(("code", "odd", "clean"), MORE)
def test_odd_shape_is_found_and_its_clean_twin_is_not(planted: Planted, code: str, odd: tuple, clean: tuple) -> None:
    planted.box("train", "a.png", clean, 3)
    planted.box("train", "a.png", odd, 3, crowd=True)
    wanted = planted.box("train", "b.png", odd, 3)
    assert [(f.split, f.image, f.annotation) for f in planted.found(code)] == [("train", "b.png", wanted)]


def test_one_box_over_the_whole_picture(planted: Planted) -> None:
    planted.box("train", "a.png", (0, 0, 100, 80), 3)  # beside others: a table, a bed
    for name, right in (("whole.png", 100), ("most.png", 90)):
        planted.picture("train", name)
        planted.box("train", name, (0, 0, right, 80), 3)
    assert [(f.image, f.reason) for f in planted.found("box-whole-picture")] == [
        ("whole.png", "covers 100.0% of its picture, which has no other")
    ]


def test_area_that_is_no_boxs(planted: Planted) -> None:
    wanted = [planted.box("train", "a.png", (10, 10, 40, 40), 3, area=area) for area in (1200, 0, -3)]
    for area in (900, 1000, 300, nan):  # of a mask left out: smaller than the box
        planted.box("train", "a.png", (10, 10, 40, 40), 3, area=area)
    planted.mask("train", "a.png", (10, 10, 50, 10, 50, 40), area=5000)  # its mask's matter
    planted.box("train", "a.png", (10, 10, 40, 40), 3, area=2000, rotated=[25, 25, 20, 20, 10])
    assert [f.annotation for f in planted.found("box-area-differs")] == wanted
    rows = validate(planted.dataset(), settings("all", box_near_duplicate="ignore")).mended.split("train").annotations
    assert [rows.area_A[rows.ids_A == one].item() for one in wanted] == [900, 900, 900]


def test_a_label_with_a_mask_gets_its_box(planted: Planted) -> None:
    wanted = planted.mask("train", "a.png", (10, 10, 50, 10, 50, 40), box=(nan, nan, nan, nan))
    lost = planted.box("train", "a.png", (nan, nan, nan, nan), 3)
    assert [(f.annotation, f.reason) for f in planted.found("box-missing")] == [
        (wanted, "no box; its mask reaches over 10,10,50,40")
    ]
    assert [f.annotation for f in planted.found("box-not-finite")] == [lost]
    rows = validate(planted.dataset(), settings("safe", box_near_duplicate="ignore")).mended.split("train").annotations
    assert rows.boxes_A4[rows.ids_A == wanted].tolist() == [[10, 10, 50, 40]]
    assert lost not in rows.ids_A


def test_box_unlike_its_class(planted: Planted) -> None:
    rng = np.random.default_rng(5)
    for _ in range(60):
        w, h = 20 * np.exp(rng.normal(0, 0.2, 2))
        planted.box("train", "a.png", (5, 5, 5 + w, 5 + h), 3)
        planted.box("train", "a.png", (5, 5, 5 + w / 10, 5 + h), 7)
    small = planted.box("train", "b.png", (5, 5, 7, 7), 3)
    flat = planted.box("train", "b.png", (5, 5, 11.3, 11.3), 7)  # of usual size
    planted.box("train", "b.png", (5, 5, 25, 25), 3)
    found = {f.annotation: f.reason for f in planted.found("box-unlike-class") if f.image == "b.png"}
    assert found.keys() >= {small, flat} and len(found) <= 3
    assert found[small].startswith("size is ") and found[small].endswith("from the median of cat")
    assert found[flat].startswith("width to height is ")
