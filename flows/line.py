"""The line as a Prefect flow: ingest > validate > train > evaluate > quantize > export.

`python -m flows.line [overrides]` runs it here, without a server; a deployment (prefect.yaml) runs the same flow elsewhere.
Exit 0 when it went well; 1 with one message when a stage failed; 2 when a setting is wrong.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))  # run from a checkout, never installed

from pipeline.quiet import be_offline

be_offline()  # before Prefect reads the environment

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.command import as_command
from flows.repro import CHECKOUT, Outcome, child_environment
from flows.stage import run_stage
from flows.summary import Summary, summarise
from flows.workspace import Workspace, keep, own_worktree, require_source
from pipeline import settings, tracking
from pipeline.data.fetching import record_source
from pipeline.errors import ConfigError, UserError
from pipeline.events import CHANGED, RESOURCE, emit
from pipeline.files import digest_file, locked, read_json
from pipeline.layout import Layout, home
from pipeline.process import run_streamed

USAGE = """usage: python -m flows.line [--multirun] [overrides]

Runs the whole line. Without overrides it works in this folder, by the settings of params.yaml. With overrides, such as
dataset=voc dataset.source=PATH, it works in a git worktree of its own, and its result is a commit on a branch runs/...
--multirun (-m) runs every combination of settings with several values: model=a,b train.steps=200,400 are four runs."""
MULTIRUN = ("--multirun", "-m")
STAGES = ("settings", *settings.STAGES)
BUSY = "another flow runs in this checkout; this one waits for it to end (runs with overrides have a place of their own)"


@flow(name="line", persist_result=False)
def line(overrides: list[str] | None = None) -> Summary | State[Any]:
    """Pictures and labels to a verified ONNX detector.

    Without `overrides` it works in the checkout. With them, such as dataset=voc, it works in a git worktree below work/runs, and
    its result is a commit on a branch runs/... Stages that are up to date are not run again; when all are, the log says so.
    """
    try:
        with workspace(overrides or []) as place:
            return run_line(place)
    except UserError as error:
        return Failed(message=str(error))  # an exception would come with Prefect's stack trace


@contextmanager
def workspace(overrides: Sequence[str]) -> Iterator[Workspace]:
    """Where this run works: the checkout, locked, or with overrides a worktree of its own.

    With storage.exchange always a worktree: its branch is how the result leaves a machine that nobody looks at.
    """
    if overrides or settings.check(settings.compose(settings.on_top((), CHECKOUT), CHECKOUT)).storage.exchange:
        place = own_worktree(CHECKOUT, str(flow_run.name), overrides)
        record_source(place.config.dataset, place.config.storage, Layout(place.root))
        get_run_logger().info("this run works in %s, on branch %s", place.root.relative_to(CHECKOUT), place.branch)
        yield place
        return
    with alone_in_checkout():
        place = Workspace(CHECKOUT, own_settings())
        require_source(place.config.dataset.source, CHECKOUT)
        record_source(place.config.dataset, place.config.storage, Layout(CHECKOUT))
        yield place


@contextmanager
def alone_in_checkout() -> Iterator[None]:
    """Nothing else works in the checkout while the block runs; what does so now is waited for, and the log says it."""
    with locked(Layout(CHECKOUT).work("line.lock"), BUSY, math.inf, lambda: get_run_logger().warning(BUSY)):
        yield


def own_settings() -> settings.Settings:
    """The checkout's settings, params.yaml brought up to date with conf/.

    The overrides that it was written with stay, so that the flow does what `dvc repro` would.
    """
    before = settings.snapshot_overrides(CHECKOUT) if (CHECKOUT / settings.PARAMS).exists() else []
    if before is None:  # `dvc exp run` or `dvc exp apply` composed it: its choices are the user's
        return settings.load((), CHECKOUT)
    if before:
        get_run_logger().info("settings of params.yaml: %s; for plain conf/ run: python -m pipeline config", " ".join(before))
    return settings.write_params(before, CHECKOUT)


def run_line(place: Workspace) -> Summary:
    """All stages in order, in one MLflow run. UserError with the words of the stage that failed."""
    layout = Layout(place.root)
    drop_broken_record(place.root)
    if up_to_date(place.root):
        get_run_logger().info("nothing to do: everything is up to date")
        return summarise(layout, place.config.tracking, run_id=None, nothing_to_do=True)
    outcomes: dict[str, Outcome] = {}
    with flow_tracking(place, outcomes) as run:
        for stage in STAGES:
            before = digest_before(place.root)
            outcomes[stage] = bring_up_to_date(stage, place, run)
            if stage == "ingest" and dataset_digest(layout) != before:
                tell_of_change(place)
            if run is not None and stage in settings.STAGES:
                record = tracking.record_stage if outcomes[stage] == "ran" else tracking.carry_stage
                record(run, stage, layout)
        if place.branch is not None:
            commit = keep(place, f"Line: {flow_run.name}")
            get_run_logger().info("the result is commit %s on branch %s", commit[:12], place.branch)
            if run is not None:
                run.tags({"result.commit": commit, "result.branch": place.branch})
    summary = summarise(layout, place.config.tracking, run.run_id if run else None, nothing_to_do=False, branch=place.branch)
    create_markdown_artifact(summary.markdown(), key="where-to-look", description="Figures of this run and where its results are")
    if summary.findings:
        create_table_artifact(summary.findings, key="label-findings", description="What the label checks found, before fixes")
    if summary.classes:
        create_table_artifact(summary.classes, key="ap-per-class", description="Box AP per class on the validation split")
    return summary


def dataset_digest(layout: Layout) -> str | None:
    """Content digest of data/dataset; None before there is one."""
    place = layout.dataset / "dataset.json"
    content = read_json(place) if place.exists() else None
    return str(content["digest"]) if isinstance(content, dict) and "digest" in content else None


def digest_before(root: Path) -> str | None:
    """Digest of what the data was until now: a new worktree has none, and goes by its checkout's."""
    return dataset_digest(Layout(root)) or dataset_digest(Layout(home(root)))


def tell_of_change(place: Workspace) -> None:
    """Emit `dataset.changed`: what listens decides what to do. A server that does not take it costs the event, not the run."""
    source = place.config.dataset
    try:
        emit(CHANGED, f"{RESOURCE}{source.kind}", {"digest": dataset_digest(Layout(place.root)), "source": source.source})
    except UserError as error:
        get_run_logger().warning("%s", error)


def drop_broken_record(root: Path) -> None:
    """Remove a dvc.lock that a kill left cut off: DVC writes it in place, and refuses to work on what is left of it.

    Nothing is lost: DVC's cache remembers each stage it ran by its inputs, and the stages are restored from there.
    """
    record = root / "dvc.lock"
    if record.exists() and not readable(record):
        record.unlink()
        get_run_logger().warning(
            "dvc.lock was cut off when an earlier run was killed; removed, DVC's cache brings the results back"
        )


def readable(record: Path) -> bool:
    """Whether a dvc.lock is whole: its stages are the last thing written."""
    import yaml

    try:
        content = yaml.safe_load(record.read_text())
    except yaml.YAMLError:
        return False
    return isinstance(content, dict) and {"schema", "stages"} <= content.keys()


def up_to_date(root: Path) -> bool:
    """Whether DVC would run nothing. A fault here is left to the stage that it concerns."""
    lines: list[str] = []
    ended = run_streamed([sys.executable, "-m", "dvc", "status", "--json"], lines.append, env=child_environment({}), cwd=root)
    return ended.code == 0 and "{}" in lines


def bring_up_to_date(stage: str, place: Workspace, run: tracking.Recorder | None) -> Outcome:
    """One stage as a task named after it."""
    slot = place.config.compute.slot if stage in settings.STAGES and "compute" in settings.groups(stage) else None
    extra = {tracking.RUN_ID: run.run_id} if run is not None and run.run_id else {}
    state = run_stage.with_options(name=stage, task_run_name=stage)(
        stage, place.root, extra, slot, place.config.storage.exchange, return_state=True
    )
    if not state.is_completed():
        raise UserError(state.message or f"{stage}: ended as {state.name}")
    return cast(Outcome, state.result())


@contextmanager
def flow_tracking(place: Workspace, outcomes: dict[str, Outcome]) -> Iterator[tracking.Recorder | None]:
    """The flow's MLflow run: the settings at its start, DVC's record of the results at its end. None when tracking is off."""
    if not place.config.tracking.enabled:
        yield None
        return
    run = tracking.Recorder(place.config.tracking, place.root)
    run.open(name=f"line {flow_run.name or ''}".strip())
    tracking.start_run(run, place.config, Layout(place.root))
    run.tags({"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_name": str(flow_run.name)})
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except UserError as error:
        status = "FAILED"
        run.tags({"failure": str(error)})
        raise
    except Exception as error:
        status = "FAILED"
        run.tags({"failure": f"{type(error).__name__}: {error}"})
        raise
    finally:
        record = place.root / "dvc.lock"
        run.tags({f"outcome.{stage}": outcome for stage, outcome in outcomes.items()})
        run.tags({"dvc.lock": digest_file(record)} if record.exists() else {})
        run.file(record)
        run.close(status)


def main(arguments: Sequence[str]) -> int:
    """Run the flow in this process, once or for each combination of a --multirun; returns the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    jobs: list[list[str]] = []

    def check() -> None:
        jobs.extend(combinations(arguments))
        for overrides in jobs:
            config = settings.check(settings.compose(settings.on_top(overrides, CHECKOUT), CHECKOUT))
            require_source(config.dataset.source, CHECKOUT)

    return as_command(check, lambda: max([run_here(overrides) for overrides in jobs]))


def combinations(arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of each run that the command line asks for: one, or with --multirun all combinations of Hydra's sweeps.

    ConfigError for a sweep without --multirun, and the other way round.
    """
    words = [word for word in arguments if word not in MULTIRUN]
    if len(words) == len(arguments):
        return [words]
    swept = settings.sweep(words)
    if len(swept) == 1:
        raise ConfigError("--multirun", None, "needs several values of a setting, such as train.steps=200,400")
    return swept


def run_here(overrides: list[str]) -> int:
    """One run of the flow, and its last words; the exit status."""
    if overrides:
        print(f"line: {' '.join(overrides)}", flush=True)
    state = line(overrides, return_state=True)
    if not state.is_completed():
        print(f"\n{state.message or state.name}", file=sys.stderr)
        return 1
    summary = cast(Summary, state.result())
    print(f"\n{summary.text()}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
