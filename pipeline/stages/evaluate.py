"""Evaluate: measure the trained detector the COCO way, and show where it is right and where it is wrong."""

from collections.abc import Mapping

from pipeline.data.dataset import Split, open_dataset
from pipeline.detector.weights import load_detector
from pipeline.evaluation import curves
from pipeline.evaluation.coco import CocoMetrics, Task, evaluate_all
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.inference import Predictions, TorchBackend, predict_with, require_classes
from pipeline.evaluation.pictures import rate_pictures, truth_beside_detections, worst_and_best
from pipeline.evaluation.truth import Truth
from pipeline.files import staged, write_atomically, write_json
from pipeline.report import Cell, Report
from pipeline.settings import EvaluateStage
from pipeline.training.device import prepare_device

NAMES: dict[Task, str] = {"bbox": "boxes", "segm": "masks"}
PREFIX: dict[Task, str] = {"bbox": "", "segm": "mask "}
"""Before a figure's name on the report's tiles."""
COLUMNS = ("class", "labels", "detections", "AP", "AP50", "AP75", "APs", "APm", "APl", "AR")


def run(cfg: EvaluateStage) -> None:
    """models/detector, data/validated -> reports/evaluate.

    DataError when the detector and the dataset have different classes, or a picture of the split cannot be read.
    """
    device = prepare_device(cfg.compute, seed=0)
    detector = load_detector(cfg.layout.detector)
    dataset = open_dataset(cfg.layout.validated)
    split = dataset.split(cfg.evaluate.split)
    require_classes(detector, dataset, cfg.layout.validated)

    backend = TorchBackend(detector.model.to(device), device.type)
    predictions = predict_with(backend, detector, split, cfg.evaluate.batch, "evaluate")
    truth = Truth.of(split, dataset.info.categories, masks=predictions.masks_D is not None)
    found = evaluate_all(truth, predictions, cfg.evaluate.engine, cfg.evaluate.max_detections)
    boxes, masks = found["bbox"], found.get("segm")

    with staged(cfg.layout.reports("evaluate")) as out:
        write_json(out / "metrics.json", {name: value for metrics in found.values() for name, value in metrics.flat().items()})
        write_json(out / "predictions.json", predictions.to_coco())
        write_atomically(out / "plots/pr.csv", curves.pr_table(boxes, masks))
        write_atomically(out / "plots/classes.csv", curves.class_table(boxes, masks))
        page(split, truth, predictions, found, cfg.evaluate).write(out / "index.html")


def page(
    split: Split, truth: Truth, predictions: Predictions, found: Mapping[Task, CocoMetrics], evaluate: EvaluateConfig
) -> Report:
    """The report: figures, classes, curves, and the worst and best pictures."""
    report = Report("Evaluation", f"{len(split.images)} pictures of the split {split.name}, counted by {evaluate.engine}")
    for task, metrics in found.items():
        shown = figures(metrics)
        report.facts({f"{PREFIX[task]}{name}": shown[name] for name in ("AP", "AP50", "AP75")})
    report.facts({"labels": len(truth.area_A), "detections": len(predictions)})
    report.table(
        "COCO's twelve numbers",
        ("of", *figures(found["bbox"])),
        [(NAMES[task], *figures(metrics).values()) for task, metrics in found.items()],
        "s, m, l: areas below 32², below 96² and above; – where no label is.",
    )
    for task, metrics in found.items():
        report.table(f"{NAMES[task].capitalize()} by class", COLUMNS, class_rows(metrics))
    for task, metrics in found.items():
        report.plot(f"Precision and recall of {NAMES[task]}", curves.figure(metrics))
    score = evaluate.drawing_score
    note = f"Labels on the left, detections with a score of at least {score:g} on the right; F1 at IoU 0.5."
    worst, best = worst_and_best(rate_pictures(truth, predictions, score), evaluate.sheet)
    for heading, ratings in (("Worst pictures", worst), ("Best pictures", best)):
        if ratings:
            report.pictures(
                heading, [truth_beside_detections(split, truth, predictions, rating, score) for rating in ratings], note
            )
    return report


def figures(metrics: CocoMetrics) -> dict[str, float | None]:
    """The twelve numbers by COCO's names."""
    return {name.removeprefix(f"{metrics.task}/"): defined(value) for name, value in metrics.numbers.items()}


def class_rows(metrics: CocoMetrics) -> list[tuple[Cell, ...]]:
    """A row per class for the columns COLUMNS."""
    return [
        (
            *(one.name, one.truths, one.detections),
            *map(defined, (one.ap, one.ap50, one.ap75, one.small, one.medium, one.large, one.recall)),
        )
        for one in metrics.classes
    ]


def defined(value: float) -> float | None:
    """None for COCO's -1, which means that there is nothing to measure."""
    return value if value >= 0 else None
