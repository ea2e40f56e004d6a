"""Dense poses: GPS by brute force, precision and recall as pycocotools has them, and maps pasted as torch pastes them."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.data.dense import DensePool, Mirror, Surface
from pipeline.detector.postprocess import surface_coordinates
from pipeline.errors import UserError
from pipeline.evaluation.dense_pictures import dot_points, tint_parts
from pipeline.evaluation.densepose import _overlap, measure_dense_poses, similarity
from pipeline.evaluation.found import Predictions, found_in
from pipeline.evaluation.tasks import MEASURES
from pipeline.evaluation.truth import Truth
from pipeline.predict.dense import DensePose, dense_pose
from pipeline.predict.draw import TINT, class_colour

SURFACE = Surface(("a", "b", "c"), (1.0, 0.4, 2.0), Mirror((1, 2, 3), (0, 1, 2, 3), (False,) * 3, (False,) * 3))
PARTS = len(SURFACE.parts)


def pool_of(random: np.random.Generator, counts: list[int], parts: int = PARTS) -> DensePool:
    total = sum(counts)
    return DensePool(
        points_P2=random.uniform(0, 256, (total, 2)),
        parts_P=random.integers(1, parts + 1, total).astype(np.int16),
        uv_P2=random.uniform(0, 1, (total, 2)),
        starts=np.cumsum([0, *counts]),
        masks_B=np.zeros(0, np.uint8),
        mask_starts=np.zeros(len(counts) + 1, np.int64),
        surface=SURFACE,
    )


def test_gps_by_brute_force() -> None:
    random = np.random.default_rng(0)
    seen: list[float] = []
    for _ in range(40):
        left, top, height, width = (int(value) for value in (*random.integers(0, 12, 2), *random.integers(1, 40, 2)))
        parts, uv = random.integers(0, PARTS + 1, (height, width)), random.uniform(-0.1, 1.1, (2, height, width))
        pool = pool_of(random, [3, 9])
        box = np.array([left, top, left + width * 1.2, top + height * 0.9]) + random.uniform(-2, 2, 4)
        expected = []
        for place in range(3, 12):
            x = box[0] + pool.points_P2[place, 0] / 256 * (box[2] - box[0])
            y = box[1] + pool.points_P2[place, 1] / 256 * (box[3] - box[1])
            column, row = int(np.floor(x)) - left, int(np.floor(y)) - top
            alike = 0.0
            if 0 <= column < width and 0 <= row < height and parts[row, column] == pool.parts_P[place]:
                found = [round(min(max(uv[axis, row, column], 0), 1) * 255) / 255 for axis in (0, 1)]
                apart = np.hypot(found[0] - pool.uv_P2[place, 0], found[1] - pool.uv_P2[place, 1])
                apart *= SURFACE.sizes[pool.parts_P[place] - 1]
                alike = np.exp(-(apart**2) / (2 * 0.255**2))
            expected.append(alike)
        value = similarity(DensePose.of(left, top, parts, uv), pool, 1, box)
        assert value == pytest.approx(np.mean(expected), abs=1e-6)
        seen.append(value)
    assert max(seen) > 0.2 and len(set(seen)) > 20


def test_a_distance_of_three_tenths_is_half_alike() -> None:
    pool = pool_of(np.random.default_rng(0), [1])
    pool.points_P2[:], pool.parts_P[:], pool.uv_P2[:] = 128, 1, [0.2, 0.4]
    pose = DensePose.of(0, 0, np.ones((8, 8), int), np.full((2, 8, 8), [[[0.5]], [[0.4]]]))
    assert similarity(pose, pool, 0, np.array([0.0, 0, 8, 8])) == pytest.approx(0.5, abs=0.01)


def scene(random: np.random.Generator) -> tuple[Truth, Predictions]:
    """Random objects, some without labels, some a crowd, with detections that are as wrong as chance has it."""
    images, boxes, classes, crowd, counts = [], [], [], [], []
    rows: list[tuple[int, int, np.ndarray, float, DensePose]] = []
    for image in range(1, 7):
        for _ in range(int(random.integers(0, 5))):
            corner, side = random.integers(0, 40, 2), random.integers(12, 30, 2)
            box = np.concatenate([corner, corner + side]).astype(float)
            images.append(image)
            boxes.append(box)
            classes.append(int(random.integers(1, 4)))
            crowd.append(bool(random.uniform() < 0.1))
            counts.append(0 if random.uniform() < 0.25 or classes[-1] == 3 else 8)
    pool = pool_of(random, counts, parts=1)
    for place, (image, box, label) in enumerate(zip(images, boxes, classes, strict=True)):
        for _ in range(int(random.integers(0, 4))):
            height, width = int(box[3] - box[1]), int(box[2] - box[0])
            uv = np.zeros((2, height, width))
            for point in range(pool.starts[place], pool.starts[place + 1]):
                x, y = (pool.points_P2[point] / 256 * [width, height]).astype(int)
                uv[:, y, x] = pool.uv_P2[point] + random.normal(0, random.choice([0.02, 0.1, 0.2]), 2)
            pose = DensePose.of(int(box[0]), int(box[1]), np.ones((height, width), int), uv)
            rows.append((image, label if random.uniform() < 0.9 else 1, box + random.uniform(-2, 2, 4), random.uniform(), pose))
    truth = Truth(
        image_ids_I=np.arange(1, 7),
        image_ids_A=np.array(images),
        category_ids_A=np.array(classes),
        boxes_A4=np.array(boxes),
        area_A=np.ones(len(boxes)),
        crowd_A=np.array(crowd),
        category_ids_K=np.array([1, 2, 3]),
        names=("one", "two", "three"),
        tasks=("densepose",),
        dense_A=pool,
    )
    columns = list(zip(*rows, strict=True))
    found = Predictions(
        np.array(columns[0]), np.array(columns[2]), np.array(columns[3]), np.array(columns[1]), dense_D=list(columns[4])
    )
    return truth, found


class ByGps(COCOeval):  # type: ignore[misc]
    """pycocotools' matching and curves, GPS in IoU's place; what has no label is a crowd that excuses what covers it."""

    truth: Truth
    found: Predictions

    def computeIoU(self, imgId: int, catId: int) -> Any:
        labels, results = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-row["score"] for row in results], kind="mergesort")
        alike = np.zeros((len(results), len(labels)))
        for d, place in enumerate(order):
            result = int(results[place]["id"]) - 1
            for g, label in enumerate(labels):
                row = label["id"] - 1
                if label["iscrowd"]:
                    one, two = (sides(boxes) for boxes in (self.found.boxes_D4[result], self.truth.boxes_A4[row]))
                    alike[d, g] = coco_mask.iou(one, two, [int(self.truth.crowd_A[row])])[0, 0] >= 0.5
                else:
                    assert self.truth.dense_A is not None and self.found.dense_D is not None
                    alike[d, g] = similarity(self.found.dense_D[result], self.truth.dense_A, row, self.truth.boxes_A4[row])
        return alike if alike.size else []


def sides(box_4: np.ndarray) -> np.ndarray:
    """[[x, y, w, h]]"""
    return np.concatenate([box_4[:2], box_4[2:] - box_4[:2]])[None].astype(np.float64)


def test_a_detection_inside_a_crowd_is_excused_however_large_the_crowd() -> None:
    found, crowd = np.array([[50.0, 50, 70, 70]]), np.array([[0.0, 0, 200, 200]])
    for is_crowd in (True, False):
        ours = _overlap(found, crowd, np.array([is_crowd]))
        assert ours[0, 0] == coco_mask.iou(sides(found[0]), sides(crowd[0]), [int(is_crowd)])[0, 0] == (1.0 if is_crowd else 0.01)


def by_pycocotools(truth: Truth, found: Predictions) -> dict[str, float]:
    assert truth.dense_A is not None
    unlabelled = truth.crowd_A | ~truth.dense_A.has()
    labels = [
        {
            "id": n + 1,
            "image_id": int(i),
            "category_id": int(c),
            "bbox": [0, 0, 1, 1],
            "area": 1,
            "iscrowd": int(u),
            "ignore": int(u),
        }
        for n, (i, c, u) in enumerate(zip(truth.image_ids_A, truth.category_ids_A, unlabelled, strict=True))
    ]
    results = [
        {"image_id": int(i), "category_id": int(c), "bbox": [0, 0, 1, 1], "score": float(s)}
        for i, c, s in zip(found.image_ids_D, found.category_ids_D, found.scores_D, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": int(i)} for i in truth.image_ids_I],
            "categories": [{"id": int(c)} for c in truth.category_ids_K],
            "annotations": labels,
        }
        coco.createIndex()
        evaluator = ByGps(coco, coco.loadRes(results), "bbox")
        evaluator.truth, evaluator.found = truth, found
        evaluator.evaluate()
        evaluator.accumulate()
    precision, recall = evaluator.eval["precision"][:, :, :, 0, -1], evaluator.eval["recall"][:, :, 0, -1]
    parts = {"GPS_AP": precision, "GPS_AP50": precision[:1], "GPS_AP75": precision[5:6], "GPS_AR": recall}
    return {f"densepose/{name}": float(values[values > -1].mean()) for name, values in parts.items()}


@pytest.mark.parametrize("seed", range(6))
def test_precision_and_recall_are_pycocotools_own(seed: int) -> None:
    truth, found = scene(np.random.default_rng(seed))
    ours = measure_dense_poses(truth, found, "pycocotools", 100)  # type: ignore[arg-type]
    assert dict(ours.numbers) == pytest.approx(by_pycocotools(truth, found), abs=1e-9)
    assert 0.02 < ours.value < 0.98 and set(ours.classes) == {"one", "two"}, "the third class has no label"
    assert ours.value == pytest.approx(np.mean(list(ours.per_class.values())))


def test_the_task_is_measured_and_what_is_missing_is_said() -> None:
    assert MEASURES["densepose"] is measure_dense_poses
    truth, found = scene(np.random.default_rng(0))
    truth.dense_A = None
    with pytest.raises(UserError, match="the labels have no dense poses"):
        measure_dense_poses(truth, found, "pycocotools", 100)  # type: ignore[arg-type]
    truth, found = scene(np.random.default_rng(0))
    found.dense_D = None
    with pytest.raises(UserError, match="the detector finds no dense poses"):
        measure_dense_poses(truth, found, "pycocotools", 100)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "box", [(3.7, 2.2, 40.6, 31.9), (0, 0, 8, 8), (5.5, 6.5, 6.2, 90.4), (10, 10, 10.4, 10.2), (1.25, 0, 12, 6)]
)
def test_maps_are_pasted_as_torch_pastes_them(box: tuple[float, ...]) -> None:
    random = np.random.default_rng(int(box[2]))
    maps = [random.normal(0, 1, (count, 14, 14)).astype(np.float32) for count in (2, 5, 5, 5)]
    maps[2:] = [np.abs(values) / 2 for values in maps[2:]]
    pose = dense_pose(*maps, np.array(box, np.float32))
    parts, uv = surface_coordinates(*map(torch.from_numpy, maps), torch.tensor(box))
    ours, our_uv = pose.grids()
    assert (pose.left, pose.top) == (int(box[0]), int(box[1])) and pose.shape == tuple(parts.shape)
    assert np.array_equal(ours, parts.numpy())
    np.testing.assert_allclose(our_uv, uv.clamp(0, 1).numpy(), atol=0.5 / 255 + 1e-5)
    if ours.size > 100:
        assert {0, 1, 2, 3, 4} <= set(ours.reshape(-1).tolist())


def test_a_picture_s_poses_are_in_its_own_frame() -> None:
    """Shown at half its size: a box is twice as wide there, and so is its pose; rows are taken and joined with the rest."""
    random = np.random.default_rng(3)
    raw = {
        "boxes": np.array([[4, 5, 14, 25], [1, 2, 21, 12]], np.float32),
        "scores": np.array([0.9, 0.4], np.float32),
        "labels": np.array([0, 0]),
    }
    for name, channels in (("coarse", 2), ("fine", 4), ("u", 4), ("v", 4)):
        raw[f"dense_{name}"] = random.normal(0, 1, (2, channels, 8, 8)).astype(np.float32)
    found = found_in(raw, 7, np.array([5]), (40, 40), (80, 80))
    assert found.dense_D is not None
    assert [pose.shape for pose in found.dense_D] == [(40, 20), (20, 40)]
    assert [(pose.left, pose.top) for pose in found.dense_D] == [(8, 10), (2, 4)]
    joined = Predictions.joined([found, found.take(np.array([1]))])
    assert joined.dense_D == [*found.dense_D, found.dense_D[1]]


def test_dots_and_tints_are_in_the_part_s_colour_where_the_part_is() -> None:
    pool = pool_of(np.random.default_rng(0), [1, 2])
    pool.points_P2[:], pool.parts_P[:] = [[128, 128], [0.0, 0.0], [300, 300]], [1, 2, 3]
    grey = np.full((20, 30, 3), 100, np.uint8)
    dotted = dot_points(grey, pool, np.array([[4, 6, 8, 12], [10, 1, 20, 19]]))
    changed = np.argwhere((dotted != grey).any(axis=2)).tolist()
    assert changed == [[1, 10], [9, 6]], "a dot outside the picture is left out"
    assert tuple(dotted[9, 6]) == class_colour(0) and tuple(dotted[1, 10]) == class_colour(1)
    parts = np.zeros((5, 6), int)
    parts[1:3, 2:] = 3
    tinted = tint_parts(grey, [DensePose.of(26, 2, parts, np.zeros((2, 5, 6)))])
    assert np.argwhere((tinted != grey).any(axis=2)).tolist() == [[3, 28], [3, 29], [4, 28], [4, 29]], "cut at the border"
    np.testing.assert_allclose(tinted[3, 28], 100 + TINT * (np.array(class_colour(2)) - 100.0), atol=0.5)
    assert (grey == 100).all()
