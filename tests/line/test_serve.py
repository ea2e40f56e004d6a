"""make serve and its deployments, as somebody at two terminals uses them."""

import json
import re
import signal
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import yaml

from tests.line.conftest import SETTINGS, Clone
from tests.line.test_kills import processes_of, wait_for

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]


@dataclass(frozen=True, slots=True)
class Served:
    """A clone in which `make serve` runs."""

    clone: Clone
    prefect: str
    mlflow: str

    def run(self, *overrides: str) -> str:
        """One run of the deployment, watched to its end: what the watching said."""
        words = ["--param", f"overrides={json.dumps(overrides)}"] if overrides else []
        return self.clone.run("prefect", "deployment", "run", "line/line", *words, "--watch")

    def ask(self, path: str, **body: object) -> object:
        """An answer of Prefect's API."""
        request = urllib.request.Request(
            f"{self.prefect}/api/{path}", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def served(warm: Callable[[str], Clone]) -> Iterator[Served]:
    """A clone in which nothing is to be done, with its services; they must all be gone in the end."""
    made = warm("served")
    log = made.home / "serve.log"
    process = made.start(log, "infra.local")
    wait_for(lambda: "Ctrl-C stops" in log.read_text() or process.poll() is not None, 240, log.read_text)
    assert process.poll() is None, log.read_text()
    prefect, mlflow = (re.search(rf"{name}\s+(http\S+)", log.read_text()).group(1) for name in ("Prefect", "MLflow"))
    yield Served(made, prefect, mlflow)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, log.read_text()
    wait_for(lambda: not made.processes(), 20, lambda: f"still there: {made.processes()}")
    assert not (made.folder / "prefect.toml").exists()


def git(made: Clone, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=made.folder, capture_output=True, text=True, check=True).stdout.strip()


def test_a_deployment_without_overrides_works_in_the_checkout(served: Served) -> None:
    branches = git(served.clone, "branch", "--list", "runs/*")
    assert "Completed" in served.run()
    assert "nothing to do" in (served.clone.folder / "work/services/worker.log").read_text()
    assert git(served.clone, "branch", "--list", "runs/*") == branches


def test_two_runs_with_overrides_side_by_side_share_the_slot_in_turn(served: Served) -> None:
    """Each ends as a commit that holds its own settings; their stages that compute never overlap."""
    settings = [[*SETTINGS, "compute.slot=gpu", f"export.pictures={number}"] for number in (1, 2)]
    together: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        watched = [pool.submit(served.run, *overrides) for overrides in settings]
        while not all(one.done() for one in watched):
            together.append(len(processes_of(served.clone, "export")))
            time.sleep(0.2)
    assert all("Completed" in one.result() for one in watched), [one.result() for one in watched]
    assert max(together) == 1
    branches = git(served.clone, "branch", "--list", "runs/*", "--format=%(refname:short)").split()
    kept = [yaml.safe_load(git(served.clone, "show", f"{branch}:params.yaml")) for branch in branches]
    assert sorted(params["export"]["pictures"] for params in kept) == [1, 2]
    assert all("reports/export/metrics.json" in git(served.clone, "show", f"{branch}:dvc.lock") for branch in branches)
    with sqlite3.connect(served.clone.folder / "mlflow.db") as store:
        tagged = {value for (value,) in store.execute("select value from tags where key = 'result.commit'")}
    assert {git(served.clone, "rev-parse", branch) for branch in branches} == tagged


def test_the_slot_is_one(served: Served) -> None:
    with urllib.request.urlopen(f"{served.prefect}/api/v2/concurrency_limits/gpu", timeout=30) as answer:
        assert json.load(answer)["limit"] == 1


def test_nightly_is_there_and_sleeps(served: Served) -> None:
    with urllib.request.urlopen(f"{served.prefect}/api/deployments/name/line/nightly", timeout=30) as answer:
        nightly = json.load(answer)
    assert [schedule["active"] for schedule in nightly["schedules"]] == [False]


def test_cancelling_a_run_ends_its_stage(served: Served) -> None:
    overrides = json.dumps([*SETTINGS, "train.steps=100000"])
    said = served.clone.run("prefect", "deployment", "run", "line/line", "--param", f"overrides={overrides}")
    run = re.search(r"UUID: (\S+)", said).group(1)
    wait_for(lambda: processes_of(served.clone, "train"), 180, "it never trained")
    served.clone.run("prefect", "flow-run", "cancel", run)
    wait_for(lambda: not processes_of(served.clone, "train"), 60, "it still trains")
    assert not processes_of(served.clone, "evaluate"), "a cancelled run went on"
    asked = {"flow_runs": {"id": {"any_": [run]}}}
    wait_for(lambda: served.ask("flow_runs/filter", **asked)[0]["state_type"] == "CANCELLED", 60, "it is not cancelled")


def test_mlflow_shows_the_runs(served: Served) -> None:
    request = urllib.request.Request(
        f"{served.mlflow}/api/2.0/mlflow/runs/search", b'{"experiment_ids": ["1"]}', {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["runs"]
