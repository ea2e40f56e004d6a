"""OKS metrics: both engines, pycocotools' own summary through none of this code, and a similarity by hand."""

import contextlib
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pipeline.evaluation.found import Predictions
from pipeline.evaluation.keypoints import SIGMAS, measure_keypoints, sigmas
from pipeline.evaluation.truth import Truth

NAMES = tuple(SIGMAS)
SIGMA = 0.05


def case(seed: int, names: tuple[tuple[str, ...], ...] = (NAMES,), pictures: int = 6) -> tuple[Truth, Predictions]:
    """Random people and guesses around them; some labels show nothing, some are crowds, some guesses are wild."""
    random = np.random.Generator(np.random.PCG64(seed))
    most = max(map(len, names))
    count = 4 * pictures
    corner, side = random.uniform(0, 200, (count, 2)), random.uniform(20, 160, (count, 2))
    points = np.zeros((count, most, 3), np.float32)
    points[..., :2] = corner[:, None] + random.uniform(0, 1, (count, most, 2)) * side[:, None]
    points[..., 2] = random.integers(0, 3, (count, most))
    points[random.random(count) < 0.2] = 0
    labels = random.integers(0, len(names), count)
    for row, label in enumerate(labels):
        points[row, len(names[label]) :] = 0
    points[points[..., 2] == 0] = 0
    truth = Truth(
        image_ids_I=np.arange(1, pictures + 1),
        image_ids_A=np.repeat(np.arange(1, pictures + 1), 4),
        category_ids_A=labels + 1,
        boxes_A4=np.concatenate([corner, corner + side], axis=1),
        area_A=side.prod(axis=1) * 0.6,
        crowd_A=random.random(count) < 0.1,
        category_ids_K=np.arange(1, len(names) + 1),
        names=tuple(f"class {n}" for n in range(len(names))),
        tasks=("bbox", "keypoints"),
        keypoints_AK3=points,
        keypoint_names=names,
        skeletons=((),) * len(names),
        keypoint_sigma=SIGMA,
    )
    near = points + np.concatenate([random.normal(0, 6, (count, most, 2)), np.zeros((count, most, 1))], axis=2)
    near[points[..., 2] == 0, :2] = random.uniform(0, 300, ((points[..., 2] == 0).sum(), 2))
    near[..., 2] = random.random((count, most))
    found = np.concatenate([near, random.uniform(0, 300, (10, most, 3))]).astype(np.float32)
    found[..., :2] += 0.5
    images = np.concatenate([truth.image_ids_A, random.integers(1, pictures + 1, 10)])
    order = np.argsort(images, kind="stable")
    boxes = np.concatenate([found[..., :2].min(axis=1), found[..., :2].max(axis=1)], axis=1).astype(np.float64)
    category_ids = np.concatenate([labels, random.integers(0, len(names), 10)]) + 1
    scores = random.permutation(len(found)) / len(found)
    return truth, Predictions(images[order], boxes[order], scores[order], category_ids[order], keypoints_DK3=found[order])


def judge(truth: Truth, predictions: Predictions) -> Any:
    """pycocotools on hand-made files of one class of COCO's names, with its own defaults."""
    assert truth.keypoints_AK3 is not None and predictions.keypoints_DK3 is not None
    labels = COCO()
    labels.dataset = {
        "images": [{"id": int(i)} for i in truth.image_ids_I],
        "categories": [{"id": 1, "name": "person"}],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(truth.image_ids_A[row]),
                "category_id": 1,
                "bbox": [*truth.boxes_A4[row, :2].tolist(), *(truth.boxes_A4[row, 2:] - truth.boxes_A4[row, :2]).tolist()],
                "area": float(truth.area_A[row]),
                "iscrowd": int(truth.crowd_A[row]),
                "keypoints": points.reshape(-1).tolist(),
                "num_keypoints": int((points[:, 2] > 0).sum()),
            }
            for row, points in enumerate(truth.keypoints_AK3)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        labels.createIndex()
        rows = [
            {
                "image_id": int(i),
                "category_id": 1,
                "bbox": [*box[:2], *(box[2:] - box[:2])],
                "score": float(s),
                "keypoints": (points - [0.5, 0.5, 0]).reshape(-1).tolist(),
            }
            for i, s, box, points in zip(
                predictions.image_ids_D, predictions.scores_D, predictions.boxes_D4, predictions.keypoints_DK3, strict=True
            )
        ]
        evaluation = COCOeval(labels, labels.loadRes(rows), "keypoints")
        order = [*(list(SIGMAS).index(name) for name in NAMES)]
        evaluation.params.kpt_oks_sigmas = np.array(list(SIGMAS.values()))[order]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.parametrize("engine", ["hotcoco", "pycocotools"])
def test_goldens_of_the_reference_implementation(shared: Path, engine: str) -> None:
    with gzip.open(shared / "parity/cocoeval_data.json.gz") as file:
        case = json.load(file)["keypoints"]
    labels, found = case["gt"]["annotations"], case["dt"]
    boxes_A4, boxes_D4 = (np.array([row["bbox"] for row in rows]) for rows in (labels, found))
    images_D = np.array([row["image_id"] for row in found])
    points_DK3 = np.array([row["keypoints"] for row in found]).reshape(-1, 17, 3)
    points_DK3[..., :2] += 0.5  # from indices of pixels to places
    order = np.argsort(images_D, kind="stable")
    truth = Truth(
        image_ids_I=np.array([image["id"] for image in case["gt"]["images"]]),
        image_ids_A=np.array([row["image_id"] for row in labels]),
        category_ids_A=np.array([row["category_id"] for row in labels]),
        boxes_A4=np.concatenate([boxes_A4[:, :2], boxes_A4[:, :2] + boxes_A4[:, 2:]], axis=1),
        area_A=np.array([row["area"] for row in labels]),
        crowd_A=np.array([bool(row["iscrowd"]) for row in labels]),
        category_ids_K=np.array([1]),
        names=("person",),
        keypoints_AK3=np.array([row["keypoints"] for row in labels], np.float32).reshape(-1, 17, 3),
        keypoint_names=(NAMES,),
        skeletons=((),),
        keypoint_sigma=SIGMA,
    )
    predictions = Predictions(
        images_D[order],
        np.concatenate([boxes_D4[:, :2], boxes_D4[:, :2] + boxes_D4[:, 2:]], axis=1)[order],
        np.array([row["score"] for row in found])[order],
        np.array([row["category_id"] for row in found])[order],
        keypoints_DK3=points_DK3[order].astype(np.float32),
    )
    golden = np.load(shared / "parity/cocoeval.npz")["keypoints/stats_d2"]
    measured = measure_keypoints(truth, predictions, engine)
    np.testing.assert_allclose([*measured.numbers.values()], golden, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_both_engines_equal_the_judge(seed: int) -> None:
    truth, predictions = case(seed)
    expected = judge(truth, predictions)
    for engine in ("hotcoco", "pycocotools"):
        metrics = measure_keypoints(truth, predictions, engine)
        assert list(metrics.numbers) == [
            f"keypoints/{name}" for name in ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
        ]
        np.testing.assert_allclose(list(metrics.numbers.values()), expected, rtol=0, atol=1e-9)
    assert 0.05 < expected[0] < 0.95


@pytest.mark.parametrize("seed", range(4))
def test_classes_of_different_keypoints(seed: int) -> None:
    """Engines agree, classes are averaged, a class without keypoints is left out."""
    truth, predictions = case(seed, (("tip", "left", "right"), (), ("centre",), ("a", "b", "c", "d")))
    one, other = (measure_keypoints(truth, predictions, engine) for engine in ("hotcoco", "pycocotools"))
    assert one.numbers == pytest.approx(other.numbers, abs=1e-9) and one.classes.keys() == other.classes.keys()
    assert set(one.classes) == {"class 0", "class 2", "class 3"}
    assert one.numbers["keypoints/AP"] == pytest.approx(np.mean([numbers["AP"] for numbers in one.classes.values()]))
    assert one.value == one.numbers["keypoints/AP"] and len(one.tables()) == 2


def test_the_spread_decides() -> None:
    """One keypoint, one pixel of distance: exp(-d^2 / (8 sigma^2 area)) passes 0.5 and not 0.95, as computed by hand."""
    points = np.array([[[10, 10, 2]]], np.float32)
    truth = Truth(
        np.array([1]), np.array([1]), np.array([1]), np.array([[0.0, 0, 40, 40]]), np.array([1600.0]), np.array([False]),
        np.array([1]), ("dot",), keypoints_AK3=points, keypoint_names=(("centre",),), skeletons=((),),
    )  # fmt: skip
    found = Predictions(
        np.array([1]),
        np.array([[0.0, 0, 40, 40]]),
        np.array([1.0]),
        np.array([1]),
        keypoints_DK3=points + np.float32([[[2.5, 0.5, 0]]]),
    )
    for sigma in (0.01, 0.02, 0.05, 0.1, 0.4):
        truth.keypoint_sigma = sigma
        similarity = np.exp(-(2.0**2) / (8 * sigma**2 * 1600))
        expected = np.mean([similarity >= threshold for threshold in np.arange(0.5, 1, 0.05)])
        for engine in ("hotcoco", "pycocotools"):
            assert measure_keypoints(truth, found, engine).value == pytest.approx(expected, abs=1e-9), sigma


def test_sigmas() -> None:
    assert sigmas(NAMES, 0.3).tolist() == list(SIGMAS.values())
    assert sigmas(NAMES[::-1], 0.3).tolist() == list(SIGMAS.values())[::-1]
    assert sigmas(("nose", "tail"), 0.3).tolist() == [0.3, 0.3]


def test_nothing_found_and_nothing_to_find() -> None:
    truth, predictions = case(0)
    nothing = predictions.take(np.zeros(0, int))
    for engine in ("hotcoco", "pycocotools"):
        assert measure_keypoints(truth, nothing, engine).value == 0
    truth.crowd_A[:] = True
    assert measure_keypoints(truth, predictions, "pycocotools").value == -1
    with pytest.raises(ValueError, match="only where truth and predictions have them"):
        measure_keypoints(
            truth,
            Predictions(*(getattr(predictions, n) for n in ("image_ids_D", "boxes_D4", "scores_D", "category_ids_D"))),
            "hotcoco",
        )
