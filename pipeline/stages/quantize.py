"""Quantize: trace the detector once, observe its activations on training pictures, and decide what becomes INT8."""

from collections.abc import Iterator, Sequence

from pipeline.data.dataset import Split, open_dataset
from pipeline.deploy.onnx import export_onnx
from pipeline.deploy.quantization import Feed, calibrate, plan, sample
from pipeline.detector.config import InputConfig
from pipeline.detector.weights import load_detector
from pipeline.files import staged, write_json
from pipeline.predict.preprocess import prepare, read_image, stack
from pipeline.report import Report
from pipeline.settings import QuantizeStage
from pipeline.training.device import prepare_device


def run(cfg: QuantizeStage) -> None:
    """models/detector, data/validated -> models/quantized {detector.onnx, ranges.json, recipe.json}, reports/quantize."""
    prepare_device(cfg.compute, cfg.seed)
    detector = load_detector(cfg.layout.detector)
    train = open_dataset(cfg.layout.validated).split("train")
    rows = sample(len(train.images.file_names), cfg.quantize.pictures, cfg.seed)

    with staged(cfg.layout.quantized) as out:
        graph = out / "detector.onnx"
        export_onnx(detector.model, graph, cfg.quantize.opset)
        recipe = plan(graph, cfg.quantize)
        calibrate(graph, feeds(train, rows, detector.cfg.input, detector.model.divisor), cfg.quantize, out / "ranges.json")
        recipe.write(out / "recipe.json")

    figures = {
        "quantize/convolutions_int8": len(recipe.quantized),
        "quantize/convolutions_float": len(recipe.kept_float),
        "quantize/share_int8": recipe.share,
        "quantize/calibration_pictures": len(rows),
    }
    reports = cfg.layout.reports("quantize")
    write_json(reports / "metrics.json", figures)
    page = Report("Quantization", f"Calibrated by {recipe.calibrator} on {len(rows)} training pictures")
    page.facts(
        {"Convolutions in INT8": f"{len(recipe.quantized)} ({recipe.share:.0%})", "Convolutions in float": len(recipe.kept_float)}
    )
    page.table(
        "Convolutions in float",
        ("weight", "why"),
        [
            (name, "first layer" if place == 0 else "quantize.float_layers or float_depthwise")
            for place, name in enumerate(recipe.kept_float)
        ],
    )
    page.write(reports / "index.html")


def feeds(split: Split, rows: Sequence[int], input: InputConfig, divisor: int) -> Iterator[Feed]:
    """One picture at a time as the exported graph takes it."""
    for row in rows:
        pixels_N3HW, sizes_N2 = stack([prepare(read_image(split.path(row)), input)], divisor)
        yield {"pixels": pixels_N3HW, "sizes": sizes_N2}
