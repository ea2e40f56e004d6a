"""Boxes and pictures that are there twice."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.labels.duplicates import near_pairs, repeated_boxes
from tests.labels.planted import Planted


def brute_force_pairs(planted: Planted, threshold: float, same_class: bool) -> dict[tuple[int, int], float]:
    """Every pair of a picture, one by one, by the definition."""
    found = {}
    for one in planted.annotations["train"]:
        for two in planted.annotations["train"]:
            if one["id"] >= two["id"] or one["picture"] != two["picture"] or (one["category"] == two["category"]) != same_class:
                continue
            a, b = one["box"], two["box"]
            width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
            inter = max(width, 0) * max(height, 0)
            iou = inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)
            if iou >= threshold:
                found[one["id"], two["id"]] = iou
    return found


@pytest.mark.parametrize("same_class", [True, False])
@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("seed", range(4))
def test_pairs_equal_brute_force(tmp_path: Path, seed: int, threshold: float, same_class: bool) -> None:
    random = np.random.default_rng(seed)
    planted = Planted(tmp_path, {"train": ["a.png", "b.png"]})
    anchors = random.uniform(0, 60, (8, 2))
    for _ in range(250):  # around few places, with shifts and sizes on both sides of every threshold, some exactly equal
        corner = anchors[random.integers(8)] + random.choice([0.0, 0.5, 1.0, 3.0], 2)
        size = random.choice([4.0, 20.0, 21.0, 30.0, 90.0], 2)
        box = tuple(np.concatenate([corner, corner + size]).tolist())
        planted.box("train", str(random.choice(["a.png", "b.png"])), box, int(random.choice([3, 7])))
    data = planted.columns()
    first, second, iou = near_pairs(data, threshold, same_class)
    ours = dict(zip(zip(data.ids_A[first].tolist(), data.ids_A[second].tolist(), strict=True), iou.tolist(), strict=True))
    reference = brute_force_pairs(planted, threshold, same_class)
    assert len(reference) >= 5
    assert ours == pytest.approx(reference, abs=1e-12)
    assert len(first) == len(ours)


def test_what_is_kept_holds_no_pair_and_what_goes_repeats_something_kept(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": ["a.png"]})
    for step in range(9):  # a chain: each is a near-duplicate of the next, the ends are not of each other
        planted.box("train", "a.png", (step * 2.0, 0, step * 2.0 + 40, 40), 3)
    data = planted.columns()
    kept, gone, iou = repeated_boxes(data, 0.8)
    survivors = set(range(len(data.ids_A))) - set(gone.tolist())
    pairs = set(zip(*(rows.tolist() for rows in near_pairs(data, 0.8, same_class=True)[:2]), strict=True))
    assert not {pair for pair in pairs if set(pair) <= survivors}
    assert set(kept.tolist()) <= survivors
    assert all((k, g) in pairs for k, g in zip(kept.tolist(), gone.tolist(), strict=True))
    assert len(survivors) > 3  # one survivor of the whole chain would lose real objects
    assert (iou >= 0.8).all()


def test_near_duplicate_names_the_annotation_it_repeats(planted: Planted) -> None:
    first = planted.box("train", "b.png", (0, 0, 30, 30), 7)
    second = planted.box("train", "b.png", (0, 0, 30, 31), 7)
    (found,) = planted.found("box-near-duplicate")
    assert (found.image, found.annotation, found.fix) == ("b.png", second, "merge")
    assert found.reason == f"IoU 0.97 with annotation {first} of the same class"


@pytest.mark.parametrize(
    "twin",
    [
        {"box": (0, 0, 30, 38), "category": 7},  # IoU 0.79
        {"box": (0, 0, 30, 30), "category": 3},  # another class
        {"box": (0, 0, 30, 30), "category": 99},  # an unknown class is a finding of its own
        {"box": (0, 0, 30, 30), "category": 7, "crowd": True},
        {"box": (0, 0, 30, 30), "category": 7, "extra": {"ignore": 1}},
        {"box": (0, 0, 30, 30), "category": 7, "picture": "a.png"},
        {"box": (0, 0, 30, 30), "category": 7, "picture": None},
    ],
)
def test_clean_twins_of_near_duplicates(planted: Planted, twin: dict) -> None:
    planted.box("train", "b.png", (0, 0, 30, 30), 7)
    planted.box("train", **({"picture": "b.png"} | twin))
    assert not planted.found("box-near-duplicate")


def test_the_same_box_in_two_splits_is_no_near_duplicate(planted: Planted) -> None:
    planted.box("train", "a.png", (0, 0, 30, 30), 7)
    planted.box("val", "c.png", (0, 0, 30, 30), 7)
    assert not planted.found("box-near-duplicate")


def test_another_class_over_the_same_place_is_found(planted: Planted) -> None:
    planted.box("train", "b.png", (0, 0, 30, 30), 7)
    second = planted.box("train", "b.png", (0, 0, 30, 31), 3)
    planted.box("train", "a.png", (0, 0, 30, 31), 3)
    (found,) = planted.found("box-near-duplicate-other-class")
    assert (found.annotation, found.fix) == (second, None)
    assert "dog" in found.reason


def test_a_picture_in_two_splits_is_left_out_nearer_to_training(planted: Planted) -> None:
    planted.picture("train", "x.png", seed=1)
    planted.picture("val", "y.png", seed=1)
    planted.picture("train", "z.png", seed=2)
    (found,) = planted.found("image-in-two-splits")
    assert (found.split, found.image, found.reason) == ("train", "x.png", "the same bytes as y.png in val")
    assert not planted.found("image-repeated")


def test_test_wins_over_val_wins_over_train(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": [], "val": [], "test": []})
    for split, name in (("test", "t.png"), ("train", "a.png"), ("train", "b.png"), ("val", "v.png")):
        planted.picture(split, name, seed=5)
    assert [(f.split, f.image) for f in planted.found("image-in-two-splits")] == [
        ("train", "a.png"),
        ("train", "b.png"),
        ("val", "v.png"),
    ]


def test_a_picture_twice_in_one_split(planted: Planted) -> None:
    for name in ("x.png", "y.png", "z.png"):
        planted.picture("train", name, seed=1)
    assert [f.image for f in planted.found("image-repeated")] == ["y.png", "z.png"]
    assert not planted.found("image-in-two-splits")


def test_missing_pictures_are_not_each_others_twins(planted: Planted) -> None:
    planted.picture("train", "x.png").unlink()
    planted.picture("val", "y.png").unlink()
    assert not planted.found("image-in-two-splits")


def test_slanted_neighbours_are_no_duplicates(planted: Planted) -> None:
    """Upright hulls of rotated boxes nearly coincide where the boxes do not touch."""
    hull = (0.0, 0.0, 40.0, 40.0)
    for angle in (45.0, -45.0, -45.5):
        planted.box("train", "b.png", hull, 7, rotated=[20.0, 20.0, 50.0, 4.0, angle])
    (found,) = planted.found("box-near-duplicate")
    assert found.annotation == planted.annotations["train"][-1]["id"] and "IoU" in found.reason
