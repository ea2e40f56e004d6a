"""The search as a page: best settings, importance of each, history, all trials."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipeline.report import Report
from pipeline.tuning.config import SweepConfig
from pipeline.tuning.study import REASON

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna import Study

LEAST = 4
"""Finished trials from which importances are worth computing."""


def page(study: "Study", config: SweepConfig) -> Report:
    """Of all trials so far; without the best ones when none finished."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    done = [one for one in trials if one.state == TrialState.COMPLETE]
    report = Report("Hyperparameter search", f"study {study.study_name}, {config.metric}")
    states = {state.name.lower(): sum(one.state == state for one in trials) for state in TrialState}
    report.facts({"best": study.best_value if done else None} | {name: count for name, count in states.items() if count})
    if done:
        report.table("Best settings", ["setting", "value"], [[name, value] for name, value in study.best_params.items()])
        report.plot("History", history([(one.number, one.value or 0.0) for one in done]))
    if weights := importances(study, len(done)):
        report.plot("Importance", bars(weights), "Share of what sets the better trials apart (PED-ANOVA).")
        report.table("Importance in figures", ["setting", "share"], list(weights.items()))
    columns = ["trial", "state", config.metric, *config.space, "reason"]
    rows = [
        [str(one.number), one.state.name.lower(), one.value, *map(one.params.get, config.space), one.user_attrs.get(REASON, "")]
        for one in trials
    ]
    report.table("Trials", columns, rows, sortable=True)
    return report


def importances(study: "Study", done: int) -> dict[str, float]:
    """Each setting's share; empty while there is too little to tell."""
    import warnings

    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    if done < LEAST:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(get_param_importances(study, evaluator=PedAnovaImportanceEvaluator()))


def history(figures: list[tuple[int, float]]) -> bytes:
    """PNG of each trial's figure and of the best so far."""
    picture, axes = drawing(3.5)
    numbers, values = zip(*figures, strict=True)
    axes.plot(numbers, values, "o", label="trial")
    axes.step(numbers, [max(values[: place + 1]) for place in range(len(values))], where="post", label="best so far")
    axes.set(xlabel="trial", ylabel="figure")
    axes.legend(fontsize="small")
    return png(picture)


def bars(weights: Mapping[str, float]) -> bytes:
    """PNG of each setting's importance, the largest on top."""
    picture, axes = drawing(1.0 + 0.35 * len(weights))
    names = sorted(weights, key=weights.__getitem__)
    axes.barh(names, [weights[name] for name in names])
    axes.set(xlabel="share")
    return png(picture)


def drawing(height: float) -> tuple["Figure", "Axes"]:
    """An empty picture, 8 inches wide, and its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(8, height), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.subplots()
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    return picture, axes


def png(picture: "Figure") -> bytes:
    """The same bytes for the same picture."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
