"""COCO's metrics of keypoints: AP over object keypoint similarity (OKS), by hotcoco or by pycocotools, from the same tables.

A class's keypoints are compared with the spreads of its own names, so each class is counted by itself, and classes are averaged.
Labels without a visible keypoint count neither as found nor as missed. Source: cocodataset.org/#keypoints-eval.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.found import Predictions
from pipeline.evaluation.metrics import Metrics, Table, defined
from pipeline.evaluation.truth import Floats, Truth
from pipeline.tasks import Task

SIGMAS = {
    "nose": 0.026,
    **dict.fromkeys(("left_eye", "right_eye"), 0.025),
    **dict.fromkeys(("left_ear", "right_ear"), 0.035),
    **dict.fromkeys(("left_shoulder", "right_shoulder"), 0.079),
    **dict.fromkeys(("left_elbow", "right_elbow"), 0.072),
    **dict.fromkeys(("left_wrist", "right_wrist"), 0.062),
    **dict.fromkeys(("left_hip", "right_hip"), 0.107),
    **dict.fromkeys(("left_knee", "right_knee"), 0.087),
    **dict.fromkeys(("left_ankle", "right_ankle"), 0.089),
}
"""COCO's published spreads: how far annotators differ, as a share of the object's scale. They hold for all 17 together."""
LIMIT = 20
"""COCO's most detections per picture and class for keypoints."""
IOU_50, IOU_75 = 0, 5
ALL, MEDIUM, LARGE = range(3)


@dataclass(frozen=True, slots=True)
class KeypointMetrics(Metrics):
    """What one evaluation says about keypoints. -1 stands for undefined."""

    task: Task
    numbers: dict[str, float]
    """COCO's ten numbers, in its order: keypoints/AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl."""
    classes: dict[str, dict[str, float]]
    """The same ten without the task, by class name."""
    shown: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP75")

    @property
    def per_class(self) -> dict[str, float]:
        """AP by class name, of the classes that have truth."""
        return {name: numbers["AP"] for name, numbers in self.classes.items() if numbers["AP"] >= 0}

    def tables(self) -> list[Table]:
        """COCO's ten numbers, and the classes."""
        ten = {name.removeprefix(f"{self.task}/"): defined(value) for name, value in self.numbers.items()}
        note = "By object keypoint similarity; m, l: areas below 96² and above; – where no label is."
        rows = [(name, *map(defined, numbers.values())) for name, numbers in self.classes.items()]
        return [
            Table("COCO's numbers of keypoints", tuple(ten), [tuple(ten.values())], note),
            Table("Keypoints by class", ("class", *ten), rows),
        ]


def sigmas(names: Sequence[str], uniform: float) -> NDArray[np.float64]:
    """COCO's spreads where the names are COCO's 17, whatever their order; else `uniform` for every keypoint."""
    known = set(names) == SIGMAS.keys() and len(names) == len(SIGMAS)
    return np.array([SIGMAS[name] if known else uniform for name in names])


def measure_keypoints(truth: Truth, predictions: Predictions, engine: str, max_detections: int = LIMIT) -> KeypointMetrics:
    """COCO's metrics of keypoints, of the classes that have some.

    COCO's 20 best of each picture and class count, or `max_detections` when it is less. ValueError where truth or predictions
    have no keypoints.
    """
    if truth.keypoints_AK3 is None or (predictions.keypoints_DK3 is None and len(predictions)):
        raise ValueError("keypoints can be measured only where truth and predictions have them")
    precision, recall, classes = [], [], {}
    for place, names in enumerate(truth.keypoint_names):
        if not names:
            continue
        tables = _tables(truth, predictions, place, engine, min(LIMIT, max_detections))
        classes[truth.names[place]] = _numbers(*tables)
        precision.append(tables[0])
        recall.append(tables[1])
    numbers = _numbers(np.concatenate(precision, axis=2), np.concatenate(recall, axis=1))
    return KeypointMetrics("keypoints", {f"keypoints/{name}": value for name, value in numbers.items()}, classes)


def _tables(truth: Truth, predictions: Predictions, place: int, engine: str, limit: int) -> tuple[Floats, Floats]:
    """Precision [T, R, 1, S] and recall [T, 1, S] of one class; -1 where there is no truth."""
    number, names = int(truth.category_ids_K[place]), truth.keypoint_names[place]
    labels = _labels(truth, number, len(names))
    if not labels:
        return np.full((10, 101, 1, 3), -1.0), np.full((10, 1, 3), -1.0)
    rows = predictions.take(predictions.category_ids_D == number)
    results = rows.to_coco({number: len(names)}) if len(rows) else []
    for result in results:  # the box stays, as in the reference: its area is the size of a detection that nothing matches
        result.pop("segmentation", None)
    images = [{"id": image_id, "width": 0, "height": 0} for image_id in truth.image_ids_I.tolist()]
    category = {"id": number, "name": truth.names[place], "keypoints": list(names), "skeleton": []}
    header = {"images": images, "categories": [category], "annotations": labels}
    spread = sigmas(names, truth.keypoint_sigma)
    evaluation = (_hotcoco if engine == "hotcoco" else _pycocotools)(header, results, spread, limit)
    precision, recall = (np.asarray(evaluation.eval[name], np.float64)[..., -1] for name in ("precision", "recall"))
    return precision, recall


def _hotcoco(header: dict[str, Any], results: list[dict[str, Any]], spread: Floats, limit: int) -> Any:
    from hotcoco import COCO, COCOeval

    labels = COCO(header)
    evaluation = COCOeval(labels, labels.loadRes(results), "keypoints")
    evaluation.params.kpt_oks_sigmas = spread.tolist()
    evaluation.params.max_dets = [limit]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def _pycocotools(header: dict[str, Any], results: list[dict[str, Any]], spread: Floats, limit: int) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # it has no quiet mode
        labels = COCO()
        labels.dataset = header
        labels.createIndex()
        if results:
            found = labels.loadRes(results)
        else:
            found = COCO()
            found.dataset = header | {"annotations": []}
            found.createIndex()
        evaluation = COCOeval(labels, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = spread
        evaluation.params.maxDets = [limit]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _labels(truth: Truth, number: int, count: int) -> list[dict[str, Any]]:
    """The labels of one class as COCO's annotations, ids from 1."""
    assert truth.keypoints_AK3 is not None
    rows = np.flatnonzero(truth.category_ids_A == number)
    found: list[dict[str, Any]] = []
    for row in rows.tolist():
        points_K3 = truth.keypoints_AK3[row, :count]
        x1, y1, x2, y2 = truth.boxes_A4[row].tolist()
        found.append(
            {
                "id": len(found) + 1,
                "image_id": int(truth.image_ids_A[row]),
                "category_id": number,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": float(truth.area_A[row]),
                "iscrowd": int(truth.crowd_A[row]),
                "keypoints": points_K3.reshape(-1).tolist(),
                "num_keypoints": int((points_K3[:, 2] > 0).sum()),
            }
        )
    return found


def _numbers(precision_TRKS: Floats, recall_TKS: Floats) -> dict[str, float]:
    """COCO's ten numbers from the tables of some classes."""
    return {
        "AP": _mean(precision_TRKS[..., ALL]),
        "AP50": _mean(precision_TRKS[IOU_50, ..., ALL]),
        "AP75": _mean(precision_TRKS[IOU_75, ..., ALL]),
        "APm": _mean(precision_TRKS[..., MEDIUM]),
        "APl": _mean(precision_TRKS[..., LARGE]),
        "AR": _mean(recall_TKS[..., ALL]),
        "AR50": _mean(recall_TKS[IOU_50, ..., ALL]),
        "AR75": _mean(recall_TKS[IOU_75, ..., ALL]),
        "ARm": _mean(recall_TKS[..., MEDIUM]),
        "ARl": _mean(recall_TKS[..., LARGE]),
    }


def _mean(values: Floats) -> float:
    """Mean over the defined values, -1 when none is."""
    known = values[values > -1]
    return float(np.mean(known)) if len(known) else -1.0
