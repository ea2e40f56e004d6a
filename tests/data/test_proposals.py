"""Proposals on disk and on their way to the network: in order, moved with the picture, and missed loudly."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.data.augment import Augmentation
from pipeline.data.config import ShapesDataset
from pipeline.data.dataset import open_dataset, write_dataset
from pipeline.data.formats.shapes import draw_shapes
from pipeline.data.loader import proposed
from pipeline.data.needs import require_proposals
from pipeline.data.proposals import ProposalPool, read_proposals, write_proposals
from pipeline.data.truths import Truths
from pipeline.errors import DataError
from tests.data.conftest import Ingest
from tests.data.test_coco import coco, pictures


def pool() -> ProposalPool:
    boxes = np.arange(20, dtype=np.float32).reshape(5, 4) + np.array([0, 0, 9, 9], np.float32)
    return ProposalPool(np.array([0, 2, 2, 5]), boxes, np.array([0.1, 0.9, 0.5, 0.5, 0.7], np.float32))


def test_by_falling_score_and_equal_ones_in_order() -> None:
    assert pool().of(0)[:, 0].tolist() == [4, 0] and len(pool().of(1)) == 0 and pool().of(2)[:, 0].tolist() == [16, 8, 12]


def test_read_as_written_in_the_order_of_the_labels(tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    write_proposals(path, pool(), np.array([7, 3, 5]))
    first = path.read_bytes()
    write_proposals(path, pool(), np.array([7, 3, 5]))
    assert path.read_bytes() == first
    turned = read_proposals(path, np.array([5, 7]))
    assert np.array_equal(turned.of(0), pool().of(2)) and np.array_equal(turned.of(1), pool().of(0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"starts": np.array([0, 2, 5])}, "do not fit"),
        ({"boxes": np.full((5, 4), np.nan, np.float32)}, "not finite"),
        ({"image_ids": np.array([7, 3, 6])}, "no entry for 1 pictures, such as id 5"),
        ({"scores": None}, "scores"),
        ({"scores": np.array([{}] * 5)}, "holds no proposals"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, change: dict[str, np.ndarray], words: str) -> None:
    own = pool()
    values = {"image_ids": np.array([7, 3, 5]), "starts": own.starts_I, "boxes": own.boxes_P4, "scores": own.scores_P} | change
    np.savez(tmp_path / "x.npz", **{name: value for name, value in values.items() if value is not None})
    with pytest.raises(DataError, match=words):
        read_proposals(tmp_path / "x.npz", np.array([7, 3, 5]))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match="holds no proposals"):
        read_proposals(tmp_path / "x.npz", np.array([7]))


def test_boxes_of_corner_and_sides_are_noticed(tmp_path: Path) -> None:
    write_proposals(tmp_path / "x.npz", ProposalPool.joined([(np.float32([[50, 60, 20, 30]]), np.float32([1]))]), np.array([7]))
    with pytest.raises(DataError, match="ends before it begins"):
        read_proposals(tmp_path / "x.npz", np.array([7]))


def test_shapes_bring_proposals_through_the_dataset_on_disk(tmp_path: Path) -> None:
    sides = {"size": 64, "objects": (1, 3), "diameter": (0.2, 0.5), "hidden": 0.3, "grounds": (1, 1), "dense_points": 0}
    cfg = ShapesDataset(kind="shapes", source="", watched="", licence="x", train=4, val=2, **sides)
    drawn = draw_shapes(cfg, 3, tmp_path / "drawn")
    write_dataset(tmp_path / "set", drawn)
    split = open_dataset(tmp_path / "set").split("train")
    for row in range(4):
        proposals, truths = split.proposals.of(row), split.annotations.boxes_A4[split.rows_of(row)]
        assert np.array_equal(proposals, drawn.splits["train"].proposals.of(row))
        inside = (np.minimum(truths[:, None, 2:], proposals[:, 2:]) - np.maximum(truths[:, None, :2], proposals[:, :2])).clip(0)
        both = inside.prod(2)
        area = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (truths, proposals)]
        assert ((both / (area[0][:, None] + area[1] - both)).max(1) > 0.6).all(), "every truth is worth finding"
    half = split.take_images([2, 0])
    assert np.array_equal(half.proposals.of(0), split.proposals.of(2))
    require_proposals(open_dataset(tmp_path / "set"), "train", tmp_path)
    (tmp_path / "set" / "proposals" / "train.npz").unlink()
    with pytest.raises(DataError, match="the split train has no proposals"):
        require_proposals(open_dataset(tmp_path / "set"), "train", tmp_path)


@pytest.mark.parametrize("seed", range(10))
def test_proposals_move_as_the_boxes_do(seed: int) -> None:
    """The truths' own boxes as proposals stay equal to them, whatever the augmentation does."""
    boxes = np.array([[10, 12, 40, 50], [30, 5, 55, 30]], np.float32)
    truths = Truths(boxes, np.array([0, 1]), proposals_P4=boxes.copy())
    wild = Augmentation(short_side=48, long_side=96, flip=0.5, scale=(0.6, 1.6), crop=0.7, crop_least=0.5)
    _, moved = wild(Image.fromarray(np.zeros((60, 80, 3), np.uint8)), truths, seed)
    assert len(moved.proposals_P4) == 2
    for box in moved.boxes_G4:
        assert np.abs(moved.proposals_P4 - box).max(axis=1).min() < 1e-4


def test_a_batch_pads_with_boxes_without_area() -> None:
    one = Truths(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), proposals_P4=np.ones((3, 4), np.float32))
    batch = proposed([one, replace(one, proposals_P4=np.ones((1, 4), np.float32))])
    assert batch.shape == (2, 3, 4) and not batch[1, 1:].any() and torch.equal(batch[0], torch.ones(3, 4))
    assert proposed([replace(one, proposals_P4=None)]) is None


def test_a_coco_source_brings_its_own(ingest: Ingest, tmp_path: Path) -> None:
    """By the label file's image ids, whatever order the pictures come in; they survive the split into train and val."""
    names = [f"{letter}.png" for letter in "dacb"]
    source = tmp_path / "source"
    pictures(source / "images", *names)
    coco(source / "labels.json", *names)
    boxes = np.array([[k, k, k + 4, k + 5] for k in range(4)], np.float32)
    own = ProposalPool(np.arange(5), boxes, np.ones(4, np.float32))
    ids = {image["file_name"]: image["id"] for image in json.loads((source / "labels.json").read_text())["images"]}
    write_proposals(source / "proposals" / "labels.npz", own, np.array([ids[name] for name in sorted(names)]))
    dataset = open_dataset(ingest("coco", source))
    seen = {}
    for split in dataset.splits.values():
        for row, file_name in enumerate(split.images.file_names):
            seen[Path(file_name).name] = split.proposals.of(row)[0, 0]
    assert seen == {"a.png": 0, "b.png": 1, "c.png": 2, "d.png": 3}
