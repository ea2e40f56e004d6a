"""Evaluate: measure the trained detector the COCO way, and show where it is right and where it is wrong."""

from collections.abc import Mapping

from pipeline.data.dataset import Split, open_dataset
from pipeline.data.needs import require_labels
from pipeline.detector.weights import load_detector
from pipeline.evaluation import curves
from pipeline.evaluation.coco import CocoMetrics
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.inference import TorchBackend, predict_with, require_classes
from pipeline.evaluation.map_pictures import rate_maps, truth_beside_maps, worst_and_best_maps
from pipeline.evaluation.metrics import Metrics
from pipeline.evaluation.pictures import rate_pictures, truth_beside_detections, worst_and_best
from pipeline.evaluation.tasks import evaluate_all
from pipeline.evaluation.truth import Truth
from pipeline.files import staged, write_atomically, write_json
from pipeline.report import Report
from pipeline.settings import EvaluateStage
from pipeline.tasks import TITLE, Task
from pipeline.training.device import prepare_device


def run(cfg: EvaluateStage) -> None:
    """models/detector, data/validated -> reports/evaluate.

    DataError when the detector and the dataset have different classes, or a picture of the split cannot be read.
    """
    device = prepare_device(cfg.compute, seed=0)
    detector = load_detector(cfg.layout.detector, cfg.trusted)
    dataset = open_dataset(cfg.layout.validated)
    split = dataset.split(cfg.evaluate.split)
    require_labels(dataset, cfg.evaluate.split, detector.cfg.tasks, cfg.layout.validated)
    require_classes(detector, dataset, cfg.layout.validated)

    backend = TorchBackend(detector.model.to(device), device.type)
    predictions = predict_with(backend, detector, split, cfg.evaluate.batch, "evaluate")
    truth = Truth.of(split, dataset.info.categories, detector.cfg.tasks, cfg.evaluate.keypoint_sigma)
    found = evaluate_all(truth, predictions, cfg.evaluate.engine, cfg.evaluate.max_detections)
    curved = [metrics for metrics in found.values() if isinstance(metrics, CocoMetrics)]

    with staged(cfg.layout.reports("evaluate")) as out:
        write_json(out / "metrics.json", {name: value for metrics in found.values() for name, value in metrics.flat().items()})
        write_json(out / "predictions.json", predictions.to_coco(truth.keypoint_counts()))
        write_atomically(out / "plots/pr.csv", curves.pr_table(curved))
        write_atomically(out / "plots/classes.csv", curves.class_table(curved))
        page(split, truth, predictions, found, cfg.evaluate).write(out / "index.html")


def page(split: Split, truth: Truth, predictions: Predictions, found: Mapping[Task, Metrics], evaluate: EvaluateConfig) -> Report:
    """The report: figures, classes, curves, and the worst and best pictures."""
    report = Report("Evaluation", f"{len(split.images)} pictures of the split {split.name}, counted by {evaluate.engine}")
    for task, metrics in found.items():
        of = "" if task == "bbox" else f" of {TITLE[task]}"
        report.facts({f"{name}{of}": metrics.figure(name) for name in metrics.shown})
    if has_detections(truth):
        report.facts({"labels": len(truth.area_A), "detections": len(predictions)})
    for metrics in found.values():
        for table in metrics.tables():
            report.table(table.heading, table.columns, table.rows, table.note)
    for task, metrics in found.items():
        if isinstance(metrics, CocoMetrics):
            report.plot(f"Precision and recall of {TITLE[task]}", curves.figure(metrics))
    if predictions.semantic is not None:
        rated = rate_maps(truth, predictions)
        note = "Truth on the left, what was found on the right."
        for heading, chosen in zip(("Worst maps", "Best maps"), worst_and_best_maps(rated, evaluate.sheet), strict=True):
            if chosen:
                report.pictures(heading, [truth_beside_maps(split, truth, predictions, rating) for rating in chosen], note)
    if not has_detections(truth):
        return report
    score = evaluate.drawing_score
    note = f"Labels on the left, detections with a score of at least {score:g} on the right; F1 at IoU 0.5."
    if predictions.dense_D is not None:
        note += " Dots are annotated points, tints what was found of the surface, in the colours of its parts."
    worst, best = worst_and_best(rate_pictures(truth, predictions, score), evaluate.sheet)
    for heading, ratings in (("Worst pictures", worst), ("Best pictures", best)):
        if ratings:
            report.pictures(
                heading, [truth_beside_detections(split, truth, predictions, rating, score) for rating in ratings], note
            )
    return report


def has_detections(truth: Truth) -> bool:
    """Whether anything but maps is measured."""
    return any(task not in ("semantic", "panoptic") for task in truth.tasks)
