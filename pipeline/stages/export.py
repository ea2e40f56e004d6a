"""Export: write the files to ship, and prove them equal to the detector before anyone can use them."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pipeline.data.dataset import Dataset, open_dataset
from pipeline.deploy.parity import Parity
from pipeline.deploy.quantization import read_recipe, write_int8
from pipeline.detector.weights import Loaded, load_detector
from pipeline.evaluation.coco import BoxTruth, evaluate_boxes
from pipeline.evaluation.inference import Backend, Predictions, TorchBackend, predict_with, require_classes
from pipeline.evaluation.pictures import beside, detection_panel
from pipeline.files import digest_file, staged, write_json
from pipeline.predict.session import OnnxBackend
from pipeline.report import Report
from pipeline.settings import ExportStage
from pipeline.training.device import prepare_device

FILES = {"onnx": "detector.onnx", "int8": "detector.int8.onnx"}


def run(cfg: ExportStage) -> None:
    """models/detector, models/quantized, data/validated -> models/onnx, reports/export.

    GateError when a file misses `cfg.export.gate`; models/onnx is then left as it was.
    """
    device = prepare_device(cfg.compute, seed=0)
    detector = load_detector(cfg.layout.detector)
    dataset = open_dataset(cfg.layout.validated)
    split = dataset.split(cfg.evaluate.split)
    require_classes(detector, dataset, cfg.layout.validated)
    recipe = read_recipe(cfg.layout.quantized / "recipe.json")

    with staged(cfg.layout.onnx) as out:
        shutil.copyfile(cfg.layout.quantized / "detector.onnx", out / FILES["onnx"])
        write_int8(out / FILES["onnx"], cfg.layout.quantized / "ranges.json", recipe, out / FILES["int8"])
        backends: dict[str, Backend] = {"torch": TorchBackend(detector.model.to(device), device.type)}
        backends |= {name: OnnxBackend(out / file, threads=cfg.compute.threads_each()) for name, file in FILES.items()}
        found = {name: predict_with(run, detector, split, cfg.export.batch, f"export: {name}") for name, run in backends.items()}
        measure = partial(evaluate_boxes, split, dataset.info.categories, engine=cfg.evaluate.engine)
        parity = Parity({name: measure(found[name], max_detections=cfg.evaluate.max_detections) for name in found})
        write_json(out / "deploy.json", description(detector, out, parity))
        write_page(cfg, dataset, found, parity)
        parity.require(cfg.export.gate)
    write_json(cfg.layout.reports("export") / "metrics.json", parity.figures())


def description(detector: Loaded, out: Path, parity: Parity) -> dict[str, object]:
    """deploy.json: all that a program needs to run the files, and what was measured about them."""
    return {
        "input": asdict(detector.cfg.input),
        "divisor": detector.model.divisor,
        "classes": [category["name"] for category in detector.categories],
        "category_ids": [category["id"] for category in detector.categories],
        "files": {name: {"file": file, "digest": digest_file(out / file)} for name, file in FILES.items()},
        "parity": {name: {**metrics.numbers, "per_class": metrics.per_class} for name, metrics in parity.metrics.items()},
    }


def write_page(cfg: ExportStage, dataset: Dataset, found: dict[str, Predictions], parity: Parity) -> None:
    """The page, also when the gate is missed: AP of the three side by side, per class, and their boxes on the same pictures."""
    page = Report("Export", "torch, the float ONNX file and the INT8 file on the same validation pictures")
    names = list(parity.metrics)
    numbers = {name: parity.metrics[name].numbers for name in names}
    figures = [(figure, *(numbers[name][figure] for name in names)) for figure in ("bbox/AP", "bbox/AP50", "bbox/AP75")]
    page.table("Average precision", ("figure", *names), figures)
    per_class = {name: parity.metrics[name].per_class for name in names}
    classes = [(label, *(per_class[name].get(label) for name in names)) for label in per_class["torch"]]
    page.table("AP per class", ("class", *names), classes)
    split = dataset.split(cfg.evaluate.split)
    truth, score = BoxTruth.of(split, dataset.info.categories), cfg.evaluate.drawing_score
    shown = [
        (beside([detection_panel(split, truth, found[name], row, score) for name in names]), split.images.file_names[row])
        for row in range(min(cfg.export.pictures, len(split.images)))
    ]
    page.pictures("The same pictures", shown, f"{', '.join(names)}, from left to right; scores of at least {score:g}.")
    page.write(cfg.layout.reports("export") / "index.html")
