"""Tracking: what happened in a run goes to MLflow, without the run waiting for it.

Importing MLflow and opening its store takes 6 to 18 seconds, and a store can be slow or fail. So a process of its own
(pipeline/recorder.py) talks to it; a stage sends it lines through a queue and never blocks. A store that cannot be opened is a
UserError before the work starts; one that fails later costs figures, not the run, and a warning says which.

Which MLflow run: the flow's (MLFLOW_RUN_ID, set by flows/line.py for its children); else one per invocation of `dvc`, shared by
the stages it executes; else one of the stage's own.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, UserError
from pipeline.files import digest_bytes, write_atomically, write_json
from pipeline.layout import TIMING, Layout, home
from pipeline.provenance import dataset_tags, flat, git_tags, input_tags
from pipeline.schema import schema

RUN_ID = "MLFLOW_RUN_ID"
_OPENING_SECONDS = 180.0
_CLOSING_SECONDS = 180.0
_CHECKOUT = Path(__file__).absolute().parent.parent


@schema
class TrackingConfig:
    """Where figures, curves, reports and models of each run go."""

    enabled: bool
    """False keeps figures in reports/ alone; nothing is registered then."""
    uri: str
    """MLflow's tracking store: sqlite:///FILE (relative to the checkout), postgresql://... or the http(s) address of a server."""
    artifacts: str | None
    """Folder (relative to the checkout) or s3:// address for files of a new experiment; null lets the server decide."""
    experiment: str
    """Name of the MLflow experiment that collects the runs."""
    model: str
    """Name under which the exported detector is registered."""
    alias: str
    """Alias that moves to each newly registered version."""

    def __post_init__(self) -> None:
        if self.enabled and not self.uri.startswith(("sqlite:///", "postgresql", "http://", "https://")):
            rule = "is no MLflow store; use sqlite:///mlflow.db, postgresql://... or the http(s) address of a server"
            raise ConfigError("tracking.uri", self.uri, rule)
        if self.enabled and urlsplit(self.uri).password:
            rule = "has a password in it, and settings are kept in files and logs; use PGPASSWORD or MLFLOW_TRACKING_PASSWORD"
            raise ConfigError("tracking.uri", None, rule)
        for field in ("experiment", "model", "alias"):
            if not getattr(self, field).strip():
                raise ConfigError(f"tracking.{field}", getattr(self, field), "must not be empty")


class HasTracking(Protocol):
    """The whole settings, seen from here: a dataclass with a `tracking` group."""

    @property
    def tracking(self) -> TrackingConfig: ...


class Recorder:
    """One MLflow run, written to by a child process. Calls return at once; `close` waits until everything is stored."""

    def __init__(self, config: TrackingConfig, root: Path) -> None:
        """Start the child; MLflow loads in it while this process goes on."""
        self.run_id: str | None = None
        self.config = config
        self._root = root.absolute()
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        path = os.pathsep.join(filter(None, (str(_CHECKOUT), os.environ.get("PYTHONPATH"))))
        self._child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.recorder", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self._root,
            env=os.environ | {"PYTHONPATH": path},
        )
        self._writer = threading.Thread(target=self._write, daemon=True, name="tracking")
        self._writer.start()

    def open(self, run_id: str | None = None, *, name: str = "", owner: bool = True, wait: bool = True) -> None:
        """Open a new run called `name`, or the run `run_id`. UserError when the store cannot be reached, known only with `wait`.

        The `owner` sets the run's status; a stage inside a flow leaves that to the flow.
        """
        self.send(
            "open",
            uri=absolute_uri(self.config.uri, self._root),
            artifacts=self._artifacts(),
            experiment=self.config.experiment,
            run_id=run_id,
            name=name,
            owner=owner,
        )
        self.run_id = self._opened() if wait else run_id

    def send(self, operation: str, **values: object) -> None:
        """Queue one operation of pipeline/recorder.py."""
        self._lines.put(json.dumps({"do": operation, **values}).encode() + b"\n")

    def params(self, values: Mapping[str, object]) -> None:
        """Settings of the run; sent again they must be equal."""
        self.send("params", values={name: str(value) for name, value in values.items()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Free text about the run; a later value replaces an earlier one."""
        self.send("tags", values=dict(values))

    def curve(self, values: Mapping[str, float], step: int) -> None:
        """Points of curves at one step; sent again, by a training that was stopped and resumed, they are not doubled."""
        plain = {name: float(value) for name, value in values.items()}
        self.send("curve", values=plain, step=step, time=int(time.time() * 1000))

    def final(self, values: Mapping[str, float]) -> None:
        """Figures of the whole run; left out where a curve of that name exists already."""
        self.send("final", values=values, time=int(time.time() * 1000))

    def file(self, path: Path, folder: str = "") -> None:
        """A copy of `path` among the run's artifacts; left out when there is no such file."""
        if path.exists():
            self.send("file", path=str(path.absolute()), folder=folder)

    def close(self, status: str = "FINISHED") -> None:
        """Store what is queued and end the child; never raises, never hangs: what went wrong is said on standard error."""
        self.send("end", status=status)
        self._lines.put(None)
        self._writer.join(_CLOSING_SECONDS)
        try:
            code = self._child.wait(_CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
            code = -9
        if self._child.stdout is not None:
            self._child.stdout.close()
        if code:
            print(f"tracking: figures of this run in {self.config.uri} are incomplete (status {code})", file=sys.stderr)

    def _write(self) -> None:
        """Feed the child from the queue; a child that is gone is `close`'s matter."""
        pipe = self._child.stdin
        assert pipe is not None  # opened above
        try:
            while (line := self._lines.get()) is not None:
                pipe.write(line)
                pipe.flush()
            pipe.close()
        except OSError:
            while self._lines.get() is not None:
                pass

    def _opened(self) -> str:
        """The run's id, as the child reports it."""
        answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        pipe = self._child.stdout
        assert pipe is not None
        threading.Thread(target=lambda: answers.put(pipe.readline()), daemon=True).start()
        try:
            answer = json.loads(answers.get(timeout=_OPENING_SECONDS) or b'{"error": "its process ended"}')
        except queue.Empty:
            answer = {"error": f"no answer within {_OPENING_SECONDS:.0f} s"}
        if "error" in answer:
            self._child.kill()
            self._child.wait()
            todo = "is the server up, and is the address right? tracking=off runs without it"
            raise UserError(f"tracking.uri={self.config.uri}: cannot be opened: {answer['error']}\n  {todo}")
        return str(answer["run_id"])

    def _artifacts(self) -> str | None:
        place = self.config.artifacts
        return place if place is None or "://" in place else str(home(self._root) / place)


class Curves:
    """Figures of a stage by step; goes nowhere when tracking is off or nobody opened a run."""

    def __init__(self, stage: str = "", start: Callable[[], Recorder] | None = None) -> None:
        """`start` gives the recorder, called with the first figures or by `open`: most stages draw no curve."""
        self.stage = stage
        self.recorder: Recorder | None = None
        self._start = start

    def open(self) -> None:
        """Make sure that the run is there, before any figure is."""
        if self._start is not None and self.recorder is None:
            self.recorder = self._start()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Queue the figures of one step; costs microseconds, but for the first, which starts a process."""
        self.open()
        if self.recorder is not None:
            self.recorder.curve({full_name(self.stage, name): value for name, value in figures.items()}, step)


_current = Curves()


def curves() -> Curves:
    """The running stage's curves: `curves().log(step, {"loss": 0.3})`."""
    return _current


@contextmanager
def stage_run(stage: str, config: HasTracking, layout: Layout, shared_out: bool = False) -> Iterator[None]:
    """Track one stage: settings and origin before it, its metrics, times and report after it, its curves in between.

    UserError when the store cannot be opened. When the stage fails, the run is marked so and the error goes on. Inside a
    flow only curves are sent from here: the flow, which has the run open, records the rest (`start_run`, `record_stage`).
    A stage that is `shared_out` to several machines has one run, of the machine that finds out that it is the first.
    """
    if not config.tracking.enabled:
        yield
    elif run_id := os.environ.get(RUN_ID):
        with _curves_of_flow(stage, config, layout, run_id):
            yield
    else:
        with _run_of_stage(stage, config, layout, shared_out):
            yield


@contextmanager
def _curves_of_flow(stage: str, config: HasTracking, layout: Layout, run_id: str) -> Iterator[None]:
    """Curves go to the flow's run, if there are any; its status is the flow's."""

    def start() -> Recorder:
        recorder = Recorder(config.tracking, layout.root)
        recorder.open(run_id, owner=False, wait=False)
        return recorder

    with drawing(Curves(stage, start)) as drawn:
        try:
            yield
        finally:
            if drawn.recorder is not None:
                drawn.recorder.close()


@contextmanager
def _run_of_stage(stage: str, config: HasTracking, layout: Layout, shared_out: bool) -> Iterator[None]:
    """The run of this `dvc` invocation, or one of the stage's own; for `shared_out` see stage_run."""

    def start() -> Recorder:
        recorder = Recorder(config.tracking, layout.root)
        shared = _shared_run(layout)
        if shared is not None and shared.exists():
            recorder.open(json.loads(shared.read_bytes())["run_id"], wait=False)
        else:
            recorder.open(name="dvc repro" if shared else stage)
            if shared is not None:
                write_json(shared, {"run_id": recorder.run_id})
        start_run(recorder, config, layout)
        recorder.tags(input_tags(stage, layout.root))
        return recorder

    drawn = Curves(stage, start)
    if not shared_out:
        drawn.open()
    try:
        with drawing(drawn):
            yield
        if drawn.recorder is not None:
            record_stage(drawn.recorder, stage, layout)
    except BaseException as error:
        if drawn.recorder is not None:
            drawn.recorder.tags({f"failed.{stage}": str(error) or type(error).__name__})
            drawn.recorder.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    if drawn.recorder is not None:
        drawn.recorder.close()


@contextmanager
def drawing(drawn: Curves) -> Iterator[Curves]:
    """`drawn` is what `curves()` gives inside the block."""
    global _current
    before, _current = _current, drawn
    try:
        yield drawn
    finally:
        _current = before


def start_run(recorder: Recorder, config: HasTracking, layout: Layout) -> None:
    """What a run starts from: all settings, flat, the snapshot they came from, and the commit."""
    recorder.params(flat(asdict(config)))  # type: ignore[call-overload]
    recorder.tags(git_tags(layout.root))
    recorder.file(layout.root / "params.yaml")


def record_stage(recorder: Recorder, stage: str, layout: Layout) -> None:
    """What a finished stage left: figures (but for those that a curve ends in), times, data digests, report, ONNX files."""
    reports = layout.reports(stage)
    recorder.final(figures(stage, layout))
    recorder.final(_read_figures(stage, reports / TIMING))
    recorder.tags(dataset_tags(layout) | {f"made.{stage}": result_digest(stage, layout)})
    for name in ("index.html", "findings.json", "decision.json"):
        recorder.file(reports / name, f"reports/{stage}")
    if stage == "validate":
        recorder.file(reports / "dataset_card.md", "cards")
    if stage == "export":
        recorder.file(layout.onnx / "deploy.json", "onnx")
        recorder.file(timed_model_card(layout), "cards")
        if (layout.onnx / "detector.onnx").exists():
            model, config = layout.onnx / "detector.onnx", recorder.config
            recorder.send("register", path=str(model.absolute()), model=config.model, alias=config.alias)


def timed_model_card(layout: Layout) -> Path:
    """The model card with this run's latencies, for MLflow: the file among the results has none, so that a rerun repeats it."""
    from pipeline.deploy.latency import with_latency

    card, timed = layout.onnx / "model_card.md", layout.work("tracking") / "model_card.md"
    if card.exists():
        times = _read_figures("export", layout.reports("export") / TIMING)
        write_atomically(timed, with_latency(card.read_text(), times).encode())
    return timed if card.exists() else card


def carry_stage(recorder: Recorder, stage: str, layout: Layout) -> None:
    """Figures of a stage that DVC skipped, with a link to the run that made them."""
    recorder.send("carry", stage=stage, digest=result_digest(stage, layout))
    recorder.final(figures(stage, layout))


def figures(stage: str, layout: Layout) -> dict[str, float]:
    """metrics.json of a stage under the names that MLflow knows them by; empty when the stage wrote none."""
    return _read_figures(stage, layout.reports(stage) / "metrics.json")


def result_digest(stage: str, layout: Layout) -> str:
    """Identifies what a stage made, so that a later run can find the run that made it."""
    path = layout.reports(stage) / "metrics.json"
    return digest_bytes(stage.encode() + path.read_bytes()) if path.exists() else ""


def full_name(stage: str, name: str) -> str:
    """`train/loss` for `loss` of train; a name that says its stage stays as it is."""
    return name if name.startswith(f"{stage}/") else f"{stage}/{name}"


def absolute_uri(uri: str, root: Path) -> str:
    """A relative sqlite path made absolute: the working directory does not matter, and a run's worktree uses its checkout's."""
    prefix = "sqlite:///"
    return prefix + str(home(root) / uri.removeprefix(prefix)) if uri.startswith(prefix) else uri


def _read_figures(stage: str, path: Path) -> dict[str, float]:
    if not path.exists():
        return {}
    values = json.loads(path.read_bytes())
    return {full_name(stage, name): float(value) for name, value in values.items() if isinstance(value, int | float)}


def _shared_run(layout: Layout) -> Path | None:
    """Where the stages of the present `dvc` invocation keep their run's id; None outside of dvc. Forgets dead invocations."""
    import psutil

    folder = layout.work("tracking")
    for parent in psutil.Process().parents():
        try:
            command = [os.path.basename(word) for word in parent.cmdline()[:3]]
        except psutil.Error:
            continue  # another user's process, or gone meanwhile
        if "dvc" in command:
            alive = folder / f"{parent.pid}-{parent.create_time():.2f}.json"
            for old in folder.glob("*.json"):
                if old != alive and not psutil.pid_exists(int(old.name.split("-")[0])):
                    old.unlink(missing_ok=True)
            return alive
    return None
