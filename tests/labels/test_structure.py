"""References between annotations, pictures, classes and splits."""

from pathlib import Path

from tests.labels.planted import Planted


def test_a_clean_dataset_is_quiet(planted: Planted) -> None:
    for code in ("annotation-orphan", "category-unknown", "split-empty", "class-absent-from-train", "class-unused"):
        assert not planted.found(code), code


def test_orphan_annotation(planted: Planted) -> None:
    wanted = planted.box("val", None, (10, 10, 40, 40), 3)
    (found,) = planted.found("annotation-orphan")
    assert (found.split, found.image, found.annotation) == ("val", None, wanted)


def test_unknown_category(planted: Planted) -> None:
    wanted = planted.box("train", "a.png", (10, 10, 40, 40), 4)
    (found,) = planted.found("category-unknown")
    assert (found.annotation, found.reason) == (wanted, "category 4 is not among 3 cat, 7 dog")


def test_split_without_pictures_and_split_without_labels(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": ["a.png"], "val": []})
    assert [(f.split, f.reason) for f in planted.found("split-empty")] == [("val", "split val has no pictures")]
    planted.picture("val", "v.png")
    planted.box("val", "v.png", (10, 10, 40, 40), 4)  # of no known class: not a label to measure by
    assert [f.reason for f in planted.found("split-empty")] == ["split val has pictures and not one label"]


def test_a_test_split_may_come_without_labels(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": ["a.png"], "test": []})
    planted.picture("test", "t.png")
    assert not planted.found("split-empty")


def test_class_that_train_lacks(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": [], "val": ["c.png"]})
    planted.picture("train", "a.png")
    planted.box("train", "a.png", (10, 10, 40, 40), 3)
    planted.box("train", "a.png", (10, 10, 40, 40), 7, crowd=True)  # nothing is learnt from a crowd
    (found,) = planted.found("class-absent-from-train")
    assert (found.image, found.annotation) == (None, None)
    assert found.reason == "class dog is in val, not in train"


def test_class_that_nothing_has(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": []})
    planted.picture("train", "a.png")
    planted.box("train", "a.png", (10, 10, 40, 40), 3)
    assert [f.reason for f in planted.found("class-unused")] == ["class dog has no annotation in any split"]
    assert not planted.found("class-absent-from-train")
