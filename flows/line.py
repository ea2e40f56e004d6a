"""The line as a Prefect flow: ingest > validate > train > evaluate > quantize > export.

`python -m flows.line [overrides]` runs it here, without a server; a deployment (prefect.yaml) runs the same flow elsewhere.
Exit 0 when it went well; 1 with one message when a stage failed; 2 when a setting is wrong.
"""

import signal
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

from flows.stage import CHECKOUT, Outcome, child_environment, run_stage
from flows.summary import Summary, summarise
from pipeline import settings, tracking
from pipeline.data.fetching import record_source
from pipeline.errors import DataError, UserError
from pipeline.files import digest_file, locked
from pipeline.layout import Layout
from pipeline.process import run_streamed

STAGES = ("settings", *settings.STAGES)
LAYOUT = Layout(CHECKOUT)
BUSY = "work/line.lock: another flow runs in this checkout; wait for it to end, or use a checkout of its own"


@flow(name="line", persist_result=False)
def line(overrides: list[str] | None = None) -> Summary | State[Any]:
    """Pictures and labels to a verified ONNX detector; `overrides` change settings, such as dataset=voc.

    Stages that are up to date are not run again; when all are, nothing happens and the log says so.
    """
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see main
    try:
        with locked(LAYOUT.work("line.lock"), BUSY), workspace(overrides or []) as config:
            require_source(config.dataset.source)
            return run_line(config)
    except UserError as error:
        return Failed(message=str(error))  # an exception would come with Prefect's stack trace


@contextmanager
def workspace(overrides: Sequence[str]) -> Iterator[settings.Settings]:
    """The settings, composed once and written to params.yaml of the place where this run works.

    Without overrides those that params.yaml was written with stay, so that the flow does what `dvc repro` would.
    Until runs with overrides have a worktree of their own, that place is the checkout; the log says what happened to it.
    """
    before = settings.snapshot_overrides(CHECKOUT) if (CHECKOUT / settings.PARAMS).exists() else []
    if before is None and not overrides:  # `dvc exp run` composed it: its choices are the user's
        yield settings.load((), CHECKOUT)
        return
    config = settings.write_params(overrides or before or [], CHECKOUT)
    record_source(config.dataset, config.storage, LAYOUT)
    if overrides:
        get_run_logger().info("params.yaml of this checkout now holds: %s", " ".join(overrides))
    elif before:
        get_run_logger().info("settings of params.yaml: %s; for plain conf/ run: python -m pipeline config", " ".join(before))
    yield config


def run_line(config: settings.Settings) -> Summary:
    """All stages in order, in one MLflow run. UserError with the words of the stage that failed."""
    drop_broken_record()
    if up_to_date():
        get_run_logger().info("nothing to do: everything is up to date")
        return summarise(LAYOUT, config.tracking, run_id=None, nothing_to_do=True)
    outcomes: dict[str, Outcome] = {}
    with flow_tracking(config, outcomes) as run:
        for stage in STAGES:
            outcomes[stage] = bring_up_to_date(stage, run)
            if run is not None and stage in settings.STAGES:
                record = tracking.record_stage if outcomes[stage] == "ran" else tracking.carry_stage
                record(run, stage, LAYOUT)
    summary = summarise(LAYOUT, config.tracking, run.run_id if run else None, nothing_to_do=False)
    create_markdown_artifact(summary.markdown(), key="where-to-look", description="Figures of this run and where its results are")
    if summary.classes:
        create_table_artifact(summary.classes, key="ap-per-class", description="Box AP per class on the validation split")
    return summary


def require_source(source: str) -> None:
    """DataError when the data is missing: DVC would say so too, but not which setting names it."""
    if "://" not in source and not (CHECKOUT / source).exists():
        raise DataError(source, "no such file or folder", "set dataset.source=PATH to a folder or an archive (.zip, .tar)")


def drop_broken_record() -> None:
    """Remove a dvc.lock that a kill left cut off: DVC writes it in place, and refuses to work on what is left of it.

    Nothing is lost: DVC's cache remembers each stage it ran by its inputs, and the stages are restored from there.
    """
    record = CHECKOUT / "dvc.lock"
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


def up_to_date() -> bool:
    """Whether DVC would run nothing. A fault here is left to the stage that it concerns."""
    lines: list[str] = []
    ended = run_streamed([sys.executable, "-m", "dvc", "status", "--json"], lines.append, env=child_environment({}), cwd=CHECKOUT)
    return ended.code == 0 and "{}" in lines


def bring_up_to_date(stage: str, run: tracking.Recorder | None) -> Outcome:
    """One stage as a task named after it."""
    extra = {tracking.RUN_ID: run.run_id} if run is not None and run.run_id else {}
    state = run_stage.with_options(name=stage, task_run_name=stage)(stage, extra, return_state=True)
    if not state.is_completed():
        raise UserError(state.message or f"{stage}: ended as {state.name}")
    return cast(Outcome, state.result())


@contextmanager
def flow_tracking(config: settings.Settings, outcomes: dict[str, Outcome]) -> Iterator[tracking.Recorder | None]:
    """The flow's MLflow run: the settings at its start, DVC's record of the results at its end. None when tracking is off."""
    if not config.tracking.enabled:
        yield None
        return
    run = tracking.Recorder(config.tracking, CHECKOUT)
    run.open(name=f"line {flow_run.name or ''}".strip())
    tracking.start_run(run, config, LAYOUT)
    run.tags({"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_name": str(flow_run.name)})
    status = "KILLED"
    try:
        yield run
        status = "FINISHED"
    except UserError as error:
        status = "FAILED"
        run.tags({"failure": str(error)})
        raise
    finally:
        record = CHECKOUT / "dvc.lock"
        run.tags({f"outcome.{stage}": outcome for stage, outcome in outcomes.items()})
        run.tags({"dvc.lock": digest_file(record)} if record.exists() else {})
        run.file(record)
        run.close(status)


def main(overrides: Sequence[str]) -> int:
    """Run the flow in this process; returns the exit status."""
    if {"-h", "--help"} & set(overrides):
        print("usage: python -m flows.line [overrides]\n\nRuns the whole line. Overrides: dataset=voc dataset.source=PATH ...")
        return 0
    try:
        # A mistake is told at once, not after Prefect has started.
        config = settings.check(settings.compose(overrides, CHECKOUT))
        require_source(config.dataset.source)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    # Prefect's temporary server inherits this: Ctrl-C on a terminal goes to the whole process group, and a run whose server is
    # gone tries for minutes to report its end. The flow itself takes signals again as soon as it runs.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # An exit that runs Prefect's last steps, among them the end of that server: a plain SIGTERM would leave it behind.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        state = line(list(overrides), return_state=True)
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was left half-written, and the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGTERM, before)
    if not state.is_completed():
        print(f"\n{state.message or state.name}", file=sys.stderr)
        return 1
    summary = cast(Summary, state.result())
    print(f"\n{summary.text()}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
