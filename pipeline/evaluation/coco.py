"""COCO's metrics of boxes and masks: the twelve numbers, every class, and precision-recall curves.

Two engines fill the same tables: hotcoco (Rust, a hundred times faster) for daily work, pycocotools as the judge. What is read
off the tables is one piece of code, held to pycocotools' own summary by the tests. Source: cocodataset.org/#detection-eval.
"""

import contextlib
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.found import Predictions
from pipeline.evaluation.metrics import Metrics, Table, defined
from pipeline.evaluation.rotated import rotated_evaluation
from pipeline.evaluation.truth import Floats, Truth
from pipeline.predict.postprocess import Rle
from pipeline.tasks import TITLE, Task

Engine = Literal["hotcoco", "pycocotools"]

RECALLS_R: Floats = np.linspace(0, 1, 101)
"""The recall points at which COCO reads precision."""
WHOLE = [0.0, 1e10]
"""COCO's range of areas for objects of all sizes."""
ALL, SMALL, MEDIUM, LARGE = range(4)
"""Places of the area ranges; their borders are 32^2 and 96^2 square pixels."""
IOU_50, IOU_75 = 0, 5
"""Places of IoU 0.50 and 0.75 among 0.50, 0.55 ... 0.95."""


@dataclass(frozen=True, slots=True)
class ClassMetrics:
    """One class; -1 stands for undefined: the class has no truth (of that size)."""

    name: str
    truths: int
    """Labels that count (crowd left out)."""
    detections: int
    ap: float
    ap50: float
    ap75: float
    small: float
    medium: float
    large: float
    recall: float
    """Largest recall, averaged over the IoU thresholds."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision at the 101 recall points, of one class or of the mean over the classes that have truth."""

    name: str
    iou50_R: Floats
    iou75_R: Floats
    mean_R: Floats
    """Averaged over the ten IoU thresholds."""


@dataclass(frozen=True, slots=True)
class CocoMetrics(Metrics):
    """What one evaluation says about boxes, or about masks. -1 stands for undefined."""

    task: Task
    numbers: dict[str, float]
    """The twelve numbers, in COCO's order: bbox/AP (or segm/AP), AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl."""
    classes: tuple[ClassMetrics, ...]
    mean: Curve
    curves: tuple[Curve, ...]
    """One per class that has truth, in class order."""

    shown: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP75")

    @property
    def per_class(self) -> dict[str, float]:
        """AP by class name, of the classes that have truth."""
        return {one.name: one.ap for one in self.classes if one.ap >= 0}

    def tables(self) -> list[Table]:
        """COCO's twelve numbers, and the classes."""
        twelve = {name.removeprefix(f"{self.task}/"): defined(value) for name, value in self.numbers.items()}
        note = "s, m, l: areas below 32², below 96² and above; – where no label is."
        columns = ("class", "labels", "detections", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR")
        rows = [
            (
                *(one.name, one.truths, one.detections),
                *map(defined, (one.ap, one.ap50, one.ap75, one.small, one.medium, one.large, one.recall)),
            )
            for one in self.classes
        ]
        title = TITLE[self.task]
        return [
            Table(f"COCO's numbers of {title}", tuple(twelve), [tuple(twelve.values())], note),
            Table(f"{title.capitalize()} by class", columns, rows),
        ]


def measure(
    truth: Truth, predictions: Predictions, engine: Engine, max_detections: int = 100, task: Task = "bbox"
) -> CocoMetrics:
    """COCO's metrics of boxes, masks or rotated boxes.

    The best `max_detections` (10 or more; COCO's is 100) of each picture and class count; ties keep the order of the rows.
    Detections are small, medium or large by their own area: a mask's is its pixels'. Raises ValueError for predictions on
    unknown pictures or of unknown categories, or without the masks to measure.
    """
    if task == "segm" and (truth.masks_A is None or predictions.masks_D is None):
        raise ValueError("masks can be measured only where truth and predictions have them")
    if task == "rotated":
        engine = "pycocotools"  # the one that takes overlaps from outside
        if truth.rotated_A5 is None or (len(predictions) and predictions.rotated_D5 is None):
            raise ValueError("rotated boxes can be measured only where truth and predictions have them")
    strangers = np.setdiff1d(predictions.image_ids_D, truth.image_ids_I)
    unknown = np.setdiff1d(predictions.category_ids_D, truth.category_ids_K)
    if len(strangers) or len(unknown):
        raise ValueError(
            f"predictions on pictures {strangers[:5].tolist()} or of categories {unknown[:5].tolist()} that the split has not"
        )
    if not len(truth.image_ids_I) or not len(truth.names):
        tables = _empty_tables(len(truth.names))
    else:
        tables = ENGINES[engine](truth, predictions, [1, 10, max_detections], task)
    return _read_off(truth, predictions, tables, max_detections, task)


@dataclass(slots=True)
class _Tables:
    """What an engine accumulates; -1 where there is no truth.

    T: IoU thresholds, R: recall points, K: classes, S: area ranges, M: limits on detections.
    """

    precision_TRKSM: Floats
    recall_TKSM: Floats


def _empty_tables(classes: int) -> _Tables:
    return _Tables(np.full((10, 101, classes, 4, 3), -1.0), np.full((10, classes, 4, 3), -1.0))


def matched_pictures(truth: Truth, predictions: Predictions, task: Task, limit: int) -> Iterator[dict[str, Any]]:
    """Of each picture and class that have labels or detections: which of them COCO's matching pairs, objects of all sizes.

    The entries are pycocotools' `evalImgs`, with `dtMatched` beside the ids.
    """
    evaluation = _hotcoco_evaluation(truth, predictions, [1, 10, limit], task)
    evaluation.evaluate()
    yield from (one for one in evaluation.eval_imgs if one is not None and one["aRng"] == WHOLE)


def _hotcoco(truth: Truth, predictions: Predictions, limits: list[int], task: Task) -> _Tables:
    return _accumulated(_hotcoco_evaluation(truth, predictions, limits, task))


def _hotcoco_evaluation(truth: Truth, predictions: Predictions, limits: list[int], task: Task) -> Any:
    from hotcoco import COCO, COCOeval

    labels = COCO.from_arrays(
        [{"id": image_id, "width": 0, "height": 0} for image_id in truth.image_ids_I.tolist()],
        _categories(truth),
        truth.image_ids_A,
        truth.category_ids_A,
        _xywh(truth.boxes_A4),
        ids=np.arange(1, len(truth.area_A) + 1),  # both engines take id 0 for "no match", or differ over it
        area=truth.area_A,
        iscrowd=truth.crowd_A.astype(np.int64),
        segmentation=[dict(rle) for rle in truth.masks_A or ()] if task == "segm" else None,
    )
    columns = (predictions.image_ids_D, _xywh(predictions.boxes_D4), predictions.scores_D, predictions.category_ids_D)
    if task == "segm" and len(predictions):
        results = labels.loadRes(_masks_alone(predictions))
    else:
        results = labels.loadRes(np.column_stack([np.asarray(column, np.float64) for column in columns]))
    evaluation = COCOeval(labels, results, task)
    evaluation.params.max_dets = limits
    return evaluation


def _masks_alone(predictions: Predictions) -> list[dict[str, Any]]:
    """Results without boxes: where there is one, engines take a detection's size from it."""
    return [{name: value for name, value in row.items() if name != "bbox"} for row in predictions.to_coco()]


def _pycocotools(truth: Truth, predictions: Predictions, limits: list[int], task: Task) -> _Tables:
    from pycocotools import mask as coco_mask
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images = [{"id": image_id, "width": 0, "height": 0} for image_id in truth.image_ids_I.tolist()]
    header = {"images": images, "categories": _categories(truth)}
    labels, results = COCO(), COCO()
    labels.dataset = header | {
        "annotations": _records(
            truth.image_ids_A,
            truth.category_ids_A,
            truth.boxes_A4,
            truth.masks_A if task == "segm" else None,
            area=truth.area_A,
            iscrowd=truth.crowd_A.astype(int),
        )
    }
    masks_D = predictions.masks_D if task == "segm" else None
    area_D = _area(predictions.boxes_D4) if masks_D is None else np.array([int(coco_mask.area(rle)) for rle in masks_D])
    if task == "rotated" and predictions.rotated_D5 is not None:
        area_D = predictions.rotated_D5[:, 2] * predictions.rotated_D5[:, 3]
    crowd_D = np.zeros(len(area_D), int)
    results.dataset = header | {
        "annotations": _records(
            predictions.image_ids_D,
            predictions.category_ids_D,
            predictions.boxes_D4,
            masks_D,
            area=area_D,
            iscrowd=crowd_D,
            score=predictions.scores_D,
        )
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it has no quiet mode
        labels.createIndex()
        results.createIndex()
        if task == "rotated":
            evaluation = rotated_evaluation(labels, results, truth, predictions)
        else:
            evaluation = COCOeval(labels, results, task)
        evaluation.params.maxDets = limits
        return _accumulated(evaluation)


ENGINES = {"hotcoco": _hotcoco, "pycocotools": _pycocotools}


def _accumulated(evaluation: Any) -> _Tables:
    evaluation.evaluate()
    evaluation.accumulate()
    return _Tables(np.asarray(evaluation.eval["precision"], np.float64), np.asarray(evaluation.eval["recall"], np.float64))


def _categories(truth: Truth) -> list[dict[str, Any]]:
    return [{"id": number, "name": name} for number, name in zip(truth.category_ids_K.tolist(), truth.names, strict=True)]


def _records(
    image_ids_A: NDArray[np.int64],
    category_ids_A: NDArray[np.int64],
    boxes_A4: Floats,
    masks_A: list[Rle] | None,
    **columns: NDArray[Any],
) -> list[dict[str, Any]]:
    """Columns as pycocotools' dictionaries, ids from 1."""
    named = {"image_id": image_ids_A, "category_id": category_ids_A, "bbox": _xywh(boxes_A4), **columns}
    listed: dict[str, list[Any]] = {name: column.tolist() for name, column in named.items()}
    listed |= {} if masks_A is None else {"segmentation": masks_A}
    return [{"id": row + 1} | {name: column[row] for name, column in listed.items()} for row in range(len(boxes_A4))]


def _xywh(boxes_A4: Floats) -> Floats:
    return np.concatenate([boxes_A4[:, :2], boxes_A4[:, 2:] - boxes_A4[:, :2]], axis=1)


def _area(boxes_A4: Floats) -> Floats:
    return (boxes_A4[:, 2] - boxes_A4[:, 0]) * (boxes_A4[:, 3] - boxes_A4[:, 1])


def _read_off(truth: Truth, predictions: Predictions, tables: _Tables, max_detections: int, task: Task) -> CocoMetrics:
    precision_TRKS, recall_TKSM = tables.precision_TRKSM[..., -1], tables.recall_TKSM
    ap = {
        "AP": precision_TRKS[..., ALL],
        "AP50": precision_TRKS[IOU_50, ..., ALL],
        "AP75": precision_TRKS[IOU_75, ..., ALL],
        "APs": precision_TRKS[..., SMALL],
        "APm": precision_TRKS[..., MEDIUM],
        "APl": precision_TRKS[..., LARGE],
    }
    ar = {
        "AR1": recall_TKSM[..., ALL, 0],
        "AR10": recall_TKSM[..., ALL, 1],
        f"AR{max_detections}": recall_TKSM[..., ALL, 2],
        "ARs": recall_TKSM[..., SMALL, 2],
        "ARm": recall_TKSM[..., MEDIUM, 2],
        "ARl": recall_TKSM[..., LARGE, 2],
    }
    return CocoMetrics(
        task=task,
        numbers={f"{task}/{name}": mean_defined(values) for name, values in (ap | ar).items()},
        classes=tuple(_class_metrics(truth, predictions, tables, place, name) for place, name in enumerate(_unique_names(truth))),
        mean=_curve("mean", precision_TRKS[..., ALL]),
        curves=tuple(
            _curve(name, precision_TRKS[:, :, [place], ALL])
            for place, name in enumerate(_unique_names(truth))
            if (precision_TRKS[:, :, place, ALL] > -1).any()
        ),
    )


def _class_metrics(truth: Truth, predictions: Predictions, tables: _Tables, place: int, name: str) -> ClassMetrics:
    precision_TRS, number = tables.precision_TRKSM[:, :, place, :, -1], truth.category_ids_K[place]
    return ClassMetrics(
        name=name,
        truths=int(((truth.category_ids_A == number) & ~truth.crowd_A).sum()),
        detections=int((predictions.category_ids_D == number).sum()),
        ap=mean_defined(precision_TRS[..., ALL]),
        ap50=mean_defined(precision_TRS[IOU_50, :, ALL]),
        ap75=mean_defined(precision_TRS[IOU_75, :, ALL]),
        small=mean_defined(precision_TRS[..., SMALL]),
        medium=mean_defined(precision_TRS[..., MEDIUM]),
        large=mean_defined(precision_TRS[..., LARGE]),
        recall=mean_defined(tables.recall_TKSM[:, place, ALL, -1]),
    )


def _unique_names(truth: Truth) -> list[str]:
    """Class names; where two categories share one, their ids tell them apart."""
    times = Counter(truth.names)
    return [f"{n} #{i}" if times[n] > 1 else n for n, i in zip(truth.names, truth.category_ids_K.tolist(), strict=True)]


def mean_defined(values: Floats) -> float:
    """Mean over the defined values, -1 when none is."""
    defined = values[values > -1]
    return float(np.mean(defined)) if len(defined) else -1.0


def _curve(name: str, precision_TRK: Floats) -> Curve:
    """A class without truth is -1 in every cell; one with truth in none."""
    defined_TRK = precision_TRK[:, :, (precision_TRK > -1).all(axis=(0, 1))]
    mean_TR = defined_TRK.mean(axis=2) if defined_TRK.shape[2] else np.full(defined_TRK.shape[:2], -1.0)
    return Curve(name, mean_TR[IOU_50], mean_TR[IOU_75], mean_TR.mean(axis=0))
