"""python -m pipeline monitor PICTURES [overrides]: whether new pictures differ from what the detector knows, beyond chance.

Exit 0 when they do not, 3 when they do.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import settings, tracking
from pipeline.errors import ConfigError, UserError
from pipeline.layout import Layout

if TYPE_CHECKING:
    from pipeline.monitor.config import MonitorConfig
    from pipeline.monitor.drift import Verdict
    from pipeline.monitor.observations import Observations
    from pipeline.monitor.reference import Watched
    from pipeline.report import Report
    from pipeline.settings import Settings

USAGE = """usage: python -m pipeline monitor PICTURES [overrides]

Compares the pictures of the folder PICTURES, and what the detector finds there, with the validation pictures of data/validated.
overrides such as monitor.false_alarms=0.05 change conf/monitor/default.yaml. Writes reports/monitor.
exit status: 0 no difference beyond chance, 3 drift, 1 it could not be told, 2 a wrong setting"""
DRIFT = 3
READING = (
    "The reference are held-out pictures, which stand for the training set: on pictures that it was trained on a detector can"
    " be over-confident, and any other picture would then look like drift.",
    "Pictures must be independent shots. Frames of one film are alike, and raise alarms more often than the rate says.",
    "Drift says that pictures differ, not that the detector got worse: label some of the new pictures and evaluate.",
)
BUSY = "monitor: another process is at work in this checkout; wait for it, or stop it"


@dataclass(frozen=True, slots=True)
class Monitored:
    """What was compared, and what came out."""

    folder: Path
    verdict: "Verdict"
    new: "Observations"
    known: "Observations"
    paths: dict[str, Path]
    """Every picture of the folder, by name."""
    unreadable: list[str]
    """What is wrong with those left out."""
    watched: "Watched"
    cfg: "MonitorConfig"

    @property
    def sides(self) -> str:
        """What was compared with what, in words."""
        return f"{len(self.new)} new pictures of {self.folder.name} against {len(self.known)} of {' and '.join(self.cfg.splits)}"

    @property
    def outcome(self) -> str:
        """The verdict in words."""
        return f"drift in {', '.join(self.verdict.drifted)}" if self.verdict.drifted else "no drift"

    def summary(self) -> dict[str, Any]:
        """monitor.json: the verdict, each statistic, and what was compared with what."""
        return {
            "drift": bool(self.verdict.drifted),
            "outcome": f"{self.outcome}: {self.sides}",
            "drifted": list(self.verdict.drifted),
            "statistics": [asdict(one) for one in self.verdict.compared],
            "false_alarms": self.cfg.false_alarms,
            "permutations": self.cfg.permutations,
            "pictures": {"found": len(self.paths), "compared": len(self.new), "unreadable": self.unreadable},
            "reference": {"splits": list(self.cfg.splits), "compared": len(self.known)},
            "detector": {"from": self.cfg.detector, "digest": self.watched.digest, "layer": self.watched.layer},
        }


def run(arguments: Sequence[str]) -> int:
    """PICTURES, models/onnx, data/validated -> reports/monitor: monitor.json, metrics.json, index.html; and an MLflow run.

    UserError when a set is too small, or the detector or the dataset is missing.
    """
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    if not arguments:
        raise ConfigError("monitor", None, f"needs the folder of the new pictures\n  {USAGE.splitlines()[0]}")
    from pipeline.files import locked
    from pipeline.monitor.drift import require_enough
    from pipeline.monitor.reference import pictures_below

    folder, chosen, layout = Path(arguments[0]), settings.load(arguments[1:]), Layout()
    require_enough(len(pictures_below(folder)), "new", chosen.monitor.least)  # before MLflow is started for nothing
    with locked(layout.work("monitor") / "lock", BUSY), tracking.stage_run("monitor", chosen, layout):
        monitored = compare(folder, chosen, layout)
        write(monitored, layout)
    say(monitored)
    print(f"look at {layout.reports('monitor') / 'index.html'}")
    if not monitored.verdict.drifted:
        return 0
    if chosen.monitor.emit:
        announce(monitored, layout)
    return DRIFT


def compare(folder: Path, chosen: "Settings", layout: Layout) -> Monitored:
    """Measure the pictures of `folder`, and test them against the reference."""
    from pipeline.monitor.drift import judge
    from pipeline.monitor.observations import observe
    from pipeline.monitor.reference import drawn, pictures_below, reference, watch
    from pipeline.progress import Progress

    cfg = chosen.monitor
    found = pictures_below(folder)
    watched = watch(detector_folder(chosen, layout), layout, chosen.compute.threads)
    known = reference(watched, layout, cfg, chosen.seed)
    pictures = drawn(found, cfg.most, chosen.seed)
    with Progress("monitor: new pictures", len(pictures)) as progress:
        new, unreadable = observe(watched.detector, pictures, cfg.low_score, progress.show)
    verdict = judge(new, known, cfg, len(watched.detector.classes), chosen.seed)
    return Monitored(folder, verdict, new, known, dict(found), unreadable, watched, cfg)


def detector_folder(chosen: "Settings", layout: Layout) -> Path:
    """The folder with deploy.json and the ONNX files of the detector that is asked for."""
    if chosen.monitor.detector == "local":
        return layout.onnx
    if not chosen.tracking.enabled:
        raise ConfigError("monitor.detector", "champion", "is in MLflow's registry, and tracking is off")
    from pipeline.commands.champion import found

    champion = found(chosen, layout, fetch=True)
    if champion is None:
        place = f"models:/{chosen.tracking.model}@{chosen.retrain.alias}"
        raise UserError(
            f"monitor.detector=champion: {place}: there is no champion yet\n"
            "  python -m flows.retrain makes the first; another detector by monitor.detector=local"
        )
    return Path(champion["folder"])


def write(monitored: Monitored, layout: Layout) -> None:
    """reports/monitor, whole or not at all."""
    from pipeline.files import staged, write_json

    with staged(layout.reports("monitor")) as out:
        write_json(out / "monitor.json", monitored.summary())
        write_json(out / "metrics.json", monitored.verdict.figures())
        page(monitored).write(out / "index.html")


def announce(monitored: Monitored, layout: Layout) -> None:
    """Emit the event that the deployment of retraining listens to."""
    from pipeline.data.dataset import read_info
    from pipeline.events import DRIFTED, RESOURCE, emit

    info = read_info(layout.validated)
    payload = {"drifted": list(monitored.verdict.drifted), "pictures": len(monitored.new), "detector": monitored.watched.digest}
    emit(DRIFTED, f"{RESOURCE}{info.source}", payload | {"dataset": info.digest})


def say(monitored: Monitored) -> None:
    """The verdict as lines of text."""
    for wrong in monitored.unreadable:
        print(f"left out: {wrong}")
    width = max(len(one.name) for one in monitored.verdict.compared)
    for one in monitored.verdict.compared:
        means = "" if one.new is None or one.known is None else f"{one.known:.4g} -> {one.new:.4g}"
        figures = f"p {one.p:.4f}  corrected {one.adjusted:.4f}  effect {one.effect:.2f}"
        print(f"  {one.name:<{width}}  {figures}  {means:<20} {'DRIFT' if one.drifted else ''}".rstrip())
    print(f"monitor: {monitored.outcome}: {monitored.sides}, false-alarm rate {monitored.cfg.false_alarms:g}")


def page(monitored: Monitored) -> "Report":
    """The verdict as a page: the table, a figure per statistic, and the most unusual new pictures."""
    from pipeline.monitor.plots import overlaid
    from pipeline.report import Report

    verdict, new, known, cfg = monitored.verdict, monitored.new, monitored.known, monitored.cfg
    report = Report("Drift" if verdict.drifted else "No drift", monitored.sides)
    report.facts(
        {
            "statistics past the alarm": f"{len(verdict.drifted)} of {len(verdict.compared)}",
            "new pictures": len(new),
            "reference pictures": len(known),
            "unreadable": len(monitored.unreadable),
            "false-alarm rate": cfg.false_alarms,
        }
    )
    add_table(report, verdict, cfg)
    figures = [
        (
            overlaid(one, new, known, cfg, monitored.watched.detector.classes),
            f"{one.name}{': drift' if one.drifted else ''}\np {one.p:.4g}, corrected {one.adjusted:.4g}, effect {one.effect:.2f}",
        )
        for one in verdict.compared
    ]
    report.pictures("Histograms", figures, "Blue: reference. Red: new. Of what the detector finds, not of what is there.")
    if cfg.unusual:
        note = "Farthest from the reference by what the detector sees in the whole picture; 1 is a usual distance."
        report.pictures("Most unusual new pictures", unusual_pictures(monitored), note)
    if monitored.unreadable:
        report.table("Pictures that could not be read", ["what is wrong"], [[wrong] for wrong in monitored.unreadable])
    report.text("How to read it", *READING)
    return report


def add_table(report: "Report", verdict: "Verdict", cfg: "MonitorConfig") -> None:
    """A row per statistic."""
    from pipeline.monitor.drift import MEANING
    from pipeline.report import Badge

    badge = {True: Badge("drift", "error"), False: Badge("no alarm", "good")}
    columns = ["statistic", "what it is", "reference", "new", "effect", "p", "corrected p", "verdict"]
    rows = [
        [*(one.name, MEANING[one.name], one.known, one.new, one.effect, one.p, one.adjusted), badge[one.drifted]]
        for one in verdict.compared
    ]
    report.table(
        "Statistics",
        columns,
        rows,
        "Reference and new are means. Effect: 0 (equal) to 1 (apart). p: permutation test of whole pictures; corrected by Holm"
        f" over all rows, so that sets that differ by chance alone raise an alarm in at most {cfg.false_alarms:.3g} of cases.",
    )


def unusual_pictures(monitored: Monitored) -> "list[tuple[Any, str]]":
    """The new pictures farthest from the reference, with what is found there, and how their light compares."""
    import numpy as np

    from pipeline.monitor.drift import strangeness
    from pipeline.monitor.observations import LOOKS
    from pipeline.predict.draw import class_colour, draw_boxes
    from pipeline.predict.preprocess import read_image

    new, known, cfg = monitored.new, monitored.known, monitored.cfg
    strange_N = strangeness(new, known)
    shown = []
    for row in np.argsort(-strange_N, kind="stable")[: cfg.unusual].tolist():
        image_HW3 = read_image(monitored.paths[new.names[row]])
        found = monitored.watched.detector.predict(image_HW3, cfg.score)
        captions = [f"{name} {score:.2f}" for name, score in zip(found.classes, found.scores_D, strict=True)]
        drawn = draw_boxes(image_HW3, found.boxes_D4, captions, [class_colour(label) for label in found.labels_D.tolist()])
        lower = [float((known.looks_N3[:, column] < new.looks_N3[row, column]).mean()) for column in range(len(LOOKS))]
        light = "\n".join(f"{name} above {share:.0%} of the reference" for name, share in zip(LOOKS, lower, strict=True))
        shown.append((drawn, f"{new.names[row]}\ndistance {strange_N[row]:.2f}\n{light}"))
    return shown
