"""Hyperparameter search as a Prefect flow: workers train and evaluate trials of one Optuna study, side by side.

`python -m flows.sweep [overrides]` searches what conf/sweep says, on this checkout's data. A study of that name goes on where it
stands, as long as the data is the same. Exit 0 when it went well; 1 with one message when no trial finished; 2 when a setting is
wrong.
"""

import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))  # run from a checkout, never installed

from pipeline.quiet import be_offline

be_offline()  # before Prefect reads the environment

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.command import as_command
from flows.line import alone_in_checkout, own_settings
from flows.repro import CHECKOUT, child_environment
from flows.stage import run_stage
from flows.workspace import require_source
from pipeline import settings, tracking
from pipeline.data.dataset import written_digest
from pipeline.data.fetching import record_source
from pipeline.errors import ConfigError, UserError
from pipeline.files import locked
from pipeline.layout import Layout
from pipeline.overrides import merged
from pipeline.process import running
from pipeline.tuning import study as studies
from pipeline.tuning.config import Choice
from pipeline.tuning.report import page

if TYPE_CHECKING:
    from optuna import Study

USAGE = """usage: python -m flows.sweep [overrides]

Searches the space of conf/sweep (sweep=NAME chooses another file there) for the settings with the best AP, on this folder's data.
sweep.trials=40 sweep.workers=2 sweep.study=NAME say how much, and where it is kept; the same command goes on after a stop."""
RESTARTS = 3
"""How many killed workers are replaced before the search gives up."""
DATA = ("seed", "dataset", "validate")
RUN = "mlflow"
"""The study's note of its MLflow run."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a search ends with."""

    figure: float
    overrides: tuple[str, ...]
    report: Path

    def text(self) -> str:
        """The last words: the best figure and how to have it again."""
        again = shlex.join(["python", "-m", "flows.line", *self.overrides])
        return f"best {self.figure:.4f}, by:\n  {again}\nlook at {self.report}"


@flow(name="sweep", persist_result=False)
def sweep(overrides: list[str] | None = None) -> Result | State[Any]:
    """The settings with the best figure among `sweep.trials` trials on the checkout's data."""
    try:
        chosen = checked(overrides or [])
        folder = Layout(CHECKOUT).work("sweep", chosen.sweep.study)
        with locked(folder / "search.lock", f"{folder}: another search of this study runs here\n  wait for it to end"):
            prepare()
            return search(settings.on_top(overrides or [], CHECKOUT), overrides or [], chosen)
    except UserError as error:
        return Failed(message=str(error))


def checked(overrides: Sequence[str]) -> settings.Settings:
    """The settings of the search. ConfigError for a wrong one, in the space too, before anything starts."""
    base = settings.on_top(overrides, CHECKOUT)
    chosen = settings.check(settings.compose(base, CHECKOUT))
    plain = settings.check(settings.compose(settings.on_top((), CHECKOUT), CHECKOUT))
    for name in DATA:
        if getattr(chosen, name) != getattr(plain, name):
            todo = "would make other data; choose it first: python -m pipeline config OVERRIDES"
            raise ConfigError(name, None, todo)
    require_source(chosen.dataset.source, CHECKOUT)
    if chosen.sweep.metric.partition("/")[0] not in chosen.model.tasks:  # every trial would find that out after its training
        todo = (
            f"is not measured of this model; a figure begins with one of {', '.join(f'{task}/' for task in chosen.model.tasks)}"
        )
        raise ConfigError("sweep.metric", chosen.sweep.metric, todo)
    for name, parameter in chosen.sweep.space.items():
        whole = int if not isinstance(parameter, Choice) and parameter.kind == "int" else float
        ends = parameter.choices if isinstance(parameter, Choice) else (whole(parameter.low), whole(parameter.high))
        for value in ends:
            settings.check(settings.compose(merged(base, [f"{name}={value}"]), CHECKOUT))
    return chosen


def prepare() -> None:
    """Bring the checkout's data/validated up to date, once for all trials."""
    with alone_in_checkout():
        config = own_settings()
        record_source(config.dataset, config.storage, Layout(CHECKOUT))
        for stage in ("settings", "ingest", "validate"):
            state = run_stage.with_options(name=stage, task_run_name=stage)(stage, CHECKOUT, {}, None, return_state=True)
            if not state.is_completed():
                raise UserError(state.message or f"{stage}: ended as {state.name}")


def search(base: list[str], overrides: list[str], chosen: settings.Settings) -> Result:
    """Workers until the study has its trials; then the report and the best overrides."""
    own = [word for word in base if not word.startswith(("sweep", "compute", "tracking"))]
    study = studies.open_study(chosen.sweep, CHECKOUT, chosen.seed)
    studies.require_same(study, chosen.sweep, own, written_digest(Layout(CHECKOUT).validated))
    with parent_run(chosen, study) as run:
        extra = {tracking.RUN_ID: run.run_id} if run is not None and run.run_id else {}
        commands = [
            [sys.executable, "-m", "flows.sweep_worker", str(number), *base] for number in range(1, chosen.sweep.workers + 1)
        ]
        run_workers(study, chosen, commands, extra)
        report = Layout(CHECKOUT).reports("sweep") / "index.html"
        page(study, chosen.sweep).write(report)
        if run is not None:
            run.file(report, "reports/sweep")
        best = studies.best(study)
        assert best.value is not None
        given = [word for word in overrides if not word.startswith("sweep")]
        values = studies.overrides_of(best.params)
        result = Result(best.value, tuple(merged(given, values)), report.relative_to(CHECKOUT))
        if run is not None:
            run.final({f"best/{chosen.sweep.metric}": best.value})
            run.tags({"best.overrides": " ".join(result.overrides), "best.trial": str(best.number)})
    create_markdown_artifact(f"```\n{result.text()}\n```", key="sweep", description="The best settings of the search")
    return result


def run_workers(study: "Study", chosen: settings.Settings, commands: list[list[str]], extra: dict[str, str]) -> None:
    """Run the commands side by side to their end, and each again whose process is killed. What they say goes to log files."""
    folder, restarts = Layout(CHECKOUT).work("sweep", chosen.sweep.study), 0
    told = {one.number for one in study.get_trials(deepcopy=False) if one.state.is_finished()}
    with ExitStack() as stack:

        def start(number: int) -> Any:
            log = folder / f"worker-{number}.log"
            return stack.enter_context(running(commands[number], log, env=child_environment(extra), cwd=CHECKOUT))

        workers = {number: start(number) for number in range(len(commands))}
        while workers:
            time.sleep(0.5)
            for number, process in list(workers.items()):
                code = process.poll()
                if code is None:
                    continue
                del workers[number]
                if code != 0:
                    restarts += 1
                    get_run_logger().warning("worker %d ended with status %d; its trial is tried again", number, code)
                    if restarts > RESTARTS:
                        raise UserError(f"sweep: workers keep ending; the last one's words are in {folder}/worker-{number}.log")
                    workers[number] = start(number)
            tell(study, told)


def tell(study: "Study", told: set[int]) -> None:
    """Log the trials that ended since the last time."""
    for one in study.get_trials(deepcopy=False):
        if one.state.is_finished() and one.number not in told:
            told.add(one.number)
            said = f"{one.value:.4f}" if one.state.name == "COMPLETE" else one.user_attrs.get(studies.REASON, "stopped early")
            get_run_logger().info("trial %d %s: %s", one.number, one.state.name.lower(), said)


@contextmanager
def parent_run(chosen: settings.Settings, study: "Study") -> Iterator[tracking.Recorder | None]:
    """The search's MLflow run, the same one when a study goes on; None when tracking is off."""
    if not chosen.tracking.enabled:
        yield None
        return
    run = tracking.Recorder(chosen.tracking, CHECKOUT)
    run.open(study.user_attrs.get(RUN), name=f"sweep {chosen.sweep.study}")
    study.set_user_attr(RUN, run.run_id)
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except UserError as error:
        status = "FAILED"
        run.tags({"failure": str(error)})
        raise
    finally:
        run.close(status)


def main(arguments: Sequence[str]) -> int:
    """Run the flow in this process; returns the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    return as_command(lambda: checked(arguments), lambda: run_here(arguments))


def run_here(arguments: Sequence[str]) -> int:
    """One search, and its last words; the exit status."""
    state = sweep(list(arguments), return_state=True)
    if not state.is_completed():
        print(f"\n{state.message or state.name}", file=sys.stderr)
        return 1
    print(f"\n{cast(Result, state.result()).text()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
