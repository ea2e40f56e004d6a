"""Fixes, their audit, and the gate."""

from math import nan
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.annotations import PolygonPool
from pipeline.data.dataset import Dataset, open_dataset, write_dataset
from pipeline.errors import GateError
from pipeline.labels.columns import Finding
from pipeline.labels.fixes import applies
from pipeline.labels.validation import Validation, _unsaid, validate
from tests.labels.planted import Planted, settings


def spoil(planted: Planted) -> dict[str, tuple[str, str | None, int | None]]:
    """One fault of every kind that has a fix; the finding that it must give: (split, picture, annotation)."""
    wanted: dict[str, tuple[str, str | None, int | None]] = {}
    planted.picture("train", "spoiled.png")
    planted.box("train", "spoiled.png", (20, 20, 60, 60), 3)
    for code, box, category in (
        ("box-not-finite", (nan, nan, nan, nan), 3),
        ("box-zero-area", (10, 10, 10, 10), 3),
        ("box-outside", (120, 10, 140, 30), 3),
        ("box-partly-outside", (80, 10, 140, 30), 3),
        ("category-unknown", (40, 40, 60, 60), 99),
        ("box-near-duplicate", (20, 20, 60, 61), 3),
    ):
        wanted[code] = ("train", "spoiled.png", planted.box("train", "spoiled.png", box, category))
    wanted["annotation-orphan"] = ("train", None, planted.box("train", None, (10, 10, 20, 20), 3))
    planted.picture("train", "leaked.png", seed=1)
    planted.picture("val", "kept.png", seed=1)
    planted.picture("train", "gone.png").unlink()
    planted.picture("train", "text.png").write_text("no picture")
    path = planted.picture("train", "cut.png")
    path.write_bytes(path.read_bytes()[:9000])
    planted.picture("train", "turned.png", stored=(80, 100))
    planted.picture("train", "nosize.png", stored=(0, 0))
    for code, name in {
        "image-in-two-splits": "leaked.png",
        "image-missing": "gone.png",
        "image-unreadable": "text.png",
        "image-truncated": "cut.png",
        "image-size-differs": "turned.png",
        "image-size-unknown": "nosize.png",
    }.items():
        planted.box("train", name, (10, 10, 30, 30), 3)
        wanted[code] = ("train", name, None)
    return wanted


def serious(result: Validation) -> list[str]:
    """Codes of the findings that are no mere information: a dataset of three pictures has rare classes."""
    return sorted(finding.code for finding in result.findings if finding.severity != "info")


def file_names(result: Dataset) -> dict[str, list[str]]:
    return {name: split.images.file_names for name, split in result.splits.items()}


def test_every_planted_fault_is_found_mended_and_audited(planted: Planted) -> None:
    wanted = spoil(planted)
    result = validate(planted.dataset(), settings("safe"))
    found = {f.code: (f.split, f.image, f.annotation) for f in result.findings if f.fix}
    assert found == wanted
    assert len([f for f in result.findings if f.fix]) == len(wanted)
    assert {c.code: (c.split, c.image, c.annotation) for c in result.changes} == wanted
    assert all(change.reason and change.old for change in result.changes)
    assert file_names(result.mended) == {"train": ["a.png", "b.png", "nosize.png", "spoiled.png"], "val": ["c.png", "kept.png"]}
    assert result.metrics()["validate/changes"] == len(wanted)


def test_audit_holds_old_and_new_values(planted: Planted) -> None:
    spoil(planted)
    changes = {change.code: change for change in validate(planted.dataset(), settings("safe")).changes}
    assert changes["box-partly-outside"].old == {"box": [80, 10, 140, 30]}
    assert changes["box-partly-outside"].new == {"box": [80, 10, 100, 30]}
    assert changes["box-zero-area"].old == {"box": [10, 10, 10, 10], "category_id": 3}
    assert changes["box-not-finite"].old == {"box": [None] * 4, "category_id": 3}
    assert changes["box-zero-area"].new is None
    assert (changes["image-size-unknown"].old, changes["image-size-unknown"].new) == (
        {"width": 0, "height": 0},
        {"width": 100, "height": 80},
    )
    assert changes["image-truncated"].old == {"width": 100, "height": 80, "annotations": 1}


def test_what_is_good_stays_bit_for_bit(planted: Planted) -> None:
    wanted = spoil(planted)
    before = planted.dataset().split("train")
    after = validate(planted.dataset(), settings("safe")).mended.split("train")
    touched = {annotation for _, _, annotation in wanted.values()}
    for name in ("a.png", "b.png", "spoiled.png"):
        old, new = before.rows_of(before.images.file_names.index(name)), after.rows_of(after.images.file_names.index(name))
        untouched = [row for row in range(old.start, old.stop) if before.annotations.ids_A[row] not in touched]
        kept = [row for row in range(new.start, new.stop) if after.annotations.ids_A[row] not in touched]
        for column in ("ids_A", "boxes_A4", "area_A", "category_A", "label_A"):
            np.testing.assert_array_equal(
                getattr(before.annotations, column)[untouched], getattr(after.annotations, column)[kept]
            )


def test_a_clipped_box_has_the_area_of_what_is_left_and_a_mask_keeps_its_own(planted: Planted) -> None:
    plain, masked = (planted.box("train", "a.png", (60, 10, x, 30), 3) for x in (140, 150))
    dataset = planted.dataset()
    annotations = dataset.split("train").annotations
    row = annotations.ids_A.tolist().index(masked)
    starts = np.zeros(len(annotations) + 1, np.int64)
    starts[row + 1 :] = 1
    annotations.polygons = PolygonPool(np.array([[60, 10], [150, 10], [60, 30]], np.float32), np.array([0, 3]), starts)
    annotations.area_A[row] = 900
    mended = (
        validate(dataset, settings("safe", box_near_duplicate="ignore", mask_outside="ignore")).mended.split("train").annotations
    )
    area = dict(zip(mended.ids_A.tolist(), mended.area_A.tolist(), strict=True))
    assert (area[plain], area[masked]) == (800, 900)


@pytest.mark.parametrize("mode", ["safe", "all"])
def test_its_own_output_holds_nothing_to_mend(planted: Planted, tmp_path: Path, mode: str) -> None:
    spoil(planted)
    planted.picture("train", "leaked2.png", seed=1)
    # Only after clipping are these two near-duplicates; only after their picture's size is known can they be clipped.
    for right in (120, 200):
        planted.box("train", "nosize.png", (50, 40, right, 70), 7)
    first = validate(planted.dataset(), settings(mode))
    assert [c.fix for c in first.changes if c.image == "nosize.png"] == ["size", "clip", "clip", "merge"]
    out = tmp_path / "validated"
    out.mkdir()
    write_dataset(out, first.mended)
    second = validate(open_dataset(out), settings(mode))
    assert second.changes == []
    assert not [
        f
        for findings in second.found
        if len(findings) and applies(findings, "all" if mode == "all" else "safe")
        for f in findings.reasons
    ]
    again = tmp_path / "again"
    again.mkdir()
    write_dataset(again, second.mended)
    assert {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()} == {
        p.name: p.read_bytes() for p in again.iterdir() if p.is_file()
    }


def test_fix_none_reports_and_changes_nothing(planted: Planted) -> None:
    wanted = spoil(planted)
    dataset = planted.dataset()
    result = validate(dataset, settings("none"))
    assert result.changes == []
    assert result.mended is dataset
    assert {f.code for f in result.findings if f.fix} == set(wanted)


def test_warnings_are_mended_by_all_only_and_severity_moves_them(planted: Planted) -> None:
    for name in ("x.png", "y.png"):
        planted.picture("train", name, seed=1)
        planted.box("train", name, (10, 10, 30, 30), 3)
    assert validate(planted.dataset(), settings("safe")).changes == []
    assert [c.image for c in validate(planted.dataset(), settings("all")).changes] == ["y.png"]
    assert [c.image for c in validate(planted.dataset(), settings("safe", image_repeated="error")).changes] == ["y.png"]
    assert serious(validate(planted.dataset(), settings("all", image_repeated="ignore"))) == []


def test_the_dataset_given_is_left_as_it_is(planted: Planted) -> None:
    spoil(planted)
    dataset, twin = planted.dataset(), planted.dataset()
    validate(dataset, settings("all"))
    for name, split in dataset.splits.items():
        np.testing.assert_array_equal(split.annotations.boxes_A4, twin.splits[name].annotations.boxes_A4)
        np.testing.assert_array_equal(split.annotations.ids_A, twin.splits[name].annotations.ids_A)
        assert split.images.file_names == twin.splits[name].images.file_names
        np.testing.assert_array_equal(split.images.widths_I, twin.splits[name].images.widths_I)


# -- the gate --


def gated(planted: Planted, gate: float, fix: str = "safe", more: dict[str, float] | None = None, **severity: str) -> Validation:
    cfg = settings(fix, gate, more, **severity)
    result = validate(planted.dataset(), cfg)
    result.require(cfg.gate)
    return result


def test_share_of_bad_annotations_stops_the_line(planted: Planted) -> None:
    for x in (10, 20):
        planted.box("train", "a.png", (x, 10, x, 10), 3)  # 2 of 8, and each counts once
    assert gated(planted, 0.25).bad_annotations() == 0.25
    with pytest.raises(GateError, match=r"25.0% of the annotations have errors, the gate allows 24.0%") as error:
        gated(planted, 0.24)
    assert "box-zero-area 2" in str(error.value)
    assert "validate.gate.annotations=0.25" in str(error.value)


def test_an_annotation_with_two_errors_counts_once(planted: Planted) -> None:
    planted.box("train", "a.png", (10, 10, 10, 10), 99)
    result = gated(planted, 1.0)
    assert {f.code for f in result.findings} >= {"box-zero-area", "category-unknown"}
    assert result.bad_annotations() == 1 / 7


def test_warnings_do_not_count(planted: Planted) -> None:
    planted.box("train", "a.png", (10, 10, 10, 10), 3)
    assert gated(planted, 0.0, box_zero_area="warning").bad_annotations() == 0


def test_share_of_bad_pictures_stops_the_line_and_faulty_boxes_do_not_make_a_picture_bad(planted: Planted) -> None:
    planted.box("train", "a.png", (10, 10, 10, 10), 3)
    planted.picture("train", "gone.png").unlink()
    assert gated(planted, 0.25).bad_pictures() == 0.25
    with pytest.raises(GateError, match=r"25.0% of the pictures.*Most: image-missing 1\n"):
        gated(planted, 0.2)


def test_one_class_may_not_be_bad_while_all_together_are_not(planted: Planted) -> None:
    """Three bad labels of twelve are a quarter of their class, and a tenth of all; a class of fewer than ten is not judged."""
    for name in (f"more{number}.png" for number in range(6)):
        planted.picture("train", name)
        planted.box("train", name, (10, 10, 40, 40), 7)
        for x in (50, 60, 70):
            planted.box("train", name, (x, 10, x + 8, 60), 3)
    for x in (10, 20, 30):
        planted.box("train", "a.png", (x, 10, x, 10), 7)
    dogs = len([one for rows in planted.annotations.values() for one in rows if one["category"] == 7])
    assert dogs == 12 and gated(planted, 0.1, more={"of_a_class": 0.25}).bad_annotations() < 0.1
    with pytest.raises(GateError, match=r"25.0% of the annotations of class dog have errors.*Most: box-zero-area 3\n") as error:
        gated(planted, 1.0, more={"of_a_class": 0.24})
    assert "validate.gate.of_a_class=0.25" in str(error.value)
    planted.annotations["train"] = [
        one for one in planted.annotations["train"] if one["category"] == 3 or one["picture"] == "a.png"
    ]
    gated(planted, 1.0, more={"of_a_class": 0.0})


def test_warnings_have_a_gate_of_their_own(planted: Planted) -> None:
    planted.box("train", "a.png", (10, 10, 10, 10), 3)
    for name in ("x.png", "y.png"):
        planted.picture("train", name, seed=1)
        planted.box("train", name, (10, 10, 30, 30), 3)
    warned = {"box_zero_area": "warning", "image_repeated": "warning"}
    with pytest.raises(GateError, match=r"of the annotations have warnings.*box-zero-area") as error:
        gated(planted, 1.0, more={"warned_annotations": 0.01}, **warned)
    assert "validate.severity.box-zero-area=info" in str(error.value) and "gate.warned_annotations=" in str(error.value)
    with pytest.raises(GateError, match=r"of the pictures have warnings.*image-repeated"):
        gated(planted, 1.0, more={"warned_pictures": 0.01}, **warned)
    gated(planted, 0.0, **warned)


def test_the_gate_holds_without_fixes_too(planted: Planted) -> None:
    planted.box("train", "a.png", (10, 10, 10, 10), 3)
    with pytest.raises(GateError):
        gated(planted, 0.1, fix="none")


def test_a_class_absent_from_train_stops_the_line_when_that_is_asked_for(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": [], "val": ["c.png"]})
    planted.picture("train", "a.png")
    planted.box("train", "a.png", (10, 10, 40, 40), 3)
    with pytest.raises(GateError, match="class dog is in val, not in train") as error:
        gated(planted, 1.0, class_absent_from_train="error")
    assert "validate.severity.class-absent-from-train=warning" in str(error.value)
    result = gated(planted, 1.0)  # by default it is said and the line goes on: the other classes can still be learnt
    assert [f.severity for f in result.findings if f.code == "class-absent-from-train"] == ["warning"]


def test_a_class_that_fixes_take_out_of_train_stops_the_line(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": ["a.png"], "val": ["c.png"]})
    planted.annotations["train"] = [one for one in planted.annotations["train"] if one["category"] == 3]
    planted.box("train", "a.png", (10, 10, 10, 10), 7)
    gated(planted, 1.0, fix="none", class_absent_from_train="error")
    with pytest.raises(GateError, match="class dog is in val, not in train"):
        gated(planted, 1.0, class_absent_from_train="error")


def test_what_stays_wrong_is_listed_once(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": [], "val": ["c.png"]})
    planted.picture("train", "a.png")
    planted.box("train", "a.png", (10, 10, 40, 40), 3)
    planted.box("val", "c.png", (50, 20, 90, 71), 7)  # a near-duplicate: mending it leaves one dog fewer in val
    result = validate(planted.dataset(), settings("safe"))
    assert serious(result) == ["box-near-duplicate", "class-absent-from-train"]


def test_a_split_that_fixes_empty_stops_the_line(tmp_path: Path) -> None:
    planted = Planted(tmp_path, {"train": ["a.png"], "val": ["c.png"]})
    (tmp_path / "c.png").unlink()
    with pytest.raises(GateError, match="split val has no pictures"):
        gated(planted, 1.0)


def test_what_a_fix_only_changes_the_numbers_of_is_said_once() -> None:
    def said(reason: str) -> Finding:
        return Finding("class-rare", "info", "train", None, None, reason, None)

    car1, fewer, car2 = said("3 of 90 are car1"), said("2 of 89 are car1"), said("2 of 89 are car2")
    assert _unsaid([car1], [fewer], [fewer]) == []
    assert _unsaid([car1], [car2], [car1, car2]) == [car2]  # car1's stands as it was
    assert _unsaid([car1], [fewer, car2], [fewer, car2]) == [car2]
    assert _unsaid([], [fewer], [fewer]) == [fewer]
    boxes = [Finding("box-outside", "error", "train", "a.png", number, "lies outside by 3 px", None) for number in (1, 2)]
    assert _unsaid(boxes[:1], boxes[1:], boxes[1:]) == boxes[1:]
