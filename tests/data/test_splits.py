"""Splits: byte-identical pictures never on both sides, the share met, and which of a source's splits become what."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.config import SplitConfig
from pipeline.data.dataset import Split
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.grouping import drawn_rows
from pipeline.data.perceptual import near_files
from pipeline.data.sources import with_safe_names
from pipeline.data.splits import arrange_splits, split_named
from pipeline.errors import ConfigError, DataError


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


def rules(val: float, **more: Any) -> SplitConfig:
    return SplitConfig(
        **{"val": val, "existing": True, "stratify": False, "field": None, "pattern": None, "similar": None, **more}
    )


@pytest.mark.parametrize("seed", range(20))
def test_no_bytes_on_both_sides(tmp_path, seed):
    chance = np.random.default_rng(seed)
    contents = [bytes([chance.integers(0, 25)]) for _ in range(60)]
    split = split_of(tmp_path, contents)
    chosen = drawn_rows(split, rules(0.25), seed, "x")
    val, train = ({contents[i] for i in np.flatnonzero(side)} for side in (chosen, ~chosen))
    assert not val & train and val and train
    groups = {c: contents.count(c) for c in contents}
    assert abs(chosen.sum() - 15) < max(groups.values())
    assert (drawn_rows(split, rules(0.25), seed, "x") == chosen).all()
    assert any((drawn_rows(split, rules(0.25), other, "x") != chosen).any() for other in range(100, 105))


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_share_is_exact_without_repeats_and_names_do_not_matter(tmp_path, share):
    contents = [str(i).encode() for i in range(80)]
    one = drawn_rows(split_of(tmp_path / "one", contents), rules(share), 3, "x")
    assert one.sum() == round(80 * share)
    renamed = drawn_rows(split_of(tmp_path / "two", contents[::-1], prefix="new_"), rules(share), 3, "x")
    assert {contents[i] for i in np.flatnonzero(one)} == {contents[::-1][i] for i in np.flatnonzero(renamed)}


def test_new_pictures_move_few_old_ones(tmp_path):
    contents = [str(i).encode() for i in range(200)]
    before = drawn_rows(split_of(tmp_path / "one", contents[:180]), rules(0.2), 0, "x")
    after = drawn_rows(split_of(tmp_path / "two", contents), rules(0.2), 0, "x")
    assert (before != after[:180]).sum() <= 20


def test_extremes(tmp_path):
    assert drawn_rows(split_of(tmp_path / "a", [b"1", b"2"]), rules(0.01), 0, "x").sum() == 1
    assert drawn_rows(split_of(tmp_path / "b", [b"1", b"2"]), rules(0.99), 0, "x").sum() == 1
    chosen = drawn_rows(split_of(tmp_path / "c", [b"1"] * 9 + [b"2"]), rules(0.2), 0, "x")
    assert chosen.tolist() == [False] * 9 + [True]
    assert drawn_rows(split_of(tmp_path / "d", [b"1", None, b"2", None]), rules(0.5), 0, "x")[[1, 3]].tolist() == [False, False]
    for contents in ([b"1"], [b"1", b"1"], [b"1", None], [None, None]):
        with pytest.raises(DataError, match="fewer than two different pictures"):
            drawn_rows(split_of(tmp_path / f"e{len(list(tmp_path.iterdir()))}", contents), rules(0.5), 0, "x")


CONTENTS = [str(i).encode() for i in range(10)]


def arranged(tmp_path: Path, *names: str) -> dict[str, int]:
    found = {name: split_of(tmp_path / name, [f"{name}{i}".encode() for i in range(10)], name) for name in names}
    splits, how = arrange_splits(found, rules(0.2), 0, "x")
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
        arrange_splits({"train": split_of(tmp_path / "x", [])}, rules(0.2), 0, "x")


def test_annotations_follow_their_pictures(tmp_path):
    splits, _ = arrange_splits({"all": split_of(tmp_path, CONTENTS)}, rules(0.3), 0, "x")
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


def labelled(folder: Path, classes: list[list[int]], extra: list[dict[str, Any]] | None = None, name: str = "all") -> Split:
    """A split with a picture of its own bytes per list of classes."""
    split = split_of(folder, [f"{name} {row}".encode() for row in range(len(classes))], name)
    records = [
        {"id": 100 * row + place, "image_id": row + 10, "category_id": label, "bbox": [row, place, 1, 1]}
        for row, own in enumerate(classes)
        for place, label in enumerate(own)
    ]
    split.annotations = annotation_table(records, split.images, name)
    split.annotations.label_A = split.annotations.category_A
    split.images.extra.update(dict(enumerate(extra or [])))
    return split


def test_a_class_has_its_share_on_both_sides(tmp_path):
    """A long tail of 12 classes: val misses each class's share by a label or 4 % at most, where no plain draw does."""
    chance = np.random.default_rng(0)
    weights = 0.6 ** np.arange(12)
    classes = [chance.choice(12, chance.integers(0, 6), p=weights / weights.sum()).tolist() for _ in range(400)]
    split = labelled(tmp_path, classes)
    total = split.class_counts(12)
    misses = {}
    for stratify in (True, False):
        worst = []
        for seed in range(8):
            chosen = drawn_rows(split, rules(0.25, stratify=stratify), seed, "x")
            assert abs(chosen.sum() - 100) <= (12 if stratify else 0)
            worst.append(np.abs(split.take_images(chosen).class_counts(12) - total / 4) / total)
        misses[stratify] = np.array(worst)
    assert (misses[True] <= np.maximum(1 / total, 0.04)).all()
    assert (misses[False] > np.maximum(1 / total, 0.04)).any(axis=1).all()
    again = drawn_rows(split, rules(0.25, stratify=True), 7, "x")
    assert (again == chosen).sum() < len(chosen)  # another draw than the plain one of the same seed


@pytest.mark.parametrize("stratify", [False, True])
def test_no_group_crosses(tmp_path, stratify):
    """Films by name, cameras by field, and two copies of one picture that tie two films together."""
    chance = np.random.default_rng(1)
    extra = [{"camera": int(chance.integers(0, 12))} if chance.random() < 0.5 else {} for _ in range(120)]
    split = labelled(tmp_path, [[row % 3] for row in range(120)], extra)
    split.images.file_names[:] = [f"film{row // 4:02}_{row % 4}.jpg" for row in range(120)]
    split.sources = [tmp_path / f"{row:03}.jpg" for row in range(120)]
    split.sources[119].write_bytes(split.sources[0].read_bytes())
    by_name = rules(0.3, pattern=r"^film(\d+)_", stratify=stratify)
    chosen = drawn_rows(split, by_name, 0, "x")
    assert all(len(set(chosen[row : row + 4])) == 1 for row in range(0, 120, 4)) and chosen[0] == chosen[119]
    assert 0.22 <= chosen.mean() <= 0.38
    both = drawn_rows(split, rules(0.3, pattern=r"^film(\d+)_", field="camera", stratify=stratify), 0, "x")
    for camera in range(12):
        assert len({bool(both[row]) for row in range(120) if extra[row].get("camera") == camera}) <= 1
    assert all(len(set(both[row : row + 4])) == 1 for row in range(0, 120, 4))


def test_scaled_and_compressed_copies_stay_together(tmp_path):
    """Forty scenes in three copies each; broken, missing and empty pictures are in no group, and stop nothing."""
    chance, split = np.random.default_rng(3), labelled(tmp_path, [[0]] * 124)
    split.sources = [tmp_path / f"{row:03}.jpg" for row in range(124)]
    for scene in range(40):
        small = Image.fromarray(chance.integers(0, 255, (12, 16, 3), np.uint8))
        for copy, (side, quality) in enumerate(((320, 95), (160, 90), (240, 60))):
            small.resize((side, side * 3 // 4), Image.Resampling.BICUBIC).save(split.sources[3 * scene + copy], quality=quality)
    Image.new("RGB", (64, 64), (9, 9, 9)).save(split.sources[120])
    Image.new("RGB", (64, 64), (10, 10, 10)).save(split.sources[121])
    split.sources[122].unlink()
    chosen = drawn_rows(split, rules(0.3, similar=10), 0, "x")
    assert all(len(set(chosen[row : row + 3])) == 1 for row in range(0, 120, 3)) and 0.25 < chosen.mean() < 0.35
    apart = drawn_rows(split, rules(0.3), 0, "x")
    assert any(len(set(apart[row : row + 3])) > 1 for row in range(0, 120, 3))
    pairs = near_files(split.sources[:122], 10)
    assert {tuple(pair) for pair in pairs.tolist()} == {
        (3 * scene + a, 3 * scene + b) for scene in range(40) for a, b in ((0, 1), (0, 2), (1, 2))
    }
    with pytest.raises(ConfigError, match="must be 0 to 16 bits"):
        rules(0.5, similar=17)


def test_a_sources_own_splits_are_kept_counted_or_drawn_anew(tmp_path):
    """Both use the picture ids 10..29; films 3 and 4 are in both."""

    def found() -> dict[str, Split]:
        made = {}
        for name, films in (("train", range(5)), ("val", range(3, 8))):
            split = labelled(tmp_path / name, [[film % 2] * (1 + row) for film in films for row in range(4)], name=name)
            split.sources = [split.path(row) for row in range(20)]
            split.images.file_names[:] = [f"{film}_{name}_{row}.jpg" for film in films for row in range(4)]
            split.images.extra[3] = {"licence": name}
            made[name] = split
        return made

    splits, how = arrange_splits(found(), rules(0.25, pattern=r"^(\d+)_"), 0, "x")
    assert how == "the source's own; 2 groups (16 pictures) are in more than one split" and len(splits["val"].images) == 20
    splits, how = arrange_splits(found(), rules(0.25, pattern=r"^(\d+)_", existing=False), 0, "x")
    assert "the source's train and val" in how and how.endswith("0 groups (0 pictures) are in more than one split")
    films = [{name.split("_")[0] for name in splits[side].images.file_names} for side in ("train", "val")]
    assert not films[0] & films[1] and films[0] | films[1] == set(map(str, range(8)))
    ids = np.concatenate([split.images.ids_I for split in splits.values()])
    assert len(np.unique(ids)) == 40
    licences = 0
    for split in splits.values():
        for row, name in enumerate(split.images.file_names):
            film, side, place = name.removesuffix(".jpg").split("_")
            own = split.rows_of(row)
            assert split.annotations.label_A[own].tolist() == [int(film) % 2] * (1 + int(place))
            number = (int(film) - (3 if side == "val" else 0)) * 4 + int(place)
            assert (split.annotations.boxes_A4[own, 0] == number).all()
            assert split.path(row).read_bytes() == f"{side} {number}".encode()
            licences += split.images.extra.get(row) == {"licence": side}
    assert licences == 2


def test_what_names_no_group_is_refused(tmp_path):
    split = labelled(tmp_path, [[0]] * 4, [{"video_id": 1}] * 4)
    with pytest.raises(DataError, match=r"no picture has 'vidoe_id'\n.*mean video_id"):
        drawn_rows(split, rules(0.5, field="vidoe_id"), 0, "x")
    with pytest.raises(DataError, match=r"is found in no picture's path\n.*000\.jpg"):
        drawn_rows(split, rules(0.5, pattern="film"), 0, "x")
    with pytest.raises(ConfigError, match="is not a regular expression"):
        rules(0.5, pattern="(")
