"""The process that talks to MLflow: `python -m pipeline.recorder PARENT`, fed by pipeline/tracking.py, one JSON object a line.

Operations: open, params, tags, metrics, curve, final, file, carry, register, end. The answer to `open` is one line on standard
output, {"run_id": ...} or {"error": ...}. Later faults are said on standard error and make the exit status 3; the next
operation is tried all the same. When the input ends without `end` (the parent died) the run is marked KILLED.
"""

import json
import logging
import os
import posixpath
import re
import signal
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

from pipeline.files import digest_bytes
from pipeline.process import die_with_parent
from pipeline.quiet import be_offline

_MOST_VALUES = 100  # MLflow's limit of parameters in one call; metrics may be 1,000
_LONGEST_PARAM = 6000
_LONGEST_TAG = 5000


class Run:
    """An open MLflow run; its methods are the operations."""

    def __init__(self, uri: str, artifacts: str | None, experiment: str, run_id: str | None, name: str, owner: bool) -> None:
        from mlflow.tracking import MlflowClient

        self.uri, self.owner, self.opened_again = uri, owner, run_id is not None
        self._drawn: dict[str, set[int]] = {}
        self.client = MlflowClient(uri, uri)
        self.run_id = run_id or self._create(experiment, artifacts, name)
        if run_id and owner:
            self.client.update_run(run_id, status="RUNNING")

    def _create(self, experiment: str, artifacts: str | None, name: str) -> str:
        found = self.client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage == "deleted":
            raise ValueError(f"experiment {experiment!r} was deleted in MLflow; restore it, or set another tracking.experiment")
        where = found.experiment_id if found else self.client.create_experiment(experiment, artifact_location=artifacts)
        return str(self.client.create_run(where, run_name=name or None).info.run_id)

    def params(self, values: Mapping[str, str]) -> None:
        """Settings."""
        from mlflow.entities import Param

        known = [Param(_allowed(name), value[:_LONGEST_PARAM]) for name, value in values.items()]
        for start in range(0, len(known), _MOST_VALUES):
            self.client.log_batch(self.run_id, params=known[start : start + _MOST_VALUES])

    def tags(self, values: Mapping[str, str]) -> None:
        """Free text."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(_allowed(name), value[:_LONGEST_TAG]) for name, value in values.items()])

    def metrics(self, values: Mapping[str, float], step: int, time: int) -> None:
        """Figures of one step."""
        from mlflow.entities import Metric

        known = [Metric(_allowed(name), value, time, step) for name, value in values.items()]
        for start in range(0, len(known), 10 * _MOST_VALUES):
            self.client.log_batch(self.run_id, metrics=known[start : start + 10 * _MOST_VALUES])

    def curve(self, values: Mapping[str, float], step: int, time: int) -> None:
        """Points of curves; those that the run has already, from before a training was stopped and resumed, stay as they are."""
        if self.opened_again:
            for name in values.keys() - self._drawn.keys():
                history = self.client.get_metric_history(self.run_id, _allowed(name))
                self._drawn[name] = {point.step for point in history}
            values = {name: value for name, value in values.items() if step not in self._drawn[name]}
        self.metrics(values, step, time)

    def final(self, values: Mapping[str, float], time: int) -> None:
        """Figures of the whole run: a point at step 0 would spoil a curve of that name."""
        known = self.client.get_run(self.run_id).data.metrics
        self.metrics({name: value for name, value in values.items() if _allowed(name) not in known}, 0, time)

    def file(self, path: str, folder: str) -> None:
        """A copy of a file."""
        self.client.log_artifact(self.run_id, path, folder or None)

    def carry(self, stage: str, digest: str) -> None:
        """Link to the latest run that made this result of `stage`."""
        experiment = self.client.get_run(self.run_id).info.experiment_id
        wanted = f"tags.`made.{stage}` = '{digest}'"
        latest = ["attributes.start_time DESC"]
        found = self.client.search_runs([experiment], wanted, order_by=latest, max_results=1) if digest else []
        self.tags({f"from.{stage}": found[0].info.run_id if found else "a run that is not tracked here"})

    def register(self, path: str, model: str, alias: str) -> None:
        """A new version of the registered model."""
        from pipeline.registry import register

        register(self.client, self.uri, self.run_id, path, model, alias)

    def end(self, status: str) -> None:
        """The run's status, when it is ours to set."""
        if self.owner:
            self.client.set_terminated(self.run_id, status=status)


def serve(lines: BinaryIO) -> int:
    """Open the run that the first line asks for, and do the rest in order; returns the exit status."""
    first = json.loads(lines.readline() or b"{}")
    if first.pop("do", "end") == "end":
        return 0  # nobody wanted a run after all
    try:
        run = Run(**first)
    except Exception as error:
        print(json.dumps({"error": _reason(error)}), flush=True)
        return 3
    print(json.dumps({"run_id": run.run_id}), flush=True)
    signal.signal(signal.SIGTERM, _stop)
    try:
        status = _follow(run, lines)
    except _ParentGoneError:
        status = None
    if status is None:
        run.end("KILLED")
        return 3
    return status


class _ParentGoneError(BaseException):
    """SIGTERM: unwinds what is being stored, whose open transaction would lock the run's end out."""


def _stop(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: a second one would come while the run's end is stored
    raise _ParentGoneError


def _follow(run: Run, lines: BinaryIO) -> int | None:
    """The operations, up to `end`; the exit status, or None when the input ends without it: the parent died."""
    faults = 0
    for line in lines:
        values: dict[str, Any] = json.loads(line)
        operation = values.pop("do")
        if operation == "end":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            getattr(run, operation)(**values)
        except Exception as error:
            faults += 1
            print(f"tracking: {operation} was not stored: {_reason(error)}", file=sys.stderr, flush=True)
        if operation == "end":
            return 3 if faults else 0
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]


def _allowed(name: str) -> str:
    """MLflow takes letters, digits and _ - . : / blanks in names that read as a path; a class may be called anything.

    A name that has to be changed gets a digest of itself, so that two classes never share one.
    """
    kept = re.sub(r"[^\w\-. :/]", "_", name)
    path = posixpath.normpath(re.sub(r"\.{2,}", "_", kept)).strip("/")
    return name if path == name and len(name) <= 250 else f"{path[:240]}_{digest_bytes(name.encode())[:6]}"


def main(parent: int) -> int:
    """Serve standard input; SIGTERM when the parent dies marks the run KILLED."""
    die_with_parent(parent, signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer; it closes this process
    be_offline()
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return serve(sys.stdin.buffer)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
