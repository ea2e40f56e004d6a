"""Masks of labels: run lengths against pycocotools, and labels that a mask detector cannot learn from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

import ops_cuda
from pipeline.data.annotations import PolygonPool
from pipeline.data.dataset import Split
from pipeline.data.masks import has_mask, outlines, require_masks, run_lengths, unpack
from pipeline.errors import DataError
from tests.data.simple import simple_dataset


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Boxes alone: 3 pictures with two labels each, the last one a crowd."""
    return simple_dataset(tmp_path_factory.mktemp("masks"), pictures=3).split("train")


def with_masks(split: Split, polygons: dict[int, list[np.ndarray]], rle: dict | None = None, size: tuple = (0, 0)) -> Split:
    """`size` is what the labels state of every picture's height and width; 0 is nothing."""
    pool = PolygonPool.of([polygons.get(row, []) for row in range(len(split.annotations))])
    heights, widths = (np.full(len(split.images), side, np.int32) for side in size)
    images = replace(split.images, heights_I=heights, widths_I=widths)
    return replace(split, images=images, annotations=replace(split.annotations, polygons=pool, rle=rle or {}))


def bitmaps() -> list[np.ndarray]:
    chance = np.random.default_rng(0)
    made = [chance.random((9, 13)) < share for share in (0.1, 0.5, 0.9)]
    made += [np.zeros((7, 5), bool), np.ones((7, 5), bool), np.kron(np.eye(3), np.ones((4, 5))).astype(bool)]
    return made


@pytest.mark.parametrize("number", range(6))
def test_run_lengths_become_the_same_pixels(plain: Split, number: int) -> None:
    bitmap = bitmaps()[number]
    packed = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    height, width, counts = run_lengths({"size": packed["size"], "counts": packed["counts"].decode()}, "here")
    assert (height, width) == bitmap.shape
    again = coco_mask.decode(coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width))
    np.testing.assert_array_equal(again, bitmap)
    for code in (packed["counts"].decode(), counts.tolist()):
        rle = {"size": [height, width], "counts": code}
        pool = outlines(with_masks(plain, {}, {2: rle}, (height, width)), slice(1, 4))
        side = max(height, width)
        owners = torch.from_numpy(pool.polygon_starts), torch.from_numpy(pool.annotation_starts)
        box = torch.tensor([[0.0, 0, side, side]]).expand(3, 4)
        masks = ops_cuda.rasterise_polygons(torch.from_numpy(pool.points_P2), *owners, box, torch.arange(3), side)
        np.testing.assert_array_equal(masks[1, :height, :width].numpy(), bitmap)
        assert not masks[0].any() and not masks[2].any()


def test_unpack_equals_pycocotools_on_long_runs() -> None:
    chance = np.random.default_rng(1)
    for scale in (1, 40, 5000):
        counts = chance.integers(0, scale, 60)
        whole = int(counts.sum())
        packed = coco_mask.frPyObjects({"size": [whole, 1], "counts": counts.tolist()}, whole, 1)["counts"]
        assert unpack(packed).tolist() == counts.tolist()


@pytest.mark.parametrize(
    "rle",
    [
        {"size": [4, 4], "counts": [3, 4]},
        {"size": [4, 4], "counts": [20, -4]},
        {"size": [4, 4], "counts": "1é"},
        {"size": [4, 4], "counts": "Q"},
        {"size": [4], "counts": [4]},
        {"counts": [4]},
        {"size": [2, 2], "counts": None},
    ],
)
def test_broken_run_lengths_are_named(plain: Split, rle: dict) -> None:
    with pytest.raises(DataError, match=r"train\.json: annotation 3: .*run lengths"):
        outlines(with_masks(plain, {}, {2: rle}), slice(0, 4))


def test_a_mask_of_another_size_than_its_picture_is_named(plain: Split) -> None:
    """As after a picture was resized: its cells would lie elsewhere, without anybody noticing."""
    with pytest.raises(DataError, match="annotation 3: its mask is of 4 x 4 pixels, its picture of 4 x 8"):
        outlines(with_masks(plain, {}, {2: {"size": [4, 4], "counts": [16]}}, (4, 8)), slice(0, 4))


def test_labels_without_a_mask_are_counted_and_named(plain: Split) -> None:
    square, line = np.array([[0.0, 0], [5, 0], [5, 5]]), np.array([[0.0, 0], [5, 5]])
    whole = with_masks(plain, {row: [square] for row in range(5)})  # row 5 is a crowd
    require_masks(whole, "data")
    assert has_mask(whole.annotations).tolist() == [True] * 5 + [False]
    some = with_masks(plain, {0: [square], 1: [line], 2: [line, square]}, {3: {"size": [2, 2], "counts": [0, 4]}})
    assert has_mask(some.annotations).tolist() == [True, False, True, True, False, False]
    with pytest.raises(DataError, match=r"data: 2 of 5 labels of the split train have no mask: annotations 2, 5\n .*faster_rcnn"):
        require_masks(some, "data")


def test_a_dataset_of_boxes_is_one_clear_message(plain: Split, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"5 of 5 labels .*nothing to learn masks from\n .*model=faster_rcnn_r50_fpn"):
        require_masks(plain, tmp_path)
