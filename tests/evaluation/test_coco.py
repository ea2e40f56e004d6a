"""The twelve numbers against pycocotools, against published results and against the reference implementation's goldens."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from pipeline.evaluation.coco import ENGINES, CocoMetrics, measure
from tests.evaluation.cases import Records, judge, predictions_of, truth_of

TASKS = ["bbox", "segm"]
NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def measured(gt: dict[str, Any], dt: Records, engine: str, task: str = "bbox") -> CocoMetrics:
    return measure(truth_of(gt), predictions_of(dt), engine, task=task)


def equal_to_judge(gt: dict[str, Any], dt: Records, task: str = "bbox") -> None:
    """Both engines give pycocotools' summary, per-class AP and curves on the same dictionaries."""
    verdict = judge(gt, dt, task)
    precision_TRK = verdict.eval["precision"][..., 0, 2]
    for engine in ENGINES:
        ours = measured(gt, dt, engine, task)
        assert list(ours.numbers) == [f"{task}/{name}" for name in NAMES]
        np.testing.assert_allclose(list(ours.numbers.values()), verdict.stats, rtol=0, atol=1e-12, err_msg=engine)
        for place, one in enumerate(ours.classes):
            cells = precision_TRK[:, :, place]
            expected = np.mean(cells[cells > -1]) if (cells > -1).any() else -1
            assert one.ap == pytest.approx(expected, abs=1e-12), engine
        with_truth = [k for k in range(len(ours.classes)) if (precision_TRK[:, :, k] > -1).any()]
        for curve, k in zip(ours.curves, with_truth, strict=True):
            np.testing.assert_allclose(curve.iou50_R, precision_TRK[0, :, k], rtol=0, atol=1e-12, err_msg=engine)
            np.testing.assert_allclose(curve.mean_R, precision_TRK[:, :, k].mean(axis=0), rtol=0, atol=1e-12, err_msg=engine)


def published(shared: Path, task: str = "bbox") -> tuple[dict[str, Any], Records, list[float]]:
    folder = shared / "data/coco_eval_conformance"
    gt = json.loads((folder / "instances_val2014_100.json").read_text())
    dt = json.loads((folder / f"cocoapi/results/instances_val2014_fake{task}100_results.json").read_text())
    return gt, dt, json.loads((folder / "expected_published.json").read_text())[task]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("engine", ENGINES)
def test_published_numbers_of_the_coco_api(shared, engine, task):
    gt, dt, expected = published(shared, task)
    np.testing.assert_allclose(list(measured(gt, dt, engine, task).numbers.values()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", TASKS)
def test_engines_equal_the_judge_on_the_published_case(shared, task):
    gt, dt, _ = published(shared, task)
    equal_to_judge(gt, dt, task)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("engine", ENGINES)
def test_goldens_of_the_reference_implementation(shared, engine, task):
    with gzip.open(shared / "parity/cocoeval_data.json.gz") as file:
        case = json.load(file)[task]
    if task == "segm":  # with a box beside the mask pycocotools takes its area for small, medium and large
        case["dt"] = [{name: value for name, value in row.items() if name != "bbox"} for row in case["dt"]]
        equal_to_judge(case["gt"], case["dt"], "segm")
    golden = np.load(shared / "parity/cocoeval.npz")
    ours = measured(case["gt"], case["dt"], engine, task)
    compared = [0, 1, 2, *range(6, 12)] if task == "segm" else range(12)
    values, expected = (np.array([*numbers])[compared] for numbers in (ours.numbers.values(), golden[f"{task}/stats_d2"]))
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)
    precision_RK = golden[f"{task}/precision_d2"][0, :, :, 0, 2]
    for curve, expected_R in zip(ours.curves, precision_RK.T, strict=True):
        np.testing.assert_allclose(curve.iou50_R, expected_R, rtol=0, atol=1e-6)  # stored as float32


@st.composite
def cases(draw) -> tuple[dict[str, Any], Records]:
    """Small worlds on a coarse grid, so that equal boxes, equal scores, IoU at a threshold and areas at a border all happen."""
    images = [{"id": number} for number in draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))]
    categories = [{"id": n, "name": f"c{n}"} for n in draw(st.lists(st.integers(1, 9), min_size=1, max_size=3, unique=True))]
    side = st.sampled_from([0, 1, 8, 20, 31, 32, 33, 40, 95, 96, 97, 100])
    box = st.tuples(st.sampled_from([0, 4, 8, 16, 64]), st.sampled_from([0, 4, 8, 16, 64]), side, side)
    image_id, category_id = st.sampled_from([i["id"] for i in images]), st.sampled_from([c["id"] for c in categories])
    truths = draw(st.lists(st.tuples(image_id, category_id, box, st.booleans(), st.sampled_from([1.0, 0.5])), max_size=12))
    annotations = [
        # An area unlike the box's, as of a mask, and crowds in a third of the cases.
        {
            "id": n + 1,
            "image_id": i,
            "category_id": c,
            "bbox": list(b),
            "area": b[2] * b[3] * share,
            "iscrowd": int(crowd and n % 3 == 0),
        }
        for n, (i, c, b, crowd, share) in enumerate(truths)
    ]
    score = st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.9, 1.0])
    found = draw(st.lists(st.tuples(image_id, category_id, box, score), max_size=12))
    # Detections near a truth: a part of it, so that IoU is spread over the thresholds and often equal to one.
    # Sides are quarters of pixels: corners hold them exactly. (0.95 x 97 loses a bit in x + w - x, enough to cross a threshold.)
    shares = st.tuples(st.sampled_from([0.5, 0.7, 0.75, 0.875, 0.9375, 1.0]), st.sampled_from([0.5, 0.75, 0.95, 1.0]))
    for i, c, (x, y, w, h), _, _ in truths:
        for across, down in draw(st.lists(shares, max_size=3)):
            found.append((i, c, (x, y, round(w * across * 4) / 4, round(h * down * 4) / 4), draw(score)))
    copies = draw(st.sampled_from([1, 1, 1, 7, 120]))  # 120: more than the 100 that count
    dt = [{"image_id": i, "category_id": c, "bbox": list(b), "score": s} for i, c, b, s in found for _ in range(copies)]
    return {"images": images, "categories": categories, "annotations": annotations}, dt


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(cases())
def test_engines_equal_pycocotools_on_fuzzed_input(case):
    equal_to_judge(*case)


@st.composite
def mask_cases(draw) -> tuple[dict[str, Any], Records]:
    """Small pictures full of rectangles, staircases and nothing: equal masks, empty ones, crowds, areas at a border."""
    side = 128
    images = [{"id": number, "height": side, "width": side} for number in range(1, draw(st.integers(1, 3)) + 1)]
    categories = [{"id": n, "name": f"c{n}"} for n in range(1, draw(st.integers(1, 3)) + 1)]
    place, length = st.sampled_from([0, 4, 8, 16, 64]), st.sampled_from([0, 1, 8, 31, 32, 33, 64])
    shape = st.tuples(place, place, length, length, st.booleans())
    image_id, category_id = st.integers(1, len(images)), st.integers(1, len(categories))

    def bitmap(x: int, y: int, w: int, h: int, stairs: bool) -> np.ndarray:
        mask = np.zeros((side, side), np.uint8, order="F")
        mask[y : y + h, x : x + w] = 1
        if stairs:
            mask[y : y + h // 2, x : x + w // 2] = 0
        return mask

    def rle(shape: tuple[int, int, int, int, bool]) -> dict[str, Any]:
        code = coco_mask.encode(bitmap(*shape))
        return {"size": code["size"], "counts": code["counts"].decode()}

    truths = draw(st.lists(st.tuples(image_id, category_id, shape, st.booleans()), max_size=8))
    annotations = [
        {
            "id": n + 1,
            "image_id": i,
            "category_id": c,
            "bbox": list(s[:4]),
            "area": int(bitmap(*s).sum()),
            "iscrowd": int(crowd and n % 3 == 0),
            "segmentation": rle(s),
        }
        for n, (i, c, s, crowd) in enumerate(truths)
    ]
    score = st.sampled_from([0.0, 0.1, 0.5, 0.5, 0.9, 1.0])
    found = draw(st.lists(st.tuples(image_id, category_id, shape, score), max_size=8))
    shrunk = st.sampled_from([(0, 0), (1, 0), (2, 4), (8, 8), (16, 0)])
    for i, c, (x, y, w, h, stairs), _ in truths:
        for across, down in draw(st.lists(shrunk, max_size=2)):
            found.append((i, c, (x, y, max(0, w - across), max(0, h - down), stairs), draw(score)))
    dt = [{"image_id": i, "category_id": c, "segmentation": rle(s), "score": value} for i, c, s, value in found]
    return {"images": images, "categories": categories, "annotations": annotations}, dt


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(mask_cases())
def test_engines_equal_pycocotools_on_fuzzed_masks(case):
    equal_to_judge(*case, task="segm")


def test_boxes_alone_cannot_be_measured_as_masks():
    with pytest.raises(ValueError, match="masks can be measured only"):
        measured(scene([(1, 1, [0, 0, 40, 40])]), [], "hotcoco", "segm")


def scene(truths: list[tuple[int, int, list[float]]], classes: int = 1) -> dict[str, Any]:
    """Labels given as (image, category, xywh) on pictures 1 and 2."""
    rows = [
        {"id": n + 1, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for n, (i, c, b) in enumerate(truths)
    ]
    categories = [{"id": c + 1, "name": f"class {c + 1}"} for c in range(classes)]
    return {"images": [{"id": 1}, {"id": 2}], "categories": categories, "annotations": rows}


@pytest.mark.parametrize("engine", ENGINES)
def test_class_without_truth_is_undefined_and_left_out(engine):
    gt = scene([(1, 1, [0, 0, 40, 40])], classes=2)
    dt = [{"image_id": 1, "category_id": c, "bbox": [0, 0, 40, 40], "score": 0.9} for c in (1, 2)]
    result = measured(gt, dt, engine)
    assert [one.ap for one in result.classes] == [pytest.approx(1), -1]
    flat = result.flat()
    assert flat["bbox/AP"] == pytest.approx(1)
    assert flat["bbox/AP/class 1"] == pytest.approx(1)
    assert "bbox/AP/class 2" not in flat
    assert "bbox/APl" not in flat
    assert min(flat.values()) >= 0
    assert [curve.name for curve in result.curves] == ["class 1"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_false_detection_on_a_picture_without_labels_costs_precision(engine):
    gt = scene([(1, 1, [0, 0, 40, 40])])
    hit = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "score": 0.5}
    ghost = {"image_id": 2, "category_id": 1, "bbox": [0, 0, 40, 40], "score": 0.9}
    assert measured(gt, [hit], engine).numbers["bbox/AP"] == pytest.approx(1)
    assert measured(gt, [hit, ghost], engine).numbers["bbox/AP"] == pytest.approx(0.5)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_limit_on_detections_is_the_setting(engine):
    gt = scene([(1, 1, [0, 0, 40, 40])])
    ghosts = [{"image_id": 1, "category_id": 1, "bbox": [50 + k, 50, 9, 9], "score": 0.9} for k in range(20)]
    dt = [*ghosts, {"image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "score": 0.1}]
    truth, found = truth_of(gt), predictions_of(dt)
    assert measure(truth, found, engine, 20).numbers["bbox/AR20"] == 0
    assert measure(truth, found, engine, 21).numbers["bbox/AR21"] == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_no_pictures_gives_undefined_numbers(engine):
    gt = scene([]) | {"images": []}
    assert set(measured(gt, [], engine).numbers.values()) == {-1.0}
    assert measured(gt, [], engine).flat() == {}


@pytest.mark.parametrize("engine", ENGINES)
def test_predictions_of_another_dataset_are_refused(engine):
    gt = scene([(1, 1, [0, 0, 40, 40])])
    with pytest.raises(ValueError, match="7"):
        measured(gt, [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 4], "score": 1}], engine)
    with pytest.raises(ValueError, match="8"):
        measured(gt, [{"image_id": 1, "category_id": 8, "bbox": [0, 0, 4, 4], "score": 1}], engine)


def test_classes_of_one_name_keep_their_own_numbers():
    gt = scene([(1, 1, [0, 0, 40, 40]), (1, 2, [0, 0, 40, 40])], classes=2)
    for category in gt["categories"]:
        category["name"] = "cell"
    dt = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "score": 0.9}]
    flat = measured(gt, dt, "hotcoco").flat()
    assert flat["bbox/AP/cell #1"] == pytest.approx(1)
    assert flat["bbox/AP/cell #2"] == 0
