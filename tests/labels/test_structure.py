"""References between annotations, pictures, classes and splits."""

from pathlib import Path

import pytest

from pipeline.data.dataset import Category
from pipeline.labels.validation import validate
from tests.labels.planted import Planted, settings


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


def test_ids_of_labels_that_repeat(planted: Planted) -> None:
    planted.box("train", "b.png", (10, 50, 30, 70), 3)
    planted.annotations["train"][-1]["id"] = 2
    for source in ("x1", "x2", "x1", None, None):
        planted.box("val", "c.png", (10, 50, 30, 70), 3, source_id=source)
    found = planted.found("annotation-id-repeated")
    assert [(f.split, f.image, f.annotation) for f in found] == [("train", "b.png", 2), ("val", "c.png", 5)]


def test_ids_of_pictures_that_repeat(planted: Planted) -> None:
    planted.picture("train", "z.png")
    planted.images["train"][-1]["id"] = 1  # as a.png
    found = planted.found("image-id-repeated")
    assert [(f.split, f.image) for f in found] == [("train", "a.png"), ("train", "z.png")]
    assert found[0].reason == "image id 1 is another picture's too"
    planted.images["train"][-1]["id"] = 5
    assert not planted.found("image-id-repeated")


def test_label_without_area(planted: Planted) -> None:
    wanted = planted.box("train", "a.png", (10, 50, 30, 70), 3, area=float("nan"))
    planted.box("train", "a.png", (10, 50, 10, 70), 3, area=float("nan"))  # no area to write
    assert [f.annotation for f in planted.found("annotation-area-missing")] == [wanted]
    mended = validate(planted.dataset(), settings("safe")).mended.split("train").annotations
    assert mended.area_A[mended.ids_A == wanted].tolist() == [400]


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("class-name-repeated", ["cat", "cat"]),
        ("class-name-alike", ["traffic light", "Traffic_Light"]),
        ("class-name-alike", ["cat", "cat "]),
        ("class-name-alike", ["red cell", "red cells"]),
        ("class-name-alike", ["cat", "ca\u200bt"]),
        ("class-name-alike", ["T\u2013shirt", "t-shirt"]),
    ],
)
def test_names_of_classes(planted: Planted, code: str, names: list[str]) -> None:
    codes = ("class-name-repeated", "class-name-alike")
    assert not [f for other in codes for f in planted.found(other)]
    planted.classes = [Category(3, names[0]), Category(5, "dog"), Category(7, names[1])]
    found = [f for other in codes for f in planted.found(other)]
    assert [(f.code, f.reason) for f in found] == [(code, f"classes 3 {names[0]!r} and 7 {names[1]!r}")]


def test_classes_of_one_name_become_one(planted: Planted) -> None:
    planted.classes = [Category(3, "cat"), Category(5, "dog"), Category(7, "cat"), Category(9, "cat")]
    planted.box("val", "c.png", (60, 5, 80, 15), 9)
    planted.images["train"][0]["extra"] = {"neg_category_ids": [7, 5, 3]}
    planted.stated = 80
    before = {name: split.annotations.category_A.tolist() for name, split in planted.dataset().splits.items()}
    assert not [c for c in validate(planted.dataset(), settings("safe")).changes if c.fix == "unite"]
    result = validate(planted.dataset(), settings("all"))
    info = result.mended.info
    assert [(one.id, one.name) for one in info.categories] == [(3, "cat"), (5, "dog")]
    assert info.stated_classes == 78  # two of the names were one class
    for name, split in result.mended.splits.items():
        assert split.annotations.category_A.tolist() == [{7: 3, 9: 3}.get(one, one) for one in before[name]]
        assert split.annotations.label_A.tolist() == [0] * len(before[name])
    assert result.mended.split("train").images.extra[0]["neg_category_ids"] == [3, 5]
    made = [change for change in result.changes if change.fix == "unite"]
    assert [(c.old["category"]["id"], c.old["annotations"], c.new["category"]["id"]) for c in made] == [(7, 3, 3), (9, 1, 3)]
    assert not validate(result.mended, settings("all")).changes


@pytest.mark.parametrize("odd", [7, None, [[7]], ["7", 3], {"7": 1}])
def test_lists_of_classes_that_are_none_stay_as_they_are(planted: Planted, odd: object) -> None:
    planted.classes = [Category(3, "cat"), Category(7, "cat")]
    planted.images["train"][0]["extra"] = {"neg_category_ids": odd, "not_exhaustive_category_ids": [7]}
    extra = validate(planted.dataset(), settings("all")).mended.split("train").images.extra[0]
    assert extra == {"neg_category_ids": odd, "not_exhaustive_category_ids": [3]}


def test_classes_of_other_keypoints_stay_apart(planted: Planted) -> None:
    planted.classes = [Category(3, "cat", keypoints=("nose",)), Category(7, "cat")]
    result = validate(planted.dataset(), settings("all"))
    assert len(result.mended.info.categories) == 2 and not result.changes


def test_another_number_of_classes_is_stated_than_named(planted: Planted) -> None:
    for stated in (None, len(planted.classes)):
        planted.stated = stated
        assert not planted.found("class-count-differs")
    planted.stated = 80
    named = len(planted.classes)
    assert [f.reason for f in planted.found("class-count-differs")] == [f"the source states 80 classes and names {named}"]


def test_gaps_between_class_ids(planted: Planted) -> None:
    assert [f.reason for f in planted.found("class-id-gap")] == ["3 ids between 3 and 7 are no class: 4, 5, 6"]
    planted.classes = [Category(3, "cat"), Category(4, "dog")]
    assert not planted.found("class-id-gap")
    planted.classes = [Category(3, "cat"), Category(2**60, "dog")]
    assert [f.reason for f in planted.found("class-id-gap")] == [f"2 classes have ids from 3 to {2**60}"]


def test_label_files_without_a_picture(planted: Planted) -> None:
    planted.unlisted = ("pictures/*.jpg: 4", "captions.json: 1")
    assert not planted.found("label-file-unused")
    planted.unlisted = ("pictures/*.jpg: 4", "labels/*.txt: 3")
    assert [f.reason for f in planted.found("label-file-unused")] == ["files that belong to no split or picture: labels/*.txt: 3"]
