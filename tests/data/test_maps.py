"""Semantic and panoptic maps: exact in the generated dataset, whole on disk whatever is dropped, moved with their pictures."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipeline.data.augment import Augmentation
from pipeline.data.dataset import Dataset, open_dataset, write_dataset, written_digest
from pipeline.data.loader import Sample, TrainingPictures, collate, mapped
from pipeline.data.needs import require_labels
from pipeline.data.truths import Truths
from pipeline.errors import DataError
from pipeline.predict.map_files import decode_classes, decode_segments, encode_classes, encode_segments
from tests.data.conftest import Ingest

PLAIN = Augmentation(short_side=64, long_side=64, flip=0.0, scale=(1.0, 1.0), crop=0.0, crop_least=1.0)
WILD = Augmentation(short_side=48, long_side=96, flip=0.5, scale=(0.6, 1.6), crop=0.7, crop_least=0.5)
SMALL = {"size": 64, "train": 12, "val": 4, "grounds": [1, 3], "objects": [2, 5]}


@pytest.fixture
def folder(ingest: Ingest, root: Path) -> Path:
    return ingest("shapes", root / "pipeline/data/formats/shapes.py", **SMALL)


def test_segments_are_what_their_pixels_are(folder: Path) -> None:
    """Every number in a map is listed and the other way round; area and box are those of the pixels; nothing is unlabelled."""
    listed = json.loads((folder / "panoptic_train.json").read_bytes())
    things = {category["id"]: category["isthing"] for category in listed["categories"]}
    assert sum(things.values()) == 3 and len(things) == 8
    several = 0
    for picture in listed["annotations"]:
        ids = decode_segments(folder / "panoptic" / picture["file_name"])
        classes = decode_classes(folder / "semantic" / picture["file_name"])
        infos = picture["segments_info"]
        assert sorted(info["id"] for info in infos) == np.unique(ids).tolist() and ids.min() > 0
        for info in infos:
            ys, xs = np.nonzero(ids == info["id"])
            assert info["area"] == len(xs)
            assert info["bbox"] == [xs.min(), ys.min(), xs.max() + 1 - xs.min(), ys.max() + 1 - ys.min()]
            stuff = not things[info["category_id"]]
            assert set(classes[ys, xs].tolist()) == {info["category_id"] - 3 if stuff else 0}
            assert ("annotation_id" in info) != stuff
        several += len({info["category_id"] for info in infos if not things[info["category_id"]]}) > 1
    assert several > 2


def test_a_shape_is_seen_where_its_outline_is_and_no_later_one(folder: Path) -> None:
    """Against polygons drawn by Pillow at 8 times the size, in drawing order; a pixel at an edge may be either's."""
    split = open_dataset(folder).split("train")
    assert split.maps is not None and split.maps.segments is not None
    table = split.annotations
    for image in range(len(split.images)):
        canvas = Image.new("L", (512, 512))
        rows = split.rows_of(image)
        for number, row in enumerate(range(rows.start, rows.stop), 1):
            outline = [tuple(p) for p in (table.polygons.polygons_of(row)[0] * 8 - 0.5).tolist()]
            ImageDraw.Draw(canvas).polygon(outline, fill=number)
        blocks = np.asarray(canvas).reshape(64, 8, 64, 8).transpose(0, 2, 1, 3).reshape(64, 64, 64)
        sure = (blocks == blocks[..., :1]).all(axis=2)
        own = split.maps.segments.take(split.maps.segments.rows_of(image))
        label_of = dict(zip(own.number_S.tolist(), own.annotation_S.tolist(), strict=True))
        seen = np.vectorize(label_of.get)(split.maps.segments_of(image))
        expected = np.array([0, *table.ids_A[rows].tolist()])[blocks[..., 0]]
        assert sure.mean() > 0.7 and (seen[sure] == expected[sure]).all()


def without(dataset: Dataset, drop: Callable[[np.ndarray], np.ndarray]) -> Dataset:
    """The dataset whose train split keeps the annotation rows that `drop` does not choose."""
    split = dataset.split("train")
    kept = ~drop(split.annotations.ids_A)
    return replace(dataset, splits=dataset.splits | {"train": replace(split, annotations=split.annotations.take(kept))})


def test_a_dropped_label_leaves_no_segment(folder: Path, tmp_path: Path) -> None:
    """Its pixels belong to nothing and teach nothing; all others are what they were; the digest tells."""
    dataset = open_dataset(folder)
    write_dataset(tmp_path / "same", dataset)
    assert written_digest(tmp_path / "same") == written_digest(folder)
    write_dataset(tmp_path / "less", without(dataset, lambda ids: ids == 2))
    assert written_digest(tmp_path / "less") != written_digest(folder)
    before, after = (json.loads((at / "panoptic_train.json").read_bytes())["annotations"] for at in (folder, tmp_path / "less"))
    lost = 0
    for old, new in zip(before, after, strict=True):
        gone = [info["id"] for info in old["segments_info"] if info.get("annotation_id") == 2]
        assert [info for info in old["segments_info"] if info["id"] not in gone] == new["segments_info"]
        name = old["file_name"]
        was, now = (decode_segments(at / "panoptic" / name) for at in (folder, tmp_path / "less"))
        assert (now == np.where(np.isin(was, gone), 0, was)).all()
        was_class, now_class = (decode_classes(at / "semantic" / name) for at in (folder, tmp_path / "less"))
        assert (now_class == np.where(np.isin(was, gone), 255, was_class)).all()
        lost += int(np.isin(was, gone).sum())
    assert lost > 0
    again = open_dataset(tmp_path / "less").split("train").maps
    assert again is not None and again.segments is not None and 2 not in again.segments.annotation_S


def test_maps_follow_the_pictures_that_stay(folder: Path, tmp_path: Path) -> None:
    dataset = open_dataset(folder)
    split = dataset.split("train").take_images([7, 3])
    write_dataset(tmp_path / "two", replace(dataset, splits=dataset.splits | {"train": split}))
    kept = open_dataset(tmp_path / "two").split("train")
    assert kept.maps is not None
    for row, name in enumerate(kept.images.file_names):
        old = open_dataset(folder).split("train").images.file_names.index(name)
        before = dataset.split("train").maps
        assert before is not None and before.segments is not None and kept.maps.segments is not None
        assert (kept.maps.classes_of(row) == before.classes_of(old)).all()
        numbers = [maps.segments.number_S[maps.segments.rows_of(at)].tolist() for maps, at in ((kept.maps, row), (before, old))]
        assert numbers[0] == numbers[1]
    assert len(list((tmp_path / "two" / "semantic").iterdir())) == 2 + SMALL["val"]


def test_the_digest_covers_every_pixel_of_a_map(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    path = next((tmp_path / "copy" / "semantic").iterdir())
    changed = decode_classes(path).copy()
    changed[5, 5] = 255
    path.write_bytes(encode_classes(changed))
    write_dataset(tmp_path / "copy", open_dataset(tmp_path / "copy"))
    assert written_digest(tmp_path / "copy") != written_digest(folder)


@pytest.mark.parametrize("seed", range(20))
def test_a_map_follows_its_picture_through_every_augmentation(seed: int) -> None:
    """The picture is painted from the map, so that inside the regions each pixel still says its own class."""
    chance = np.random.default_rng(seed)
    regions = chance.integers(0, 4, (4, 5)).repeat(20, 0).repeat(20, 1).astype(np.uint8)
    picture = np.repeat((regions * 60)[..., None], 3, axis=2)
    truths = Truths(np.array([[10, 10, 40, 40]], np.float32), np.array([1]), semantic_HW=regions)
    pixels, moved = WILD(Image.fromarray(picture), truths, seed)
    assert moved.semantic_HW is not None and moved.semantic_HW.shape == pixels.shape[:2]
    painted = pixels[..., 0].astype(int)
    inner = np.abs(painted - np.rint(painted / 60) * 60) < 2
    assert inner.mean() > 0.5
    right = np.rint(painted / 60)[inner] == moved.semantic_HW[inner]
    assert right.mean() > 0.97  # where colours mix at an edge they can pass by another class's
    assert np.isin(moved.semantic_HW, regions).all()


def test_batches_carry_maps_ignored_in_the_padding(folder: Path) -> None:
    split = open_dataset(folder).split("train")
    pictures = TrainingPictures(split, PLAIN, "rgb", 0, ("semantic",))
    samples = [pictures[0], pictures[1]]
    batch = collate(samples, 96)
    assert not isinstance(batch, DataError)
    maps = batch.targets.semantic_NHW  # type: ignore[union-attr]
    assert maps is not None and maps.shape == (2, 96, 96)
    assert (maps[:, 64:] == 255).all() and (maps[:, :, 64:] == 255).all() and int(maps[:, :64, :64].max()) <= 5
    for sample, own in zip(samples, maps, strict=True):
        assert isinstance(sample, Sample) and sample.truths.semantic_HW is not None
        assert (own[:64, :64].numpy() == sample.truths.semantic_HW).all()
    assert TrainingPictures(split, PLAIN, "rgb", 0, ("bbox",))[0].truths.semantic_HW is None  # type: ignore[union-attr]
    assert mapped([], 4, 4) is None


def test_missing_broken_and_misplaced_maps_are_said_by_name(folder: Path) -> None:
    dataset, split = open_dataset(folder), open_dataset(folder).split("train")
    require_labels(dataset, "train", ("semantic", "panoptic"), folder)
    name = split.images.file_names[0]
    path = folder / "semantic" / name
    path.write_bytes(encode_classes(np.full((64, 64), 77, np.uint8)))
    with pytest.raises(DataError, match=f"{name}: holds class 77; there are 6"):
        Truths.read(split, 0, ("semantic",))
    path.write_bytes(encode_classes(np.zeros((32, 64), np.uint8)))
    pictures = TrainingPictures(split, PLAIN, "rgb", 0, ("semantic",))
    said = [str(sample) for sample in (pictures[i] for i in range(12)) if not isinstance(sample, Sample)]
    assert len(said) == 1 and "64 x 64 pixels, its semantic map 32 x 64" in said[0]
    path.write_bytes(encode_segments(np.zeros((64, 64), np.int32)))
    with pytest.raises(DataError, match="one byte per pixel"):
        Truths.read(split, 0, ("semantic",))
    path.unlink()
    with pytest.raises(DataError, match=f"1 of 12 pictures of the split train have no semantic map: {name}"):
        require_labels(dataset, "train", ("semantic",), folder)
    stranger = replace(dataset, info=replace(dataset.info, semantic=("sky", "road")))
    with pytest.raises(DataError, match="must be things, striped ground"):
        require_labels(stranger, "train", ("panoptic",), folder)
    bare = replace(dataset, splits={"train": replace(split, maps=None)})
    for task in ("semantic", "panoptic"):
        with pytest.raises(DataError, match=f"no {task} maps"):
            require_labels(bare, "train", (task,), folder)


def test_broken_lists_of_segments_are_said(folder: Path) -> None:
    path = folder / "panoptic_train.json"
    good = json.loads(path.read_bytes())
    for broken, message in (
        ({"annotations": [{"image_id": 1}]}, "segments_info"),
        ({"annotations": [{"image_id": 9999, "segments_info": good["annotations"][0]["segments_info"]}]}, "image 9999"),
    ):
        path.write_text(json.dumps(broken))
        with pytest.raises(DataError, match=message):
            open_dataset(folder)


def test_map_files_keep_their_numbers() -> None:
    chance = np.random.default_rng(0)
    classes, ids = chance.integers(0, 256, (9, 7)).astype(np.uint8), chance.integers(0, 2**24, (9, 7))
    assert (decode_classes(encode_classes(classes)) == classes).all()
    assert (decode_segments(encode_segments(ids)) == ids).all()
    with pytest.raises(ValueError, match="16777215"):
        encode_segments(np.array([[2**24]]))
