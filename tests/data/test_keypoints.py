"""Keypoints as labels: names in mirrors, COCO's half pixel, geometry, padding, and labels that teach none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.data.config import ShapesDataset
from pipeline.data.dataset import Category, Dataset
from pipeline.data.formats.shapes import draw_shapes
from pipeline.data.keypoints import mirror_table, mirrored, pictures_with_keypoints
from pipeline.data.loader import padded
from pipeline.data.needs import require_labels
from pipeline.data.truths import Truths
from pipeline.errors import DataError

COCO = (
    "nose",
    *(
        f"{side}_{part}"
        for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
        for side in ("left", "right")
    ),
)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cfg = ShapesDataset(
        kind="shapes",
        source=Path("shapes.py"),
        watched=None,
        licence="",
        size=64,
        train=12,
        val=4,
        objects=(1, 4),
        diameter=(0.3, 0.6),
        hidden=0.5,
        grounds=(1, 1),
        dense_points=0,
    )  # type: ignore[call-arg]
    return draw_shapes(cfg, 3, tmp_path_factory.mktemp("shapes"))


def test_coco_s_names_mirror_in_pairs() -> None:
    """The pairs of the reference: left and right of every part; the nose stays."""
    assert mirrored(COCO) == (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("top_left", "top_right", "bottom_right", "bottom_left"), (1, 0, 3, 2)),
        (("LeftEye", "RightEye", "LEFT EAR", "RIGHT EAR"), (1, 0, 3, 2)),
        (("l.wing", "r.wing", "tail", "bright", "cleft"), (1, 0, 2, 3, 4)),
        (("left_hand", "tip"), (-1, 1)),
        ((), ()),
    ],
)
def test_mirrors(names: tuple[str, ...], expected: tuple[int, ...]) -> None:
    assert mirrored(names) == expected


def test_classes_of_fewer_keypoints_are_padded() -> None:
    table = mirror_table([Category(1, "a", keypoints=("left", "right")), Category(2, "b"), Category(3, "c", keypoints=("mid",))])
    assert table.tolist() == [[1, 0], [-1, -1], [0, -1]]


def read(shapes: Dataset, row: int) -> Truths:
    return Truths.read(shapes.split("train"), row, ("bbox", "keypoints"), mirrors_CK=mirror_table(shapes.info.categories))


def test_shapes_corners_are_where_their_outlines_are(shapes: Dataset) -> None:
    """Through ingest's convention and the half pixel: a rectangle's named corners are its outline's points."""
    split, found = shapes.split("train"), 0
    for row in range(len(split.images)):
        truths, annotations = read(shapes, row), range(*split.rows_of(row).indices(len(split.annotations)))
        assert truths.keypoints_GK3 is not None and truths.keypoints_GK3.shape[1:] == (4, 3)
        for points, annotation in zip(truths.keypoints_GK3, annotations, strict=True):
            outline = split.annotations.polygons.polygons_of(annotation)[0]
            if split.annotations.label_A[annotation] != 0 and (points[:, 2] > 0).sum() >= 3:
                seen = points[points[:, 2] > 0, :2]
                apart = np.abs(seen[:, None] - outline[None]).max(axis=2).min(axis=1)
                assert apart.max() <= 0.02
                found += 1
    assert found >= 3


def test_flipping_twice_gives_the_labels_back_and_once_swaps_sides(shapes: Dataset) -> None:
    for row in range(6):
        truths = read(shapes, row)
        once = truths.flipped(64)
        twice = once.flipped(64)
        np.testing.assert_allclose(twice.keypoints_GK3, truths.keypoints_GK3, atol=1e-4)
        for label, points, mirror in zip(truths.labels_G, truths.keypoints_GK3, once.keypoints_GK3, strict=True):  # type: ignore[arg-type]
            if label == 1:  # top_left, top_right, bottom_right, bottom_left
                np.testing.assert_array_equal(mirror[:, 2], points[[1, 0, 3, 2], 2])
                shown = mirror[:, 2] > 0
                np.testing.assert_allclose(mirror[shown, 0], 64 - points[[1, 0, 3, 2], 0][shown], atol=1e-4)


def test_a_keypoint_without_its_other_side_is_not_learnt_mirrored() -> None:
    one = Truths(
        np.array([[0, 0, 10, 10]], np.float32),
        np.array([0]),
        keypoints_GK3=np.array([[[2, 3, 2], [5, 5, 1]]], np.float32),
        mirror_GK=np.array([[-1, 1]]),
    )
    assert one.flipped(20).keypoints_GK3.tolist() == [[[0, 0, 0], [15, 5, 1]]]  # type: ignore[union-attr]


def test_moves_and_crops() -> None:
    points = np.array([[[2, 3, 2], [9, 5, 1], [0, 0, 0]]], np.float32)
    one = Truths(np.array([[0, 0, 10, 10]], np.float32), np.array([0]), keypoints_GK3=points, mirror_GK=np.array([[0, 1, 2]]))
    assert one.moved((2, 3), (1, 1)).keypoints_GK3.tolist() == [[[5, 10, 2], [19, 16, 1], [0, 0, 0]]]  # type: ignore[union-attr]
    assert one.cropped(1, 1, 7, 9).keypoints_GK3.tolist() == [[[1, 2, 2], [0, 0, 0], [0, 0, 0]]]  # type: ignore[union-attr]


def test_batches_are_padded(shapes: Dataset) -> None:
    truths = [read(shapes, row) for row in range(4)]
    targets = padded(truths, 64, 64)
    most = max(map(len, truths))
    assert targets.keypoints_NGK3 is not None and targets.keypoints_NGK3.shape == (4, most, 4, 3)
    for row, one in zip(targets.keypoints_NGK3, truths, strict=True):
        assert not row[len(one) :].any()


def test_pictures_with_few_keypoints_and_labels_without_any(shapes: Dataset, tmp_path: Path) -> None:
    split = shapes.split("train")
    rows = pictures_with_keypoints(split, 5)
    assert rows.tolist() == [n for n in range(12) if (read(shapes, n).keypoints_GK3[..., 2] > 0).sum() >= 5]  # type: ignore[index]
    assert 0 < len(rows) < 12
    require_labels(shapes, "train", ("keypoints",), tmp_path)
    bare = replace(split, annotations=replace(split.annotations, keypoints_AK3=None))
    without = replace(shapes, splits={**shapes.splits, "train": bare})
    with pytest.raises(DataError, match="no label of the split train has keypoints"):
        require_labels(without, "train", ("keypoints",), tmp_path)
    nameless = replace(shapes, info=replace(shapes.info, categories=(Category(1, "disc"),)))
    with pytest.raises(DataError, match="no class names keypoints"):
        require_labels(nameless, "train", ("keypoints",), tmp_path)
