"""python -m flows.sweep_worker NUMBER [overrides]: one process of a search. flows/sweep.py starts several."""

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))  # run from a checkout, never installed

from flows.trial import MARK
from pipeline import settings, tracking
from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.layout import Layout
from pipeline.overrides import merged
from pipeline.process import die_with_parent, run_streamed
from pipeline.quiet import be_offline
from pipeline.tuning.study import Report, open_study, work

CHECKOUT = Path(__file__).absolute().parent.parent
PARENT = "mlflow.parentRunId"


def main(number: int, overrides: list[str]) -> int:
    """Try until the study has enough trials."""
    die_with_parent()
    be_offline()
    chosen = settings.check(settings.compose(overrides, CHECKOUT))
    folder = Layout(CHECKOUT).work("sweep", chosen.sweep.study)
    study = open_study(chosen.sweep, CHECKOUT, chosen.seed + number)

    def objective(trial: int, values: list[str], report: Report) -> float:
        run = opened(chosen, trial, values)
        status = "FAILED"
        try:
            figure = tried(folder / f"{trial:04d}", overrides, values, chosen.sweep.metric, report, run)
            status = "FINISHED"
            return figure
        except Exception as error:
            status = "FAILED" if isinstance(error, UserError) else "KILLED"  # pruned: stopped on purpose
            if run is not None:
                run.tags({"failure": str(error) or "pruned"})
            raise
        finally:
            if run is not None:
                run.close(status)

    work(study, chosen.sweep, folder / "lock", objective)
    return 0


def opened(chosen: settings.Settings, trial: int, values: list[str]) -> tracking.Recorder | None:
    """A run below the search's own; None when tracking is off."""
    parent = os.environ.get(tracking.RUN_ID)
    if parent is None:
        return None
    run = tracking.Recorder(chosen.tracking, CHECKOUT)
    run.open(name=f"trial {trial}", wait=False)
    run.tags({PARENT: parent, "overrides": " ".join(values)})
    run.params(dict(value.split("=", 1) for value in values))
    return run


def tried(
    place: Path, overrides: list[str], values: list[str], metric: str, report: Report, run: tracking.Recorder | None
) -> float:
    """Train and evaluate in `place`, on the checkout's data/validated; the figure `metric`. UserError with the stage's words."""
    config = settings.check(settings.compose(merged(overrides, values), CHECKOUT))
    layout = Layout(place)
    layout.validated.parent.mkdir(parents=True, exist_ok=True)
    if not layout.validated.exists():
        layout.validated.symlink_to(Layout(CHECKOUT).validated, target_is_directory=True)
    for stage in ("train", "evaluate"):
        settings.stage_config(stage, config, layout).write(place / f"{stage}.json")
    task = metric.partition("/")[0]

    def hear(line: str) -> None:
        if not line.startswith(MARK):
            print(line, flush=True)
            return
        said: dict[str, Any] = json.loads(line.removeprefix(MARK))
        if run is not None:
            run.curve({tracking.full_name("train", name): value for name, value in said["figures"].items()}, said["step"])
        if (value := said["figures"].get(f"val/{task}/AP")) is not None and said["step"] < config.train.steps:
            report(said["step"], value)

    ended = run_streamed([sys.executable, "-m", "flows.trial", str(place)], hear, cwd=CHECKOUT)
    if ended.code != 0:
        raise UserError("\n".join(ended.errors[-3:]) or f"ended with status {ended.code} (out of memory, or somebody stopped it)")
    figures = read_json(layout.reports("evaluate") / "metrics.json")
    assert isinstance(figures, dict)
    if metric not in figures:
        raise UserError(f"sweep.metric={metric}: is not measured. Choices: {', '.join(sorted(figures))}")
    if run is not None:
        run.final({f"evaluate/{name}": value for name, value in figures.items() if isinstance(value, int | float)})
    return float(figures[metric])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
