"""Splits: byte-identical pictures never on both sides, the share met, and which of a source's splits become what."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.data.dataset import Split
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.sources import with_safe_names
from pipeline.data.splits import arrange_splits, split_named, validation_rows
from pipeline.errors import DataError


def split_of(folder: Path, contents: list[bytes | None], name: str = "all", prefix: str = "") -> Split:
    """A split with a file per content (None = missing), one annotation each and one dangling."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{prefix}{i:03d}.jpg" for i in range(len(contents))]
    for file_name, content in zip(names, contents, strict=True):
        if content is not None:
            (folder / file_name).write_bytes(content)
    images = image_table([{"id": i + 10, "file_name": file_name} for i, file_name in enumerate(names)], name)
    records = [{"id": i + 1, "image_id": i + 10, "category_id": 1, "bbox": [i, 0, 1, 1]} for i in range(len(names))]
    return Split(name, images, annotation_table([*records, {"id": 999, "image_id": 5}], images, name), folder)


@pytest.mark.parametrize("seed", range(20))
def test_no_bytes_on_both_sides(tmp_path, seed):
    chance = np.random.default_rng(seed)
    contents = [bytes([chance.integers(0, 25)]) for _ in range(60)]
    split = split_of(tmp_path, contents)
    chosen = validation_rows(split, 0.25, seed, "x")
    val, train = ({contents[i] for i in np.flatnonzero(side)} for side in (chosen, ~chosen))
    assert not val & train and val and train
    groups = {c: contents.count(c) for c in contents}
    assert abs(chosen.sum() - 15) < max(groups.values())
    assert (validation_rows(split, 0.25, seed, "x") == chosen).all()
    assert any((validation_rows(split, 0.25, other, "x") != chosen).any() for other in range(100, 105))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_share_is_exact_without_repeats_and_names_do_not_matter(tmp_path, share):
    contents = [str(i).encode() for i in range(80)]
    one = validation_rows(split_of(tmp_path / "one", contents), share, 3, "x")
    assert one.sum() == round(80 * share)
    renamed = validation_rows(split_of(tmp_path / "two", contents[::-1], prefix="new_"), share, 3, "x")
    assert {contents[i] for i in np.flatnonzero(one)} == {contents[::-1][i] for i in np.flatnonzero(renamed)}


def test_new_pictures_move_few_old_ones(tmp_path):
    contents = [str(i).encode() for i in range(200)]
    before = validation_rows(split_of(tmp_path / "one", contents[:180]), 0.2, 0, "x")
    after = validation_rows(split_of(tmp_path / "two", contents), 0.2, 0, "x")
    assert (before != after[:180]).sum() <= 20


def test_extremes(tmp_path):
    assert validation_rows(split_of(tmp_path / "a", [b"1", b"2"]), 0.01, 0, "x").sum() == 1
    assert validation_rows(split_of(tmp_path / "b", [b"1", b"2"]), 0.99, 0, "x").sum() == 1
    chosen = validation_rows(split_of(tmp_path / "c", [b"1"] * 9 + [b"2"]), 0.2, 0, "x")
    assert chosen.tolist() == [False] * 9 + [True]
    assert validation_rows(split_of(tmp_path / "d", [b"1", None, b"2", None]), 0.5, 0, "x")[[1, 3]].tolist() == [False, False]
    for contents in ([b"1"], [b"1", b"1"], [b"1", None], [None, None]):
        with pytest.raises(DataError, match="fewer than two different pictures"):
            validation_rows(split_of(tmp_path / f"e{len(list(tmp_path.iterdir()))}", contents), 0.5, 0, "x")


CONTENTS = [str(i).encode() for i in range(10)]


def arranged(tmp_path: Path, *names: str) -> dict[str, int]:
    found = {name: split_of(tmp_path / name, [f"{name}{i}".encode() for i in range(10)], name) for name in names}
    splits, how = arrange_splits(found, 0.2, 0, "x")
    assert [split.name for split in splits.values()] == list(splits) and how
    return {name: len(split.images) for name, split in splits.items()}


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("train", "val"), {"train": 10, "val": 10}),
        (("val", "test", "train", "trainval"), {"train": 10, "val": 10, "test": 10}),
        (("train",), {"train": 8, "val": 2}),
        (("train", "test"), {"train": 8, "val": 2, "test": 10}),
        (("trainval", "test"), {"train": 8, "val": 2, "test": 10}),
        (("train", "trainval"), {"train": 8, "val": 2}),
        (("all",), {"train": 8, "val": 2}),
        (("test",), {"train": 8, "val": 2}),
        (("val",), {"train": 8, "val": 2}),
    ],
    ids="+".join,
)
def test_what_a_sources_splits_become(tmp_path, names, sizes):
    if isinstance(names, str):
        names = (names,)
    assert arranged(tmp_path, *names) == sizes


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(DataError, match="no training split, only test, val"):
        arranged(tmp_path, "val", "test")
    with pytest.raises(DataError, match="has no pictures"):
        arrange_splits({"train": split_of(tmp_path / "x", [])}, 0.2, 0, "x")


def test_annotations_follow_their_pictures(tmp_path):
    splits, _ = arrange_splits({"all": split_of(tmp_path, CONTENTS)}, 0.3, 0, "x")
    assert splits["train"].rows_of(-1) == slice(0, 1) and splits["val"].rows_of(-1) == slice(0, 0)
    for split in splits.values():
        for row, name in enumerate(split.images.file_names):
            rows = split.rows_of(row)
            assert split.annotations.boxes_A4[rows, 0].tolist() == [int(name[:3])]
            assert split.path(row).read_bytes() == name[2:3].encode()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("instances_train2017", "train"), ("val2017", "val"), ("VALIDATION", "val"), ("valid", "val"), ("Test", "test"),
        ("trainval", "trainval"), ("training-data", "train"), ("constraints", None), ("trained", None), ("", None),
    ],
)  # fmt: skip
def test_split_words(text, name):
    assert split_named(text) == name


def test_names_are_safe_unique_and_sorted(tmp_path):
    def named(names: list[str]) -> dict[str, str]:
        images = image_table([{"id": i, "file_name": name} for i, name in enumerate(names)], "x")
        records = [{"id": i + 1, "image_id": i, "bbox": [i, 0, 1, 1]} for i in range(len(names))]
        split = Split("all", images, annotation_table(records, images, "x"), tmp_path)
        new = with_safe_names({"all": split})["all"]
        assert new.images.file_names == sorted(set(new.images.file_names))
        for row in range(len(names)):
            assert new.annotations.boxes_A4[new.rows_of(row), 0].tolist() == [new.images.ids_I[row]]
        return {names[identity]: file_name for identity, file_name in zip(new.images.ids_I, new.images.file_names, strict=True)}

    assert named(["a/x/1.jpg", "a/x/2.jpg"]) == {"a/x/1.jpg": "1.jpg", "a/x/2.jpg": "2.jpg"}
    assert named(["a/x/1.jpg", "a/y/1.jpg"]) == {"a/x/1.jpg": "x/1.jpg", "a/y/1.jpg": "y/1.jpg"}
    assert named(["ab/1.jpg", "ac/1.jpg"]) == {"ab/1.jpg": "ab/1.jpg", "ac/1.jpg": "ac/1.jpg"}
    assert named(["1.jpg", "sub/1.jpg"]) == {"1.jpg": "1.jpg", "sub/1.jpg": "sub/1.jpg"}
    assert set(named(["a?.jpg", "a_.jpg", "a*.jpg"]).values()) == {"a_.jpg", "a_-2.jpg", "a_-3.jpg"}
    assert named(["x/../../etc.jpg", "b\n.jpg", "-o.jpg"]) == {
        "x/../../etc.jpg": "x/etc.jpg",
        "b\n.jpg": "b_.jpg",
        "-o.jpg": "o.jpg",
    }
