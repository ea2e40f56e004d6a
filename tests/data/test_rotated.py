"""Rotated boxes of labels: on disk and back, with the picture through flips, crops and scales, and where they are missing."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from pipeline.data.config import ShapesDataset
from pipeline.data.dataset import Dataset, open_dataset, write_dataset
from pipeline.data.formats.shapes import draw_shapes
from pipeline.data.loader import padded
from pipeline.data.needs import require_labels
from pipeline.data.truths import Truths
from pipeline.errors import DataError
from pipeline.predict.rotated import corners, enclosing
from tests.ops.rotated import area, clip
from tests.ops.rotated import corners as plain_corners

BOXES = np.array([[20, 15, 10, 6, 0], [20, 15, 10, 6, 30], [30, 25, 4, 12, -75]], np.float32)


def truths() -> Truths:
    return Truths(enclosing(BOXES).astype(np.float32), np.arange(3), rotated_G5=BOXES)


def as_sets(boxes: np.ndarray) -> list[np.ndarray]:
    """Corners in an order that does not depend on where a box's angle starts."""
    return [np.array(sorted(np.round(points, 3).tolist())) for points in corners(boxes)]


def test_corners_are_those_of_the_plain_reference() -> None:
    for box, points in zip(BOXES.tolist(), corners(BOXES), strict=True):
        np.testing.assert_allclose(points, plain_corners(box), atol=1e-5)


def test_boxes_are_mirrored_moved_and_scaled_with_the_picture() -> None:
    width = 50
    mirrored = corners(BOXES) * [-1, 1] + [width, 0]
    for found, expected in zip(as_sets(truths().flipped(width).rotated_G5), mirrored, strict=True):
        np.testing.assert_allclose(found, sorted(expected.tolist()), atol=2e-3)
    moved = corners(BOXES) * 2 + [3, -4]
    for found, expected in zip(as_sets(truths().moved((2, 2), (3, -4)).rotated_G5), moved, strict=True):
        np.testing.assert_allclose(found, sorted(expected.tolist()), atol=2e-3)


def test_a_crop_moves_boxes_and_drops_those_that_are_gone() -> None:
    found = truths().cropped(24, 14, 20, 30)
    assert found.labels_G.tolist() == [2] and len(found.rotated_G5) == 1
    np.testing.assert_allclose(found.rotated_G5[0], BOXES[2] - [24, 14, 0, 0, 0])


def test_batches_are_padded_with_zeros() -> None:
    targets = padded([truths(), truths().take([1])], 64, 64)
    assert targets.rotated_NG5.shape == (2, 3, 5) and not targets.rotated_NG5[1, 1:].any()
    assert targets.rotated_NG5[1, 0].tolist() == BOXES[1].tolist()
    assert padded([Truths(np.zeros((0, 4), np.float32), np.zeros(0, np.int64))], 64, 64).rotated_NG5 is None


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    folder = tmp_path_factory.mktemp("shapes")
    settings = yaml.safe_load((Path(__file__).resolve().parents[2] / "conf/dataset/shapes.yaml").read_text())
    sizes = {"size": 64, "train": 12, "val": 4, "watched": settings["source"]}
    cfg = ShapesDataset(**{name: value for name, value in (settings | sizes).items() if name in ShapesDataset.__annotations__})
    write_dataset(folder / "data", draw_shapes(cfg, 3, folder / "pictures"))
    return open_dataset(folder / "data"), folder / "data"


def test_a_drawn_shapes_box_is_turned_with_it_and_tight(shapes: tuple[Dataset, Path]) -> None:
    """The visible outline lies in the box; a rectangle that is whole fills it, a triangle half of it, a disc pi / 4."""
    filled: dict[int, list[float]] = {0: [], 1: [], 2: []}
    table = shapes[0].split("train").annotations
    for row in range(len(table)):
        outline, box = table.polygons.polygons_of(row)[0], table.rotated_A5[row].tolist()
        assert -45 <= box[4] < 45
        points = [tuple(point) for point in outline.tolist()]
        whole = area(points)
        assert area(clip(points, plain_corners([*box[:2], box[2] + 0.1, box[3] + 0.1, box[4]]))) == pytest.approx(whole, abs=0.1)
        if outline.min() > 0.5 and outline.max() < 63.5:
            filled[int(table.label_A[row])].append(whole / (box[2] * box[3]))
    for label, share in ((0, np.pi / 4), (1, 1.0), (2, 0.5)):
        assert len(filled[label]) > 1 and filled[label] == pytest.approx([share] * len(filled[label]), abs=0.02)


def test_rotated_boxes_survive_the_disk(shapes: tuple[Dataset, Path], tmp_path: Path) -> None:
    dataset, folder = shapes
    again = tmp_path / "again"
    write_dataset(again, dataset)
    assert (again / "train.json").read_bytes() == (folder / "train.json").read_bytes()
    assert len(json.loads((folder / "train.json").read_text())["annotations"][0]["rbox"]) == 5


def test_a_box_of_five_numbers_is_a_rotated_one(shapes: tuple[Dataset, Path], tmp_path: Path) -> None:
    """As rotated COCO writes it, in the place of the upright box."""
    copy = tmp_path / "copy"
    write_dataset(copy, shapes[0])
    content = json.loads((copy / "train.json").read_text())
    for row in content["annotations"]:
        row["bbox"] = row.pop("rbox")
    (copy / "train.json").write_text(json.dumps(content))
    table, original = open_dataset(copy).split("train").annotations, shapes[0].split("train").annotations
    np.testing.assert_allclose(table.rotated_A5, original.rotated_A5)
    np.testing.assert_allclose(table.boxes_A4, enclosing(original.rotated_A5), atol=1e-6)


def test_labels_without_rotated_boxes_are_told(shapes: tuple[Dataset, Path]) -> None:
    dataset = shapes[0]
    require_labels(dataset, "train", ("rotated",), Path("place"))
    table = dataset.split("train").annotations
    kept = table.rotated_A5
    try:
        table.rotated_A5 = kept.copy()
        table.rotated_A5[1, 2] = 0
        with pytest.raises(
            DataError, match=rf"1 of \d+ labels of the split train have no rotated box: annotations {table.ids_A[1]}"
        ):
            require_labels(dataset, "train", ("rotated",), Path("place"))
        table.rotated_A5 = None
        with pytest.raises(DataError, match="nothing to learn rotated boxes from"):
            require_labels(dataset, "train", ("rotated",), Path("place"))
    finally:
        table.rotated_A5 = kept
