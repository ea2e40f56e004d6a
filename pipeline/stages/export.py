"""Export: write the files to ship, and prove them equal to the detector before anyone can use them."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import onnx

from pipeline.data.dataset import Dataset, Split, open_dataset
from pipeline.deploy.card import Facts, model_card
from pipeline.deploy.count import Counts, count_int8
from pipeline.deploy.latency import PREFIX, milliseconds
from pipeline.deploy.parity import REFERENCE, Parity
from pipeline.deploy.quantization import write_int8
from pipeline.deploy.recipe import Recipe, read_recipe
from pipeline.detector.weights import Loaded, load_detector, read_training
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.inference import Backend, TorchBackend, merging_of, network_input, predict_with, require_classes
from pipeline.evaluation.map_pictures import found_panel
from pipeline.evaluation.pictures import beside
from pipeline.evaluation.tasks import evaluate_all
from pipeline.evaluation.truth import Truth
from pipeline.files import digest_file, staged, write_atomically, write_json
from pipeline.layout import TIMING
from pipeline.predict.preprocess import read_image
from pipeline.predict.session import OnnxBackend
from pipeline.report import Report
from pipeline.settings import ExportStage
from pipeline.tasks import TITLE
from pipeline.training.device import prepare_device

FILES = {"onnx": "detector.onnx", "int8": "detector.int8.onnx"}


def run(cfg: ExportStage) -> None:
    """models/detector, models/quantized, data/validated -> models/onnx, reports/export.

    GateError when a file misses `cfg.export.gate`; models/onnx is then left as it was.
    """
    device = prepare_device(cfg.compute, seed=0)
    detector = load_detector(cfg.layout.detector, cfg.trusted)
    dataset = open_dataset(cfg.layout.validated)
    split = dataset.split(cfg.evaluate.split)
    require_classes(detector, dataset, cfg.layout.validated)
    recipe = read_recipe(cfg.layout.quantized / "recipe.json")

    with staged(cfg.layout.onnx) as out:
        shutil.copyfile(cfg.layout.quantized / "detector.onnx", out / FILES["onnx"])
        write_int8(out / FILES["onnx"], cfg.layout.quantized / "ranges.json", recipe, out / FILES["int8"])
        backends: dict[str, Backend] = {"torch": TorchBackend(detector.model.to(device), device.type)}
        work = cfg.compute.threads_each()
        backends |= {name: OnnxBackend(out / file, work) for name, file in FILES.items()}
        # The same file as hosts with exact integer products run it: a loss there counts as much as one here.
        backends["int8_exact"] = OnnxBackend(out / FILES["int8"], work, optimize=False)
        found = {name: predict_with(run, detector, split, cfg.export.batch, f"export: {name}") for name, run in backends.items()}
        truth = Truth.of(split, dataset.info.categories, detector.cfg.tasks, cfg.evaluate.keypoint_sigma)
        parities = compare(truth, found, cfg)
        write_json(out / "deploy.json", description(detector, out, parities))
        facts = card_facts(cfg, detector, dataset, parities, recipe, count_int8(onnx.load(str(out / FILES["int8"]))))
        write_atomically(out / "model_card.md", model_card(facts).encode())
        write_page(cfg, split, truth, found, parities)
        for parity in parities:
            parity.require(cfg.export.gate)
            if parity.proves_nothing():
                print(
                    f"export: {TITLE[parity.task]} are not found at all by the detector as trained: "
                    "its files' gate proves nothing"
                )
        latencies = {file: latency(backends[name], split, detector) for name, file in FILES.items()}
    figures = {name: value for parity in parities for name, value in parity.figures().items()}
    write_json(cfg.layout.reports("export") / "metrics.json", figures)
    write_json(cfg.layout.reports("export") / TIMING, {f"{PREFIX}{name}": value for name, value in latencies.items()})


def card_facts(
    cfg: ExportStage, detector: Loaded, dataset: Dataset, parities: Sequence[Parity], recipe: Recipe, counts: Counts
) -> Facts:
    """What the model card is written from."""
    return Facts(
        model=asdict(detector.cfg),
        training=read_training(cfg.layout.detector),
        dataset=dataset,
        split=cfg.evaluate.split,
        parities=parities,
        recipe=recipe,
        counts=counts,
        parameters=sum(parameter.numel() for parameter in detector.model.parameters()),
    )


def latency(backend: Backend, split: Split, detector: Loaded) -> float:
    """Milliseconds of the first picture of `split` in the backend."""
    model, picture = detector.model, read_image(split.path(0))
    feed = network_input(split, [0], [picture], detector.cfg.input, model.divisor, model.takes_proposals)
    return milliseconds(lambda: backend(*feed.values()))


def compare(truth: Truth, found: dict[str, Predictions], cfg: ExportStage) -> list[Parity]:
    """The backends side by side: task by task."""
    measured = {
        name: evaluate_all(truth, predictions, cfg.evaluate.engine, cfg.evaluate.max_detections)
        for name, predictions in found.items()
    }
    return [Parity({name: metrics[task] for name, metrics in measured.items()}) for task in measured[REFERENCE]]


def description(detector: Loaded, out: Path, parities: Sequence[Parity]) -> dict[str, object]:
    """deploy.json: all that a program needs to run the files, and what was measured about them."""
    measured: dict[str, dict[str, object]] = {name: {} for name in parities[0].metrics}
    for parity in parities:
        for name, metrics in parity.metrics.items():
            by_class = "per_class" if parity.task == "bbox" else f"per_class_{parity.task}"
            measured[name] |= {**metrics.numbers, by_class: metrics.per_class}
    maps: dict[str, object] = {}
    if "semantic" in detector.cfg.tasks:
        merging = merging_of(detector.cfg, [category["id"] for category in detector.stuff])
        maps = {"semantic": detector.semantic, "stuff": detector.stuff, "merging": merging and asdict(merging)}
    keypoints: dict[str, object] = {}
    if "keypoints" in detector.cfg.tasks:
        own = [category.get("skeleton", []) for category in detector.categories]
        keypoints = {
            "keypoints": [category.get("keypoints", []) for category in detector.categories],
            "skeletons": [[[a - 1, b - 1] for a, b in pairs] for pairs in own],
        }
    return {
        "input": asdict(detector.cfg.input),
        "divisor": detector.model.divisor,
        "classes": [category["name"] for category in detector.categories],
        "category_ids": [category["id"] for category in detector.categories],
        **maps,
        **keypoints,
        "files": {name: {"file": file, "digest": digest_file(out / file)} for name, file in FILES.items()},
        "tasks": list(detector.cfg.tasks),
        "outputs": [output.name for output in onnx.load(str(out / FILES["onnx"]), load_external_data=False).graph.output],
        "parity": measured,
    }


def write_page(cfg: ExportStage, split: Split, truth: Truth, found: dict[str, Predictions], parities: Sequence[Parity]) -> None:
    """The page, also when the gate is missed: AP of the three side by side, per class, and their finds on the same pictures."""
    page = Report("Export", "torch, the float ONNX file and the INT8 file on the same validation pictures")
    names = list(found)
    for parity in parities:
        shown_figures = parity.metrics[REFERENCE].shown
        page.table(
            TITLE[parity.task].capitalize(),
            ("figure", *names),
            [(figure, *(parity.metrics[name].figure(figure) for name in names)) for figure in shown_figures],
        )
        per_class = {name: parity.metrics[name].per_class for name in names}
        classes = [(label, *(per_class[name].get(label) for name in names)) for label in per_class[REFERENCE]]
        page.table(f"{parity.figure} per class", ("class", *names), classes)
    shown_backends = (REFERENCE, *FILES)
    score = cfg.evaluate.drawing_score
    shown = [
        (
            beside([found_panel(split, truth, found[name], row, score) for name in shown_backends]),
            split.images.file_names[row],
        )
        for row in range(min(cfg.export.pictures, len(split.images)))
    ]
    page.pictures("The same pictures", shown, f"{', '.join(shown_backends)}, from left to right; scores of at least {score:g}.")
    page.write(cfg.layout.reports("export") / "index.html")
