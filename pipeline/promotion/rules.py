"""The rules by which a challenger becomes the champion: each with its figure and its limit, and all of them must hold."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.deploy.config import Gate
from pipeline.evaluation.comparison import Difference, difference, mean_ap
from pipeline.promotion.config import RetrainConfig
from pipeline.promotion.measured import Measured, Slice

SIZES = (
    ("small objects", "APs", 0.0, 32.0**2),
    ("medium objects", "APm", 32.0**2, 96.0**2),
    ("large objects", "APl", 96.0**2, np.inf),
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule and how it came out."""

    name: str
    holds: bool
    figure: str
    """What was measured, in words."""
    limit: str
    """What it had to be."""


@dataclass(frozen=True, slots=True)
class Row:
    """AP of a class or a slice in both detectors; NaN where there is nothing to measure."""

    name: str
    truths: int
    champion: float
    challenger: float

    @property
    def drop(self) -> float:
        """AP lost; negative where it was won."""
        return self.champion - self.challenger


@dataclass(frozen=True, slots=True)
class Decision:
    """What the rules say."""

    promoted: bool
    rules: tuple[Rule, ...]
    difference: Difference | None
    """None for the first champion."""
    classes: tuple[Row, ...]
    slices: tuple[Row, ...]

    @property
    def reason(self) -> str:
        """In one line."""
        broken = [f"{rule.name}: {rule.figure}, {rule.limit}" for rule in self.rules if not rule.holds]
        return "; ".join(broken) if broken else "all rules hold"

    def plain(self) -> dict[str, Any]:
        """As JSON: NaN becomes null."""
        values = asdict(self) | {"reason": self.reason}
        for row in (*values["classes"], *values["slices"]):
            row |= {name: None if np.isnan(row[name]) else row[name] for name in ("champion", "challenger")}
        return values


def judge_first(challenger: Measured, cfg: RetrainConfig, gate: Gate) -> Decision:
    """Without a champion absolute floors stand in for the comparison."""
    ap = challenger.metrics.value
    floor = Rule("floor", ap >= cfg.floor, f"AP {ap:.4f}", f"must be at least retrain.floor={cfg.floor:g}")
    return decided([floor, *of_the_files(challenger, cfg, gate)], None, [], [])


def judge(
    champion: Measured,
    challenger: Measured,
    slices: Sequence[Slice],
    truth_area_A: Any,
    cfg: RetrainConfig,
    gate: Gate,
    seed: int,
) -> Decision:
    """The challenger against the champion on the same pictures; `truth_area_A` are the areas of the labels that count."""
    found = difference(champion.matches, challenger.matches, cfg.resamples, cfg.confidence, seed)
    told = f"AP {found.value:+.4f}, {cfg.confidence:.0%} interval {found.low:+.4f} to {found.high:+.4f}"
    better = Rule("better", found.low > cfg.margin, told, f"its lower end must be above retrain.margin={cfg.margin:g}")
    classes = class_rows(champion, challenger)
    parts = size_rows(champion, challenger, truth_area_A) + slice_rows(champion, challenger, slices)
    rules = [
        better,
        no_class_gone(champion, challenger, cfg.class_drop),
        no_drop("classes", classes, cfg.class_drop, "retrain.class_drop", cfg.least_truths),
        no_drop("slices", parts, cfg.slice_drop, "retrain.slice_drop", cfg.least_truths),
        *of_the_files(challenger, cfg, gate),
    ]
    return decided(rules, found, classes, parts)


def decided(rules: Sequence[Rule], found: Difference | None, classes: Sequence[Row], slices: Sequence[Row]) -> Decision:
    """All rules must hold."""
    return Decision(all(rule.holds for rule in rules), tuple(rules), found, tuple(classes), tuple(slices))


def no_drop(name: str, rows: Sequence[Row], most: float, setting: str, least: int) -> Rule:
    """No row with enough labels may lose more than `most`."""
    judged = [row for row in rows if row.truths >= least and np.isfinite(row.drop)]
    limit = f"none may lose more than {setting}={most:g}"
    if not judged:
        return Rule(name, True, f"none has {least} labels", limit)
    worst = max(judged, key=lambda row: row.drop)
    figure = f"{worst.name} {'loses' if worst.drop > 0 else 'gains'} {abs(worst.drop):.4f} AP"
    return Rule(name, worst.drop <= most, figure, limit)


def no_class_gone(champion: Measured, challenger: Measured, most: float) -> Rule:
    """The challenger knows all classes of the champion: one that the data no longer names cannot be measured, and is lost."""
    known = set(challenger.deploy.get("classes", ()))
    gone = [name for name in champion.deploy.get("classes", ()) if name not in known]
    figure = f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone" if gone else "no class of the champion is missing"
    return Rule("known classes", not gone or most >= 1, figure, f"one that goes loses all its AP: retrain.class_drop={most:g}")


def of_the_files(challenger: Measured, cfg: RetrainConfig, gate: Gate) -> list[Rule]:
    """What export proved about the files, by their own record, and how long a picture takes."""
    parity, task = challenger.deploy.get("parity", {}), challenger.metrics.task

    def ap(backend: str) -> float:
        return float(parity.get(backend, {}).get(f"{task}/AP", np.nan))

    # INT8 as the exporting host ran it, and with every product exact: what another host does counts as much.
    exact = ["int8_exact"] if "int8_exact" in parity else []
    onnx = abs(ap("torch") - ap("onnx"))
    int8 = float(np.max([ap("torch") - ap(name) for name in ("int8", *exact)]))  # NaN, what was never measured, stays NaN
    rules = [
        Rule(f"{name} gate", bool(lost <= limit), f"loses {lost:.4f} AP", f"export.gate.{setting} allows {limit:g}")
        for name, setting, limit, lost in (("onnx", "fp32_ap", gate.fp32_ap, onnx), ("int8", "int8_ap", gate.int8_ap, int8))
    ]
    limit_ms = cfg.latency_ms
    within = limit_ms is None or challenger.milliseconds <= limit_ms
    allowed = "no limit (retrain.latency_ms)" if limit_ms is None else f"must be within retrain.latency_ms={limit_ms:g}"
    return [*rules, Rule("latency", within, f"{challenger.milliseconds:.1f} ms per picture", allowed)]


def class_rows(champion: Measured, challenger: Measured) -> list[Row]:
    """AP by class, of those that have labels."""
    pairs = zip(champion.metrics.classes, challenger.metrics.classes, strict=True)
    return [Row(one.name, one.truths, one.ap, other.ap) for one, other in pairs if one.ap >= 0]


def size_rows(champion: Measured, challenger: Measured, area_A: Any) -> list[Row]:
    """AP by COCO's sizes of objects."""
    rows = []
    for name, figure, low, high in SIZES:
        values = [one.metrics.numbers[f"{one.metrics.task}/{figure}"] for one in (champion, challenger)]
        count = int(((area_A >= low) & (area_A < high)).sum())
        rows.append(Row(name, count, *(value if value >= 0 else float("nan") for value in values)))
    return rows


def slice_rows(champion: Measured, challenger: Measured, slices: Sequence[Slice]) -> list[Row]:
    """AP on some of the pictures alone."""
    rows = []
    for one in slices:
        weights_1I = one.pictures_I.astype(np.int64)[None]
        values = [float(mean_ap(which.matches.ap_BK(weights_1I))[0]) for which in (champion, challenger)]
        rows.append(Row(one.name, int(champion.matches.truths_KI[:, one.pictures_I].sum()), *values))
    return rows
