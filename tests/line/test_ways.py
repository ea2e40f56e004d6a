"""`dvc repro` and the Prefect flow, each from a clean clone of the same commit: the same results, and nothing to do twice."""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.files import digest_tree
from tests.line.conftest import SETTINGS, STAGES, Clone

pytestmark = [pytest.mark.line, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def by_dvc(clone: Callable[[str], Clone]) -> Clone:
    """A clone in which `dvc repro` ran."""
    made = clone("dvc")
    made.run("pipeline", "config", *SETTINGS)
    made.run("dvc", "repro")
    return made


def mlflow_runs(folder: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(folder / "mlflow.db") as store:
        return store.execute("select run_uuid, status from runs").fetchall()


def test_both_ways_give_the_same_metrics_to_the_byte(by_dvc: Clone, by_flow: tuple[Clone, str]) -> None:
    for stage in STAGES:
        one, other = (made.folder / "reports" / stage / "metrics.json" for made in (by_dvc, by_flow[0]))
        assert one.read_bytes() == other.read_bytes(), stage
    assert json.loads((by_dvc.folder / "reports/evaluate/metrics.json").read_text())["bbox/AP50"] > 0


def test_both_ways_give_the_same_files_to_the_byte(by_dvc: Clone, by_flow: tuple[Clone, str]) -> None:
    for place in ("data/dataset", "data/validated", "models/detector", "models/quantized", "models/onnx"):
        assert digest_tree(by_dvc.folder / place) == digest_tree(by_flow[0].folder / place), place


def test_after_the_flow_dvc_finds_nothing_to_do(by_flow: tuple[Clone, str]) -> None:
    made = by_flow[0]
    assert "up to date" in made.run("dvc", "status")
    assert "didn't change" in made.run("dvc", "repro")
    assert len(mlflow_runs(made.folder)) == 1


def test_a_second_flow_does_nothing_and_says_so(by_flow: tuple[Clone, str]) -> None:
    made = by_flow[0]
    before = {path: path.stat().st_mtime_ns for path in (made.folder / "models").rglob("*")}
    assert "nothing to do: everything is up to date" in made.run("flows.line")
    assert {path: path.stat().st_mtime_ns for path in (made.folder / "models").rglob("*")} == before
    assert len(mlflow_runs(made.folder)) == 1


def test_the_flow_says_where_to_look(by_flow: tuple[Clone, str]) -> None:
    _made, output = by_flow
    for place in ("reports/export/index.html", "models/onnx/detector.onnx", "models/onnx/detector.int8.onnx", "mlflow ui"):
        assert place in output
    assert "train 10/40" in output  # the child's lines came through


def test_one_dvc_repro_is_one_run_with_its_figures_curves_and_model(by_dvc: Clone) -> None:
    runs = mlflow_runs(by_dvc.folder)
    assert [status for _, status in runs] == ["FINISHED"]
    with sqlite3.connect(by_dvc.folder / "mlflow.db") as store:
        latest = dict(store.execute("select key, value from latest_metrics").fetchall())
        curve = store.execute("select count(*) from metrics where key = 'train/loss'").fetchone()[0]
        params = dict(store.execute("select key, value from params").fetchall())
        aliases = store.execute("select alias from registered_model_aliases").fetchall()
    figures = json.loads((by_dvc.folder / "reports/evaluate/metrics.json").read_text())
    assert latest["evaluate/bbox/AP50"] == pytest.approx(figures["bbox/AP50"])
    assert curve == 4 and params["train.steps"] == "40" and aliases == [("candidate",)]


def test_a_changed_setting_runs_only_the_stages_that_use_it(by_dvc: Clone) -> None:
    before = (by_dvc.folder / "reports/train/timing.json").read_bytes()
    by_dvc.run("pipeline", "config", *SETTINGS, "evaluate.sheet=3")
    output = by_dvc.run("dvc", "repro")
    assert "Running stage 'evaluate'" in output
    assert not [stage for stage in ("train", "quantize", "export") if f"Running stage '{stage}'" in output]
    assert (by_dvc.folder / "reports/train/timing.json").read_bytes() == before


def test_a_forgotten_snapshot_stops_dvc_with_the_command_that_mends_it(by_dvc: Clone) -> None:
    path = by_dvc.folder / "conf/quantize/default.yaml"
    text = path.read_text()
    path.write_text(text.replace("per_channel: true", "per_channel: false"))
    output = by_dvc.run("dvc", "repro", ok=False)
    path.write_text(text)
    assert "not what conf/ composes to; differs in quantize.per_channel" in output
    assert "python -m pipeline config model=faster_rcnn_tiny" in output and "Running stage 'quantize'" not in output


def test_git_sees_nothing_of_a_run_but_its_record(by_flow: tuple[Clone, str]) -> None:
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=by_flow[0].folder, capture_output=True, text=True, check=True
    ).stdout
    assert sorted(line.split()[-1] for line in status.splitlines()) == ["dvc.lock", "params.yaml"]


def test_predict_draws_with_the_exported_file(by_flow: tuple[Clone, str]) -> None:
    made = by_flow[0]
    pictures = sorted((made.folder / "data/validated/images").rglob("*.png"))[:2]
    out = made.folder / "work/drawn"
    output = made.run("pipeline", "predict", *map(str, pictures), "--int8", "--threshold", "0.01", "--out", str(out))
    assert all(picture.name in output for picture in pictures)
    assert len(list(out.rglob("*.png")) + list(out.rglob("*.jpg"))) == 2
    assert (out / "predictions.json").exists()
