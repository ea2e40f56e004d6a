"""Dense pose labels: the shapes' own are exact, COCO's fields survive a round trip, and points move with the picture."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from pipeline.data.dataset import Dataset, open_dataset, write_dataset
from pipeline.data.dense import BODY, FRAME, DensePool, DenseTruths, Surface
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.formats.coco_write import write_coco_json
from pipeline.data.formats.shapes import FORMS, Placed, draw_scene, draw_shapes
from pipeline.data.formats.shapes_dense import SURFACE
from pipeline.data.loader import dense_points
from pipeline.data.needs import require_labels
from pipeline.data.truths import Truths
from pipeline.errors import DataError
from tests.data.conftest import dataset_config

SIDES = {"size": 64, "train": 6, "val": 2, "diameter": [0.3, 0.6]}
TASKS = ("bbox", "densepose")


@pytest.fixture(scope="module")
def shapes(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_shapes(dataset_config(root, "shapes", **SIDES), 3, tmp_path_factory.mktemp("shapes") / "images")


def scenes(root: Path):
    """Pictures with their labels, shape by shape."""
    cfg = dataset_config(root, "shapes", **SIDES)
    for number in range(12):
        random = np.random.Generator(np.random.PCG64([1, number]))
        scene = draw_scene(cfg, random)
        yield cfg, scene.placed, scene.labels(cfg, random)


def local_of(shape: Placed, point: np.ndarray) -> np.ndarray:
    """Where a pixel position lies in the shape's own frame, from its drawn outline alone.

    The frame is the linear map from the upright outline to the drawn one. A disc's turn cannot be seen: of its map only the
    stretching counts, the symmetric factor of the polar decomposition.
    """
    drawn, *_ = np.linalg.lstsq(np.c_[shape.form.outline_P2, np.ones(len(shape.form.outline_P2))], shape.points_P2, rcond=None)
    linear, centre = drawn[:2], drawn[2]
    if shape.form is FORMS[0]:
        _, stretch, axes = np.linalg.svd(linear)
        linear = axes.T @ np.diag(stretch) @ axes
    return np.linalg.solve(linear.T, point - centre)


def surface_at(shape: Placed, local: np.ndarray) -> tuple[int, float, float]:
    """Part, u and v in words: a quarter of the shape, from its left (top) end to the middle, or from the middle on."""
    (left, top), (right, bottom) = shape.form.outline_P2.min(axis=0), shape.form.outline_P2.max(axis=0)
    part = {(False, False): 1, (True, False): 2, (False, True): 3, (True, True): 4}[bool(local[0] >= 0), bool(local[1] >= 0)]
    u = local[0] / right if local[0] >= 0 else (local[0] - left) / -left
    v = local[1] / bottom if local[1] >= 0 else (local[1] - top) / -top
    return part, u, v


def holds(outline_P2: np.ndarray, point: np.ndarray, grown: float) -> bool:
    """Whether an outline, grown about its middle, holds a point: rays to the right cross it an odd number of times."""
    middle = outline_P2.mean(axis=0)
    corners, inside = middle + (outline_P2 - middle) * grown, False
    for (x1, y1), (x2, y2) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if (y1 > point[1]) != (y2 > point[1]) and point[0] < x1 + (point[1] - y1) / (y2 - y1) * (x2 - x1):
            inside = not inside
    return inside


def points_of(label: dict) -> np.ndarray:
    """Pixel positions of a label's points, from its box."""
    x, y, width, height = label["bbox"]
    return np.array([x, y]) + np.array([label["dp_x"], label["dp_y"]]).T / 256 * [width, height]


def test_a_point_s_part_and_coordinates_are_those_of_the_drawn_shape(root: Path) -> None:
    seen = set()
    for cfg, placed, labels in scenes(root):
        for number, (shape, label) in enumerate(zip(placed, labels, strict=True)):
            points = points_of(label)
            assert len(points) == cfg.dense_points
            for point, part, u, v in zip(points, label["dp_I"], label["dp_U"], label["dp_V"], strict=True):
                expected = surface_at(shape, local_of(shape, point))
                assert part == expected[0]
                assert (u, v) == pytest.approx(np.clip(expected[1:], 0, 1), abs=2e-6)
                assert holds(shape.points_P2, point, 1.02), "on the shape"
                assert not any(holds(other.points_P2, point, 0.98) for other in placed[number + 1 :]), "and not behind another"
                assert ((point > -1e-2) & (point < cfg.size + 1e-2)).all(), "and in the picture"
                seen.add((shape.form.name, part))
    assert len(seen) == 12, "every part of every class"


def test_the_part_masks_hold_the_points_and_what_is_seen_of_a_shape(root: Path) -> None:
    for _, placed, labels in scenes(root):
        for number, label in enumerate(labels):
            masks = label["dp_masks"]
            assert len(masks) == 14 and not any(masks[4:])
            grids = [coco_mask.decode(rle).astype(bool) if rle else np.zeros((256, 256), bool) for rle in masks[:4]]
            assert np.sum(grids, axis=0).max() == 1, "parts do not overlap"
            for x, y, part in zip(label["dp_x"], label["dp_y"], label["dp_I"], strict=True):
                assert grids[part - 1][int(y), int(x)]
            own = placed[number]
            seen_HW = own.cover_HW.copy()
            for other in placed[number + 1 :]:
                seen_HW *= 1 - other.cover_HW
            area = np.sum(grids) / 256**2 * label["bbox"][2] * label["bbox"][3]
            assert area == pytest.approx(seen_HW.sum(), rel=0.05, abs=4)


def test_labels_without_dense_points_have_no_such_field(root: Path, tmp_path: Path) -> None:
    drawn = draw_shapes(dataset_config(root, "shapes", **SIDES, dense_points=0), 3, tmp_path / "images")
    assert drawn.info.surface is None and drawn.split("train").annotations.dense is None


def record(number: int, **fields) -> dict:
    return {"id": number, "image_id": 1, "category_id": 1, "bbox": [4, 6, 32, 64], "area": 5, "iscrowd": 0} | fields


def dense_fields(record: dict) -> dict:
    return {name: value for name, value in record.items() if name.startswith("dp_")}


DENSE = {"dp_x": [1.5, 200.25], "dp_y": [3, 255.0], "dp_I": [1, 24], "dp_U": [0.25, 1.0], "dp_V": [0.0, 0.123456789]}


def test_coco_s_fields_come_back_as_they_were(tmp_path: Path) -> None:
    """Also the masks' run lengths; what does not fit the columns is kept as it came."""
    cells = np.zeros((256, 256), np.uint8, order="F")
    cells[10:99, 30:200] = 1
    rle = coco_mask.encode(cells)
    masks = [[], {"size": rle["size"], "counts": rle["counts"].decode()}, *[[]] * 12]
    odd = {"dp_x": [1], "dp_y": [1, 2], "dp_I": [3], "dp_U": [0], "dp_V": [0]}
    given = [record(1, **DENSE, dp_masks=masks), record(2), record(3, **odd), record(4, **DENSE)]
    images = image_table([{"id": 1, "file_name": "a.png", "width": 64, "height": 80}], "x")
    table = annotation_table(given, images, "x")
    write_coco_json(tmp_path / "x.json", images, table, [], {})
    written = json.loads((tmp_path / "x.json").read_text())["annotations"]
    for was, now in zip(given, written, strict=True):
        assert {key: now.get(key) for key in now if key.startswith("dp_")} == {
            k: v for k, v in was.items() if k.startswith("dp_")
        }
    pool = table.dense
    assert pool is not None and pool.has().tolist() == [True, False, False, True]
    assert np.array_equal(pool.coarse(0, "x"), 2 * cells)
    assert table.take([3, 1]).dense.points_P2.tolist() == [[1.5, 3], [200.25, 255]]


def test_a_dataset_on_disk_says_what_its_labels_mean(shapes: Dataset, tmp_path: Path) -> None:
    write_dataset(tmp_path / "set", shapes)
    again = open_dataset(tmp_path / "set")
    assert again.info.surface == SURFACE and "densepose" in again.info.tasks
    before, after = shapes.split("train").annotations.dense, again.split("train").annotations.dense
    assert after is not None and before is not None and after.surface == SURFACE
    for name in ("points_P2", "parts_P", "uv_P2", "starts", "masks_B"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert Surface.from_json(json.loads(json.dumps(BODY.as_json()))) == BODY


@pytest.fixture
def ready(shapes: Dataset) -> Dataset:
    """The drawn dataset as it is when read: its labels know their surface."""
    for split in shapes.splits.values():
        assert split.annotations.dense is not None
        split.annotations.dense.surface = shapes.info.surface
    return shapes


def read(ready: Dataset, row: int) -> Truths:
    return Truths.read(ready.split("train"), row, TASKS)


def in_boxes(truths: Truths) -> DenseTruths:
    assert truths.dense is not None
    return truths.dense.in_boxes(truths.boxes_G4)


def test_unmoved_labels_are_those_of_the_file(ready: Dataset) -> None:
    split = ready.split("train")
    for row in range(len(split.images)):
        pool = split.annotations.dense.take(split.rows_of(row))
        dense = in_boxes(read(ready, row))
        np.testing.assert_allclose(dense.points_P2, pool.points_P2, atol=2e-3)
        assert np.array_equal(dense.parts_P, pool.parts_P) and np.array_equal(dense.uv_P2, pool.uv_P2)
        for place, grid in enumerate(dense.coarse_G):
            assert (grid == pool.coarse(place, "x")).mean() > 0.99  # float32 boxes shift a cell's border


def test_scaled_labels_stay_where_they_are_in_their_box(ready: Dataset) -> None:
    truths = read(ready, 0)
    before, after = in_boxes(truths), in_boxes(truths.moved((2.5, 0.75), (7, -3)))
    np.testing.assert_allclose(after.points_P2, before.points_P2, atol=2e-3)
    assert all((one == other).mean() > 0.99 for one, other in zip(before.coarse_G, after.coarse_G, strict=True))


def test_a_mirrored_picture_has_the_labels_of_its_mirrored_shapes(root: Path) -> None:
    """The shapes are symmetric: their mirror image is the same shape whose frame's x points the other way."""
    for cfg, placed, labels in scenes(root):
        if len(placed) != len(labels) or not placed:
            continue
        boxes = np.array([label["bbox"] for label in labels])
        boxes[:, 2:] += boxes[:, :2]
        fields = [([label[f"dp_{k}"] for k in "xyIUV"], json.dumps(label["dp_masks"]).encode()) for label in labels]
        pool = DensePool.of(dict(enumerate(fields)), len(labels))
        assert pool is not None
        pool.surface = SURFACE
        truths = Truths(boxes.astype(np.float32), np.arange(len(labels)), dense=DenseTruths.read(pool, boxes, "x"))
        flipped = truths.flipped(cfg.size)
        dense = flipped.dense
        assert dense is not None
        for row, shape in enumerate(placed):
            for place in range(dense.starts[row], dense.starts[row + 1]):
                mirrored = np.array([cfg.size - dense.points_P2[place, 0], dense.points_P2[place, 1]])
                part, u, v = surface_at(shape, local_of(shape, mirrored) * [-1, 1])
                assert dense.parts_P[place] == part
                assert dense.uv_P2[place] == pytest.approx(np.clip([u, v], 0, 1), abs=2e-6)
            x, y = np.clip(in_boxes(flipped).points_P2[dense.starts[row] : dense.starts[row + 1]].astype(int), 0, 255).T
            grid = in_boxes(flipped).coarse_G[row]
            assert (grid[y, x] == dense.parts_P[dense.starts[row] : dense.starts[row + 1]]).mean() > 0.9
        twice = flipped.flipped(cfg.size).dense
        np.testing.assert_allclose(twice.points_P2, truths.dense.points_P2, atol=1e-9)
        assert np.array_equal(twice.parts_P, truths.dense.parts_P)
        np.testing.assert_allclose(twice.uv_P2, truths.dense.uv_P2, atol=1e-12)


def test_a_surface_without_a_mirror_says_so(ready: Dataset) -> None:
    truths = read(ready, 0)
    stranger = replace(truths, dense=replace(truths.dense, surface=BODY))
    with pytest.raises(DataError, match=r"train with train[.]augment[.]flip=0"):
        stranger.flipped(64)


def test_a_crop_clips_the_frames_and_drops_points_outside(ready: Dataset) -> None:
    """Point by point and cell by cell against the labels of the whole picture."""
    dropped = 0
    for row in range(6):
        whole = read(ready, row)
        part = whole.cropped(9, 12, 40, 37)
        moved_G4 = np.clip(whole.boxes_G4 - [9, 12, 9, 12], 0, [40, 37, 40, 37])
        kept = [np.flatnonzero(np.isclose(moved_G4, box, atol=1e-4).all(axis=1))[0] for box in part.boxes_G4]
        dense = in_boxes(part)
        for new, old in enumerate(kept):
            own = slice(whole.dense.starts[old], whole.dense.starts[old + 1])
            low, side = part.boxes_G4[new, :2] + [9, 12], part.boxes_G4[new, 2:] - part.boxes_G4[new, :2]
            expected = (whole.dense.points_P2[own] - low) / side * 256
            inside = ((expected >= -1e-4) & (expected <= 256 + 1e-4)).all(axis=1)
            dropped += int((~inside).sum())
            mine = slice(dense.starts[new], dense.starts[new + 1])
            np.testing.assert_allclose(dense.points_P2[mine], expected[inside], atol=2e-3)
            assert np.array_equal(dense.parts_P[mine], whole.dense.parts_P[own][inside])
            frame = whole.dense.frames_G4[old]
            for y, x in ((0, 0), (255, 255), (40, 200), (128, 128), (201, 33), (77, 254)):
                at = low + (np.array([x, y]) + 0.5) / 256 * side
                column, line = np.floor((at - frame[:2]) / (frame[2:] - frame[:2]) * 256 + 1e-7).astype(int)
                around = whole.dense.coarse_G[old][max(line - 1, 0) : line + 2, max(column - 1, 0) : column + 2]
                assert dense.coarse_G[new][y, x] in around
    assert dropped > 20


def test_a_batch_has_a_row_for_each_object_with_points(ready: Dataset) -> None:
    one, two = read(ready, 0), read(ready, 1)
    bare = replace(two, dense=two.dense.take([]), boxes_G4=two.boxes_G4[:0], labels_G=two.labels_G[:0])
    most = max(len(one), len(two))
    batch = dense_points([one, bare, two], most)
    assert batch.row_NG.shape == (3, most)
    assert batch.row_NG[batch.row_NG >= 0].tolist() == list(range(len(one) + len(two))) and (batch.row_NG[1] < 0).all()
    assert batch.coarse_TSS.shape == (len(one) + len(two), FRAME, FRAME)
    last, dense = int(batch.row_NG[2, len(two) - 1]), in_boxes(two)
    np.testing.assert_allclose(batch.points_TP2[last].numpy(), dense.points_P2[dense.starts[-2] :], atol=1e-3)
    assert batch.parts_TP[last].tolist() == dense.parts_P[dense.starts[-2] :].tolist()
    empty = dense_points([bare], 1)
    assert empty.row_NG.tolist() == [[-1]] and (empty.parts_TP < 0).all()


def test_what_is_missing_is_said(ready: Dataset, root: Path, tmp_path: Path) -> None:
    require_labels(ready, "train", TASKS, tmp_path)
    drawn = draw_shapes(dataset_config(root, "shapes", **SIDES, dense_points=0), 3, tmp_path / "images")
    with pytest.raises(DataError, match="no label of the split train has points of a dense pose"):
        require_labels(drawn, "train", TASKS, tmp_path)
    with pytest.raises(DataError, match="does not describe the surface"):
        require_labels(replace(ready, info=replace(ready.info, surface=None)), "train", TASKS, tmp_path)
    few = replace(SURFACE, parts=SURFACE.parts[:3], sizes=(1.0,) * 3)
    with pytest.raises(DataError, match="has part 4; the surface has 1 to 3"):
        require_labels(replace(ready, info=replace(ready.info, surface=few)), "train", TASKS, tmp_path)
    split = ready.split("train")
    pool = split.annotations.dense
    bare = replace(pool, masks_B=pool.masks_B[:0], mask_starts=np.zeros_like(pool.mask_starts))
    stripped = replace(ready, splits={"train": replace(split, annotations=replace(split.annotations, dense=bare))})
    with pytest.raises(DataError, match="annotation 1 of the split train has points of a dense pose but no dp_masks"):
        require_labels(stripped, "train", TASKS, tmp_path)


def test_labels_keep_their_places_when_boxes_change(ready: Dataset) -> None:
    """What clipping a box does to its labels: the points inside are where they were, the masks show the same pixels."""
    pool = ready.split("train").annotations.dense
    old = ready.split("train").annotations.boxes_A4
    new = old.copy()
    cut = np.flatnonzero(pool.has())[::2]
    new[cut, 0] += (old[cut, 2] - old[cut, 0]) * 0.25
    again = pool.reframed(old, new, "x")
    before, after = DenseTruths.read(pool, old, "x"), DenseTruths.read(again, new, "x")
    for row in np.flatnonzero(pool.has()).tolist():
        was, now = (slice(truths.starts[row], truths.starts[row + 1]) for truths in (before, after))
        inside = (before.points_P2[was] >= new[row, :2]).all(axis=1) | (row not in cut)
        np.testing.assert_allclose(after.points_P2[now], before.points_P2[was][inside], atol=1e-2)
        assert np.array_equal(after.parts_P[now], before.parts_P[was][inside])
        assert np.array_equal(after.uv_P2[now], before.uv_P2[was][inside])
        if row not in cut:
            assert again.record(row).keys() == pool.record(row).keys() and np.array_equal(
                after.coarse_G[row], before.coarse_G[row]
            )
            continue
        columns = ((0.25 + 0.75 * (np.arange(FRAME) + 0.5) / FRAME) * FRAME).astype(int)
        assert (after.coarse_G[row] == before.coarse_G[row][:, columns]).mean() > 0.99
    assert not np.array_equal(again.points_P2, pool.points_P2)
