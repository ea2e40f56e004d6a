"""Experiments: DVC's own, Hydra's combinations; each kept apart, all of them side by side in one MLflow store."""

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.line.conftest import SETTINGS, Clone
from tests.line.test_kills import wait_for
from tests.line.test_ways import mlflow_runs

pytestmark = [pytest.mark.line, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def made(warm: Callable[[str], Clone]) -> Clone:
    """A clone whose cache knows every stage."""
    made = warm("experiments")
    for name, value in (("user.name", "Ada"), ("user.email", "ada@example.org")):  # `dvc exp` demands an author
        subprocess.run(["git", "config", name, value], cwd=made.folder, check=True)
    return made


@pytest.fixture(scope="module")
def tried(made: Clone) -> Clone:
    """After two experiments: one by `dvc exp run -S`, one from DVC's queue."""
    words = [word for override in SETTINGS for word in ("-S", override)]
    made.run("dvc", "exp", "run", "--temp", "-n", "small", *words, "-S", "export.pictures=1", "-S", "evaluate.max_detections=10")
    made.run("dvc", "exp", "run", "--queue", "-n", "large", *words, "-S", "export.pictures=2")
    made.run("dvc", "queue", "start")
    wait_for(lambda: re.search("Success|Failed", made.run("dvc", "queue", "status")), 300, "the queue did not move")
    wait_for(lambda: not made.processes(), 120, lambda: f"the queue's worker stays: {made.processes()}")
    return made


def test_both_experiments_are_kept_and_tracked_in_the_checkouts_store(tried: Clone) -> None:
    assert {"small", "large"} <= set(re.findall(r"\[(\w+)\]", tried.run("dvc", "exp", "list")))
    assert [status for _, status in mlflow_runs(tried.folder)] == ["FINISHED"] * 2
    assert list(tried.folder.rglob("mlflow.db")) == [tried.folder / "mlflow.db"]


def test_metrics_diff_shows_what_changed(tried: Clone) -> None:
    differences = json.loads(tried.run("dvc", "metrics", "diff", "--json", "small", "large"))
    metrics = differences["reports/evaluate/metrics.json"]
    assert metrics["bbox/AR100"]["old"] is None and metrics["bbox/AR100"]["new"] > 0  # ten detections a picture have no AR100
    assert "reports/ingest/metrics.json" not in differences


def test_plots_diff_draws_both(tried: Clone) -> None:
    tried.run("dvc", "plots", "diff", "small", "large")
    page = (tried.folder / "dvc_plots/index.html").read_text()
    assert "Precision over recall" in page and "AP per class" in page
    assert '"rev": "small"' in page and '"rev": "large"' in page


def test_multirun_runs_each_combination_in_a_place_of_its_own(made: Clone) -> None:
    before = (made.folder / "params.yaml").read_bytes()
    said = made.run("flows.line", "--multirun", *SETTINGS, "export.pictures=3,4")
    places = re.findall(r"report of export +(work/runs/\S+)", said)
    assert len(places) == 2 and said.count("The line is done") == 2
    for place, number in zip(places, (3, 4), strict=True):
        root = (made.folder / place).parents[2]
        assert f"  pictures: {number}\n" in (root / "params.yaml").read_text()
        assert "up to date" in replace(made, folder=root).run("dvc", "status")
    assert (made.folder / "params.yaml").read_bytes() == before
