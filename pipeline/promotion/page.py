"""The decision as a page: every rule with its figures, then classes and slices side by side."""

from collections.abc import Sequence

from pipeline.promotion.config import RetrainConfig
from pipeline.promotion.measured import Measured
from pipeline.promotion.rules import Decision, Row
from pipeline.report import Badge, Cell, Report


def decision_page(decision: Decision, measured: Sequence[Measured], cfg: RetrainConfig) -> Report:
    """`measured` is the challenger and, where there is one, the champion."""
    names = " against ".join(one.name for one in measured)
    report = Report("Promoted" if decision.promoted else "Refused", f"{names}, on {len_of(measured)} validation pictures")
    for one in measured:
        report.facts({f"AP, {one.name}": one.metrics.value, f"ms per picture, {one.name}": one.milliseconds})
    if (found := decision.difference) is not None:
        report.facts(
            {"AP difference": f"{found.value:+.4f}", f"{found.confidence:.0%} interval": f"{found.low:+.4f} to {found.high:+.4f}"}
        )
    rows: list[list[Cell]] = [
        [Badge("holds", "good") if rule.holds else Badge("broken", "error"), rule.name, rule.figure, rule.limit]
        for rule in decision.rules
    ]
    report.table("Rules", ["", "rule", "measured", "limit"], rows, "All of them must hold.")
    if decision.difference is not None:
        note = (
            f"The interval is that of the paired bootstrap over pictures, {cfg.resamples} resamples."
            f" Rows with fewer than {cfg.least_truths} labels are not judged."
        )
        columns = ["", "labels", measured[1].name, measured[0].name, "won or lost"]
        report.table("Classes", columns, side_by_side(decision.classes), note, sortable=True)
        report.table("Slices", columns, side_by_side(decision.slices), sortable=True)
    return report


def side_by_side(rows: Sequence[Row]) -> list[list[Cell]]:
    """Rows of a table; what has no labels is a dash."""
    return [[row.name, row.truths, *(defined(value) for value in (row.champion, row.challenger, -row.drop))] for row in rows]


def defined(value: float) -> float | None:
    """None for NaN."""
    return None if value != value else value


def len_of(measured: Sequence[Measured]) -> int:
    """Pictures that were compared on."""
    return int(measured[0].matches.truths_KI.shape[1])
