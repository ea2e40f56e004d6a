"""Quantize: trace the detector once, observe it on training pictures, measure each convolution, and decide what becomes INT8."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import onnx

from pipeline.data.dataset import Split, open_dataset
from pipeline.deploy.count import Counts, count_int8
from pipeline.deploy.host import reduced_range
from pipeline.deploy.onnx import export_onnx
from pipeline.deploy.quantization import Feed, Pictures, calibrate, plan, quantized, read_ranges
from pipeline.deploy.raw_heads import region_feed
from pipeline.deploy.recipe import Recipe
from pipeline.deploy.selection import Choice, HeldPictures, choose, most_in_float, require_share
from pipeline.deploy.sensitivity import Bench, Sensitivities
from pipeline.detector.weights import Loaded, load_detector
from pipeline.evaluation.inference import merging_of, network_input
from pipeline.evaluation.truth import Truth
from pipeline.files import staged, write_json
from pipeline.predict.preprocess import read_image
from pipeline.progress import Progress
from pipeline.report import Report
from pipeline.settings import QuantizeStage
from pipeline.training.device import prepare_device


def run(cfg: QuantizeStage) -> None:
    """models/detector, data/validated -> models/quantized {detector.onnx, ranges, sensitivities, recipe .json}, reports/quantize.

    GateError when the loss on held pictures does not hold with `quantize.share_least` in INT8; models/quantized stays as it was.
    """
    prepare_device(cfg.compute, cfg.seed)
    detector, dataset = load_detector(cfg.layout.detector, cfg.trusted), open_dataset(cfg.layout.validated)
    train = dataset.split("train")
    pictures = Pictures.draw(len(train.images), cfg.quantize, cfg.seed)
    feed = partial(feeds, train, detector=detector, complete=region_feed(detector.model))
    work = cfg.compute.threads_each()

    with staged(cfg.layout.quantized) as out:
        graph, ranges = out / "detector.onnx", out / "ranges.json"
        export_onnx(detector.model, graph, cfg.quantize.opset)
        calibrate(graph, partial(feed, pictures.calibration), cfg.quantize.calibrator, ranges)
        model = onnx.load(str(graph))
        planned = partial(plan, model, cfg.quantize, reduced_range(cfg.quantize.reduce_range))
        everything = planned()
        require_share(len(everything.quantized), len(everything.quantized + everything.kept_float), cfg.quantize)

        bench = Bench.of(model, feed(pictures.few), read_ranges(ranges), work)
        with Progress("quantize: convolutions measured", len(everything.quantized)) as progress:
            sensitivities = bench.layers(everything, lambda done: progress.show(done, ""))
        held = train.take_images(list(pictures.held))
        truth = Truth.of(held, dataset.info.categories, detector.cfg.tasks, cfg.evaluate.keypoint_sigma)
        merging = merging_of(detector.cfg, [category["id"] for category in detector.stuff])
        judge = HeldPictures(held, truth, detector.cfg.input, detector.model.divisor, work, merging)
        most = most_in_float(everything, cfg.quantize.share_least)
        choice = choose(
            sensitivities.worst_first(), most, cfg.quantize.held_loss, lambda kept: judge.losses(graph, ranges, planned(kept))
        )

        recipe = planned(choice.last.kept_float)
        counts = count_int8(quantized(model, bench.ranges, recipe))
        result = Result(recipe, counts, sensitivities, bench.whole(recipe), choice, pictures)
        write_page(cfg, result)
        choice.require(recipe, cfg.quantize, sensitivities)
        require_share(counts.weights_int8, counts.weights, cfg.quantize)
        recipe.write(out / "recipe.json")
        write_json(out / "sensitivities.json", result.sensitivity())
    write_json(cfg.layout.reports("quantize") / "metrics.json", result.figures())


@dataclass(frozen=True, slots=True)
class Result:
    """What the stage found."""

    recipe: Recipe
    counts: Counts
    sensitivities: Sensitivities
    sqnr: dict[str, float]
    choice: Choice
    pictures: Pictures

    def sensitivity(self) -> dict[str, object]:
        """sensitivities.json: SQNR in dB, each convolution alone and the whole file, and the trials that led to the recipe."""
        return {
            "measured_at": self.sensitivities.ends,
            "layers": self.sensitivities.layers,
            "whole": self.sqnr,
            "trials": [{"kept_float": trial.kept_float, "held_loss": trial.losses} for trial in self.choice.trials],
        }

    def figures(self) -> dict[str, float]:
        """Flat figures for metrics.json."""
        figures: dict[str, float] = {
            "quantize/convolutions": self.counts.weights,
            "quantize/convolutions_int8": self.counts.weights_int8,
            "quantize/share_int8": self.counts.share,
            "quantize/share_int8_nodes": self.counts.share_nodes,
            "quantize/reduce_range": int(self.recipe.reduce_range),
            "quantize/calibration_pictures": len(self.pictures.calibration),
            "quantize/held_pictures": len(self.pictures.held),
        }
        figures |= {f"quantize/{name}/sqnr": value for name, value in self.sqnr.items()}
        return figures | {f"quantize/{name}/held_loss": value for name, value in self.choice.last.losses.items()}


def write_page(cfg: QuantizeStage, result: Result) -> None:
    """The page, also when the stage fails: the shares, every convolution by sensitivity, and the trials."""
    recipe, counts = result.recipe, result.counts
    subtitle = f"Calibrated by {recipe.calibrator} on {len(result.pictures.calibration)} training pictures"
    page = Report("Quantization", subtitle)
    page.facts(
        {
            "Convolutions in INT8": f"{counts.weights_int8} of {counts.weights} ({counts.share:.0%})",
            "Runs of them in INT8": f"{counts.nodes_int8} of {counts.nodes} ({counts.share_nodes:.0%})",
            "SQNR on this host": f"{result.sqnr['int8']:.1f} dB",
            "SQNR as exact integers": f"{result.sqnr['int8_exact']:.1f} dB",
            "Weights": "7 bits" if recipe.reduce_range else "8 bits",
        }
    )
    page.text(
        "",
        f"Width of weights: {recipe.reduce_range_why}. Another kind of host may choose otherwise, and write another file.",
        "A convolution that serves several pyramid levels counts once, and runs once per level.",
    )
    page.table(
        "Trials",
        ("in float", "loss of AP on this host", "loss of AP as exact integers"),
        [(len(trial.kept_float), trial.losses["int8"], trial.losses["int8_exact"]) for trial in result.choice.trials],
        f"On {len(result.pictures.held)} training pictures that were not calibrated on; {cfg.quantize.held_loss:g} is allowed.",
    )
    rows = [
        (name, result.sensitivities.layers[name], "float: most sensitive" if name in recipe.kept_float else "INT8")
        for name in result.sensitivities.worst_first()
    ]
    asked = [
        (name, None, "float: quantize.float_layers") for name in recipe.kept_float if name not in result.sensitivities.layers
    ]
    page.table(
        "Convolutions, the most sensitive first",
        ("weight", "SQNR, dB", "runs in"),
        [*rows, *asked],
        f"Each alone in INT8, on {len(result.pictures.few)} pictures, measured at: {', '.join(result.sensitivities.ends)}.",
    )
    page.write(cfg.layout.reports("quantize") / "index.html")


def feeds(split: Split, rows: Sequence[int], *, detector: Loaded, complete: Callable[[Feed], Feed]) -> Iterator[Feed]:
    """One picture at a time as the exported graph takes it; `complete` adds what the file of raw heads takes beside."""
    model = detector.model
    for row in rows:
        images = [read_image(split.path(row))]
        yield complete(network_input(split, [row], images, detector.cfg.input, model.divisor, model.takes_proposals))
