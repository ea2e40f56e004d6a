"""Export: write the files to ship, and prove them equal to the detector before anyone can use them."""

import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path

from pipeline.data.dataset import Split, open_dataset
from pipeline.deploy.parity import Parity
from pipeline.deploy.quantization import read_recipe, write_int8
from pipeline.detector.weights import Loaded, load_detector
from pipeline.evaluation.coco import evaluate_boxes
from pipeline.evaluation.inference import Backend, Predictions, TorchBackend, predict_split
from pipeline.files import digest_file, staged, write_json
from pipeline.predict.session import OnnxBackend
from pipeline.report import Report
from pipeline.settings import ExportStage
from pipeline.training.device import prepare_device, threads
from pipeline.training.progress import Progress

FILES = {"onnx": "detector.onnx", "int8": "detector.int8.onnx"}


def run(cfg: ExportStage) -> None:
    """models/detector, models/quantized, data/validated -> models/onnx, reports/export.

    GateError when a file misses `cfg.export.gate`; models/onnx is then left as it was.
    """
    device = prepare_device(cfg.compute, seed=0)
    detector = load_detector(cfg.layout.detector)
    dataset = open_dataset(cfg.layout.validated)
    split = dataset.split(cfg.evaluate.split)
    recipe = read_recipe(cfg.layout.quantized / "recipe.json")

    with staged(cfg.layout.onnx) as out:
        shutil.copyfile(cfg.layout.quantized / "detector.onnx", out / FILES["onnx"])
        write_int8(out / FILES["onnx"], cfg.layout.quantized / "ranges.json", recipe, out / FILES["int8"])
        backends: dict[str, Backend] = {"torch": TorchBackend(detector.model.to(device), device.type)}
        backends |= {name: OnnxBackend(out / file, threads=threads(cfg.compute)) for name, file in FILES.items()}
        found = {name: predict(name, backend, split, detector, cfg) for name, backend in backends.items()}
        measure = partial(evaluate_boxes, split, dataset.info.categories, engine=cfg.evaluate.engine)
        parity = Parity({name: measure(found[name], max_detections=cfg.evaluate.max_detections) for name in found})
        write_json(out / "deploy.json", description(detector, out, parity))
        write_reports(cfg, detector, split, found, parity)
        parity.require(cfg.export.gate)


def predict(name: str, backend: Backend, split: Split, detector: Loaded, cfg: ExportStage) -> Predictions:
    """One backend's detections over the split, on the same prepared pictures as the others."""
    ids = [category["id"] for category in detector.categories]
    with Progress(f"export: {name}", len(split.images.file_names)) as progress:
        return predict_split(
            backend,
            split,
            detector.cfg.input,
            detector.model.divisor,
            cfg.export.batch,
            ids,
            lambda done, _: progress.show(done, ""),
        )


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


def write_reports(cfg: ExportStage, detector: Loaded, split: Split, found: dict[str, Predictions], parity: Parity) -> None:
    """metrics.json and the page: AP of the three side by side, per class, and their boxes on the same pictures."""
    reports = cfg.layout.reports("export")
    write_json(reports / "metrics.json", parity.figures())
    page = Report("Export", "torch, the float ONNX file and the INT8 file on the same validation pictures")
    names = list(parity.metrics)
    rows = [
        (number, *(f"{parity.metrics[name].numbers[number]:.4f}" for name in names))
        for number in ("bbox/AP", "bbox/AP50", "bbox/AP75")
    ]
    page.table("Average precision", ("figure", *names), rows)
    per_class = {name: parity.metrics[name].per_class for name in names}
    page.table(
        "AP per class",
        ("class", *names),
        [(label, *(f"{per_class[name][label]:.4f}" for name in names)) for label in per_class["torch"]],
    )
    page.write(reports / "index.html")
