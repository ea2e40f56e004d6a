"""python -m pipeline monitor PICTURES [overrides]: whether new pictures differ from what the detector knows, beyond chance.

Exit 0 when they do not, 3 when they do.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import settings
from pipeline.errors import ConfigError, UserError
from pipeline.layout import Layout

if TYPE_CHECKING:
    from pipeline.monitor.config import MonitorConfig
    from pipeline.monitor.drift import Verdict
    from pipeline.monitor.observations import Observations
    from pipeline.monitor.reference import Pictures, Watched
    from pipeline.report import Report
    from pipeline.settings import Settings

USAGE = """usage: python -m pipeline monitor PICTURES [overrides]

Compares the pictures of the folder PICTURES, and what the detector finds there, with the validation pictures of data/validated.
overrides such as monitor.false_alarms=0.05 change conf/monitor/default.yaml. Writes reports/monitor.
exit status: 0 no difference beyond chance, 3 drift, 1 it could not be told, 2 a wrong setting"""
DRIFT = 3
BUSY = "monitor: another process is at work in this checkout; wait for it, or stop it"


def run(arguments: Sequence[str]) -> int:
    """PICTURES, models/onnx, data/validated -> reports/monitor: monitor.json, index.html; an MLflow run when tracking is on.

    UserError when a set is too small, or the detector or the dataset is missing.
    """
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    if not arguments:
        raise ConfigError("monitor", None, f"needs the folder of the new pictures\n  {USAGE.splitlines()[0]}")
    from pipeline.files import locked

    chosen, layout = settings.load(arguments[1:]), Layout()
    with locked(layout.work("monitor") / "lock", BUSY):
        return compare(Path(arguments[0]), chosen, layout)


def compare(folder: Path, chosen: "Settings", layout: Layout) -> int:
    """The command, by settings that are already read."""
    from pipeline.files import staged, write_json
    from pipeline.monitor.drift import judge, require_enough
    from pipeline.monitor.observations import observe
    from pipeline.monitor.reference import drawn, pictures_below, reference, watch
    from pipeline.progress import Progress

    cfg = chosen.monitor
    found = pictures_below(folder)
    require_enough(len(found), "new", cfg.least)
    watched = watch(detector_folder(chosen, layout), layout, chosen.compute.threads)
    known = reference(watched, layout, cfg, chosen.seed)
    pictures = drawn(found, cfg.most, chosen.seed)
    with Progress("monitor: new pictures", len(pictures)) as progress:
        new, unreadable = observe(watched.detector, pictures, cfg.low_score, progress.show)
    verdict = judge(new, known, cfg, len(watched.detector.classes), chosen.seed)
    with staged(layout.reports("monitor")) as out:
        write_json(out / "monitor.json", summary(folder, verdict, new, known, len(found), unreadable, watched, cfg))
        page(folder, verdict, new, known, dict(found), unreadable, watched, cfg).write(out / "index.html")
    say(verdict, new, known, unreadable, cfg)
    print(f"look at {layout.reports('monitor') / 'index.html'}")
    return DRIFT if verdict.drifted else 0


def detector_folder(chosen: "Settings", layout: Layout) -> Path:
    """The folder with deploy.json and the ONNX files of the detector that is asked for."""
    if chosen.monitor.detector == "local":
        return layout.onnx
    raise UserError("monitor.detector=champion: not yet")


def summary(
    folder: Path,
    verdict: "Verdict",
    new: "Observations",
    known: "Observations",
    pictures: int,
    unreadable: Sequence[str],
    watched: "Watched",
    cfg: "MonitorConfig",
) -> dict[str, Any]:
    """monitor.json: the verdict, each statistic, and what was compared with what."""
    return {
        "drift": bool(verdict.drifted),
        "drifted": list(verdict.drifted),
        "statistics": [asdict(one) for one in verdict.compared],
        "false_alarms": cfg.false_alarms,
        "permutations": cfg.permutations,
        "pictures": {"folder": folder.name, "found": pictures, "compared": len(new), "unreadable": list(unreadable)},
        "reference": {"splits": list(cfg.splits), "compared": len(known)},
        "detector": {"from": cfg.detector, "digest": watched.digest, "layer": watched.layer},
    }


def say(verdict: "Verdict", new: "Observations", known: "Observations", unreadable: Sequence[str], cfg: "MonitorConfig") -> None:
    """The verdict as lines of text."""
    for wrong in unreadable:
        print(f"left out: {wrong}")
    width = max(len(one.name) for one in verdict.compared)
    for one in verdict.compared:
        mark = "DRIFT" if one.drifted else ""
        means = "" if one.new is None or one.known is None else f"{one.known:.4g} -> {one.new:.4g}"
        print(
            f"  {one.name:<{width}}  p {one.p:.4f}  corrected {one.adjusted:.4f}  effect {one.effect:.2f}  {means:<20} {mark}".rstrip()
        )
    sides = f"{len(new)} new pictures against {len(known)} of {' and '.join(cfg.splits)}"
    if verdict.drifted:
        print(f"monitor: drift in {', '.join(verdict.drifted)}: {sides}, false-alarm rate {cfg.false_alarms:g}")
    else:
        print(f"monitor: no drift: {sides}, false-alarm rate {cfg.false_alarms:g}")


def page(
    folder: Path,
    verdict: "Verdict",
    new: "Observations",
    known: "Observations",
    paths: "dict[str, Path]",
    unreadable: Sequence[str],
    watched: "Watched",
    cfg: "MonitorConfig",
) -> "Report":
    """The verdict as a page: the table, a figure per statistic, and the most unusual new pictures."""
    from pipeline.monitor.drift import MEANING
    from pipeline.monitor.plots import overlaid
    from pipeline.report import Badge, Report

    classes = watched.detector.classes
    sides = f"{len(new)} new pictures of {folder.name} against {len(known)} of {' and '.join(cfg.splits)}"
    report = Report("Drift" if verdict.drifted else "No drift", sides)
    report.facts(
        {
            "statistics past the alarm": f"{len(verdict.drifted)} of {len(verdict.compared)}",
            "new pictures": len(new),
            "reference pictures": len(known),
            "unreadable": len(unreadable),
            "false-alarm rate": cfg.false_alarms,
        }
    )
    report.table(
        "Statistics",
        ["statistic", "what it is", "reference", "new", "effect", "p", "corrected p", "verdict"],
        [
            [
                one.name,
                MEANING[one.name],
                one.known,
                one.new,
                one.effect,
                one.p,
                one.adjusted,
                Badge("drift", "error") if one.drifted else Badge("chance", "good"),
            ]
            for one in verdict.compared
        ],
        "Reference and new are means. Effect: 0 (equal) to 1 (apart). p: permutation test of whole pictures; corrected by Holm over"
        f" all statistics, so that sets that differ by chance alone raise an alarm in at most {cfg.false_alarms:.3g} of cases.",
    )
    drawn = [
        (
            overlaid(one, new, known, cfg, classes),
            f"{one.name}\np {one.p:.4g}, corrected {one.adjusted:.4g}, effect {one.effect:.2f}",
        )
        for one in verdict.compared
    ]
    report.pictures(
        "Histograms", drawn, "Blue: reference. Red: new. What the detector finds, where it says so, not what is there."
    )
    if cfg.unusual:
        unusual = unusual_pictures(new, known, paths, watched, cfg)
        report.pictures("Most unusual new pictures", unusual, "Farthest from the reference's vectors; 1 is a usual distance.")
    if unreadable:
        report.table("Pictures that could not be read", ["what is wrong"], [[wrong] for wrong in unreadable])
    report.text(
        "How to read it",
        "The reference are held-out pictures, which stand for the training set: on pictures that it was trained on a detector is"
        " over-confident, and any other picture would look like drift.",
        "Pictures must be independent shots. Frames of one film are alike, and raise alarms more often than the rate says.",
        "Drift says that pictures differ, not that the detector got worse: label some of the new pictures and evaluate.",
    )
    return report


def unusual_pictures(
    new: "Observations", known: "Observations", paths: "dict[str, Path]", watched: "Watched", cfg: "MonitorConfig"
) -> "list[tuple[Any, str]]":
    """The new pictures farthest from the reference, with what is found there, and how their light compares."""
    import numpy as np

    from pipeline.monitor.drift import strangeness
    from pipeline.monitor.observations import LOOKS
    from pipeline.predict.draw import class_colour, draw_boxes
    from pipeline.predict.preprocess import read_image

    strange_N = strangeness(new, known)
    shown = []
    for row in np.argsort(-strange_N, kind="stable")[: cfg.unusual].tolist():
        image_HW3 = read_image(paths[new.names[row]])
        found = watched.detector.predict(image_HW3, cfg.score)
        captions = [f"{name} {score:.2f}" for name, score in zip(found.classes, found.scores_D, strict=True)]
        drawn = draw_boxes(image_HW3, found.boxes_D4, captions, [class_colour(label) for label in found.labels_D.tolist()])
        below = [(known.looks_N3[:, column] <= new.looks_N3[row, column]).mean() for column in range(len(LOOKS))]
        light = ", ".join(f"{name} above {share:.0%}" for name, share in zip(LOOKS, below, strict=True))
        shown.append((drawn, f"{new.names[row]}\ndistance {strange_N[row]:.2f}; {light} of the reference"))
    return shown
