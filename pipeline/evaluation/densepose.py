"""Average precision of dense poses by geodesic point similarity (GPS).

GPS of a detection and an object is the mean over the object's annotated points of exp(-d^2 / (2 kappa^2)), where d is the
distance on the surface between the annotated place and the one found at that pixel, kappa = 0.255: 0.3 gives one half.
Which distance: the dataset's (`data.dense.Surface.distance`). It is not geodesic across parts: within a part the Euclidean
distance in (u, v) times the part's stated size, infinite between parts and to the background. So figures are comparable between
detectors on one dataset, not with published ones, which use distances on the body's mesh.
Precision and recall as in COCO's evaluation, GPS in IoU's place at thresholds 0.50 to 0.95. An object without dense labels, or a
crowd, counts neither as found nor as missed and excuses a detection that overlaps it by half and takes no labelled object.
Source: Güler et al. 2018, section 5; COCO's evaluation (cocodataset.org/#detection-eval).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dense import FRAME, DensePool
from pipeline.errors import UserError
from pipeline.evaluation.coco import Engine
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.metrics import Metrics, Table, defined
from pipeline.evaluation.truth import Truth
from pipeline.predict.dense import DensePose
from pipeline.tasks import TITLE, Task

Floats = NDArray[np.float64]

KAPPA = 0.255
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
EXCUSED = 0.5
"""IoU of boxes from which an object without dense labels excuses a detection."""


@dataclass(frozen=True, slots=True)
class DensePoseMetrics(Metrics):
    """Average precision over GPS; -1 where no object has a dense label."""

    numbers: Mapping[str, float]
    """densepose/GPS_AP, GPS_AP50, GPS_AP75 and GPS_AR; the mean over classes."""
    classes: Mapping[str, float]

    task: ClassVar[Task] = "densepose"  # type: ignore[misc]
    shown: ClassVar[tuple[str, ...]] = ("GPS_AP", "GPS_AP50", "GPS_AP75", "GPS_AR")

    @property
    def per_class(self) -> dict[str, float]:
        return dict(self.classes)

    def tables(self) -> list[Table]:
        """GPS AP of every class."""
        rows = [(name, defined(value)) for name, value in sorted(self.classes.items(), key=lambda item: item[1])]
        note = (
            "Geodesic point similarity, kappa 0.255, at 0.50 to 0.95. Distances: (u, v) within a part times the part's size in"
            " the dataset; infinite between parts."
        )
        return [Table(f"GPS of {TITLE['densepose']}", ("class", "GPS AP"), rows, note)]


def similarity(found: DensePose, pool: DensePool, row: int, box_4: Floats) -> float:
    """GPS of one dense pose with the object `row` of the pool, whose box is (x1, y1, x2, y2)."""
    assert pool.surface is not None
    own = slice(pool.starts[row], pool.starts[row + 1])
    points_P2 = box_4[:2] + pool.points_P2[own] / FRAME * (box_4[2:] - box_4[:2])
    parts_P, uv_P2 = found.at(points_P2)
    distance_P = pool.surface.distance(parts_P, uv_P2, pool.parts_P[own], pool.uv_P2[own])
    return float(np.exp(-((distance_P / KAPPA) ** 2) / 2).mean())


def measure_dense_poses(truth: Truth, predictions: Predictions, engine: Engine, max_detections: int) -> DensePoseMetrics:
    """AP over GPS, one class after the other; `engine` is of boxes and masks, and does not matter here."""
    pool, dense_D = truth.dense_A, predictions.dense_D
    if pool is None or pool.surface is None:
        raise UserError("evaluate: the labels have no dense poses\n  measure a detector of boxes, or add dense pose labels")
    if dense_D is None and len(predictions):
        raise UserError("evaluate: the detector finds no dense poses\n  train one, such as model=densepose_rcnn_tiny")
    by_class: dict[str, tuple[Floats, Floats]] = {}
    for category, name in zip(truth.category_ids_K.tolist(), truth.names, strict=True):
        curves = _class_curves(truth, predictions, pool, category, max_detections)
        if curves is not None:
            by_class[name] = curves
    if not by_class:
        return DensePoseMetrics(dict.fromkeys((f"densepose/{name}" for name in DensePoseMetrics.shown), -1.0), {})
    precision_KT = np.array([curves[0] for curves in by_class.values()])
    at = {"GPS_AP": slice(None), "GPS_AP50": slice(0, 1), "GPS_AP75": slice(5, 6)}
    numbers = {f"densepose/{name}": float(precision_KT[:, part].mean()) for name, part in at.items()}
    numbers["densepose/GPS_AR"] = float(np.mean([curves[1] for curves in by_class.values()]))
    return DensePoseMetrics(numbers, {name: float(curves[0].mean()) for name, curves in by_class.items()})


def _class_curves(
    truth: Truth, predictions: Predictions, pool: DensePool, category: int, limit: int
) -> tuple[Floats, Floats] | None:
    """Average precision and recall [T] of one class; None without labelled objects."""
    labelled = 0
    scores: list[Floats] = []
    matched: list[NDArray[np.bool_]] = []
    excused: list[NDArray[np.bool_]] = []
    counts_A = pool.has() & ~truth.crowd_A
    for image_id in truth.image_ids_I.tolist():
        rows = np.flatnonzero((truth.image_ids_A == image_id) & (truth.category_ids_A == category))
        found = np.flatnonzero((predictions.image_ids_D == image_id) & (predictions.category_ids_D == category))
        found = found[np.argsort(-predictions.scores_D[found], kind="stable")][:limit]
        own, others = rows[counts_A[rows]], rows[~counts_A[rows]]
        labelled += len(own)
        gps_DG = np.zeros((len(found), len(own)))
        for d, place in enumerate(found.tolist()):
            assert predictions.dense_D is not None
            for g, row in enumerate(own.tolist()):
                gps_DG[d, g] = similarity(predictions.dense_D[place], pool, row, truth.boxes_A4[row])
        taken_TD = match(gps_DG, THRESHOLDS)
        near_D = (_overlap(predictions.boxes_D4[found], truth.boxes_A4[others], truth.crowd_A[others]) >= EXCUSED).any(axis=1)
        scores.append(predictions.scores_D[found])
        matched.append(taken_TD)
        excused.append(~taken_TD & near_D)
    if not labelled:
        return None
    order = np.argsort(-np.concatenate(scores), kind="stable")
    matched_TD, excused_TD = (np.concatenate(parts, axis=1)[:, order] for parts in (matched, excused))
    curves = [precision_and_recall(hit[~out], labelled) for hit, out in zip(matched_TD, excused_TD, strict=True)]
    return np.array([curve[0] for curve in curves]), np.array([curve[1] for curve in curves])


def match(similarity_DG: Floats, thresholds: Floats) -> NDArray[np.bool_]:
    """Which detections (best score first) take an object, [T, D]: each the free one that it is most similar to."""
    detections, objects = similarity_DG.shape
    taken_TD = np.zeros((len(thresholds), detections), bool)
    for t, threshold in enumerate(thresholds):
        free_G = np.ones(objects, bool)
        for d in range(detections):
            similar_G = np.where(free_G, similarity_DG[d], -1.0)
            if objects and similar_G.max() >= min(threshold, 1 - 1e-10):
                free_G[objects - 1 - similar_G[::-1].argmax()] = False  # of equals the last, as COCO's evaluation
                taken_TD[t, d] = True
    return taken_TD


def precision_and_recall(hit_D: NDArray[np.bool_], objects: int) -> tuple[float, float]:
    """COCO's average precision over 101 recalls, and the recall reached, of detections in falling score order."""
    if not len(hit_D):
        return 0.0, 0.0
    hits_D = np.cumsum(hit_D)
    recall_D, precision_D = hits_D / objects, hits_D / np.arange(1, len(hit_D) + 1)
    envelope_D = np.maximum.accumulate(precision_D[::-1])[::-1]
    place_R = np.searchsorted(recall_D, RECALLS, side="left")
    reached_R = np.append(envelope_D, 0.0)[place_R]
    return float(reached_R.mean()), float(recall_D[-1])


def _overlap(boxes_D4: Floats, boxes_A4: Floats, crowd_A: NDArray[np.bool_]) -> Floats:
    """IoU [D, A]; with a crowd, of which a detection is a part, the share of the detection that lies in it, as COCO counts."""
    corner_DA2 = np.maximum(boxes_D4[:, None, :2], boxes_A4[None, :, :2])
    inter_DA = np.clip(np.minimum(boxes_D4[:, None, 2:], boxes_A4[None, :, 2:]) - corner_DA2, 0, None).prod(axis=2)
    area_D, area_A = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (boxes_D4, boxes_A4))
    union_DA = np.where(crowd_A, area_D[:, None], area_D[:, None] + area_A[None, :] - inter_DA)
    shares_DA: Floats = np.divide(inter_DA, union_DA, out=np.zeros_like(inter_DA), where=union_DA > 0)
    return shares_DA
