"""Every task's measurement, by name: what `evaluate`, training's validation, quantization and the export gate measure with."""

from collections.abc import Callable
from functools import partial

from pipeline.errors import UserError
from pipeline.evaluation.coco import Engine, measure
from pipeline.evaluation.densepose import measure_dense_poses
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.keypoints import measure_keypoints
from pipeline.evaluation.metrics import Metrics
from pipeline.evaluation.panoptic import measure_panoptic
from pipeline.evaluation.proposals import measure_proposals
from pipeline.evaluation.semantic import measure_semantic
from pipeline.evaluation.truth import Truth
from pipeline.tasks import TITLE, Task

Measure = Callable[[Truth, Predictions, Engine, int], Metrics]
"""From truth, predictions, COCO's engine and the most detections per picture to figures."""
MEASURES: dict[Task, Measure] = {
    "bbox": partial(measure, task="bbox"),
    "segm": partial(measure, task="segm"),
    "keypoints": measure_keypoints,
    "proposals": measure_proposals,
    "semantic": measure_semantic,
    "panoptic": measure_panoptic,
    "rotated": partial(measure, task="rotated"),
    "densepose": measure_dense_poses,
}


def evaluate_all(truth: Truth, predictions: Predictions, engine: Engine, max_detections: int = 100) -> dict[Task, Metrics]:
    """The metrics of every task that `truth` was read for. UserError for a task that cannot be measured: none is skipped."""
    if missing := [task for task in truth.tasks if task not in MEASURES]:
        names = ", ".join(f"{TITLE[task]} ({task})" for task in missing)
        raise UserError(f"evaluate: {names} cannot be measured in this version; it measures {', '.join(MEASURES)}")
    return {task: MEASURES[task](truth, predictions, engine, max_detections) for task in truth.tasks}
