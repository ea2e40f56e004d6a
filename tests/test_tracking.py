"""Tracking against a real MLflow store in sqlite, through the real recorder process."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import recorder, tracking
from pipeline.errors import ConfigError, UserError
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.tracking import TrackingConfig

CHECKOUT = Path(__file__).parent.parent

# One stage in a process of its own, as dvc starts it; tracking is told where by its arguments.
STAGE = """
import sys
from pathlib import Path
from tests.test_tracking import Whole, config
from pipeline import tracking
from pipeline.files import write_json
from pipeline.layout import Layout
stage, root = sys.argv[1], Path(sys.argv[2])
layout = Layout(root)
with tracking.stage_run(stage, Whole(tracking=config(), seed=3), layout):
    for step in range(5):
        tracking.curves().log(step, {f"{stage}/loss": 1.0 / (step + 1), "rate": 0.1})
    write_json(layout.reports(stage) / "metrics.json", {"bbox/AP": 0.25, "bbox/AP/a (b)": 0.5, f"{stage}/loss": 0.2})
    write_json(layout.reports(stage) / "timing.json", {"seconds": 1.5})
    (layout.reports(stage) / "index.html").write_text("<p>page</p>")
"""


@dataclass
class Whole:
    """Stands for the whole settings."""

    tracking: TrackingConfig
    seed: int


def config(**changes: object) -> TrackingConfig:
    """Tracking into mlflow.db of the layout's root."""
    values = {
        "enabled": True,
        "uri": "sqlite:///mlflow.db",
        "artifacts": "mlartifacts",
        "experiment": "tests",
        "model": "toy",
        "alias": "candidate",
    }
    return TrackingConfig(**(values | changes))  # type: ignore[arg-type]


class Inline(tracking.Recorder):
    """A recorder without its process, for what the process itself does not matter to: MLflow is imported here, once."""

    def __init__(self, config: TrackingConfig, root: Path) -> None:
        self.config, self._root, self.run_id = config, root.absolute(), None

    def send(self, operation: str, **values: object) -> None:
        if operation == "open":
            self.run = recorder.Run(**values)
        else:
            getattr(self.run, operation)(**json.loads(json.dumps(values)))

    def _opened(self) -> str:
        return self.run.run_id

    def close(self, status: str = "FINISHED") -> None:
        self.send("end", status=status)


def run_stages(root: Path, stages: list[str], **env: str) -> None:
    """Run `stages` one after the other below one process that looks like `dvc`."""
    commands = "\n".join(f"{sys.executable} {root / 'stage.py'} {stage} {root} || exit 1" for stage in stages)
    (root / "stage.py").write_text(STAGE)
    (root / "dvc").write_text(commands)
    subprocess.run(
        ["sh", str(root / "dvc")], check=True, env=os.environ | {"PYTHONPATH": str(CHECKOUT)} | env, cwd=root, timeout=120
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    """A checkout with an empty migrated store, and its client: creating the tables costs seconds, once."""
    from mlflow.tracking import MlflowClient

    root = tmp_path_factory.mktemp("checkout")
    uri = tracking.absolute_uri("sqlite:///mlflow.db", root)
    return root, MlflowClient(uri, uri)


@pytest.fixture(scope="module")
def shared_run(store):
    """One dvc invocation of two stages."""
    root, client = store
    run_stages(root, ["train", "evaluate"])
    experiment = client.get_experiment_by_name("tests")
    return root, client, client.search_runs([experiment.experiment_id])


def test_stages_of_one_dvc_invocation_share_a_finished_run(shared_run):
    _, _, runs = shared_run
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert {"made.train", "made.evaluate"} <= runs[0].data.tags.keys()


def _of(metrics, name):
    """The figure of a class whose name MLflow refuses: kept under a readable form of it with a digest."""
    (found,) = (value for key, value in metrics.items() if key.startswith(f"{name}_"))
    return found


@pytest.mark.parametrize(
    "names", [["红细胞", "白细胞"], ["a/", "a//b", "..", "./x", "a?", "a!"], ["x" * 300 + "1", "x" * 300 + "2"]]
)
def test_names_that_mlflow_takes_stay_apart(names):
    from mlflow.utils.validation import _validate_metric_name

    from pipeline.recorder import _allowed

    allowed = [_allowed(f"bbox/AP/{name}") for name in names]
    assert len(set(allowed)) == len(names)
    for name in allowed:
        _validate_metric_name(name)


def test_run_holds_settings_figures_times_and_report(shared_run):
    _, client, runs = shared_run
    data, run_id = runs[0].data, runs[0].info.run_id
    assert data.params["seed"] == "3" and data.params["tracking.experiment"] == "tests"
    assert data.metrics["train/bbox/AP"] == 0.25 and _of(data.metrics, "evaluate/bbox/AP/a _b_") == 0.5
    assert data.metrics["train/seconds"] == 1.5
    assert [file.path for file in client.list_artifacts(run_id, "reports/train")] == ["reports/train/index.html"]


def test_curve_keeps_every_step_and_the_final_figure_adds_no_point(shared_run):
    _, client, runs = shared_run
    history = client.get_metric_history(runs[0].info.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(step, 1.0 / (step + 1)) for step in range(5)]


def test_files_stay_below_the_configured_root(shared_run):
    root, _, _ = shared_run
    assert (root / "mlartifacts").is_dir() and not (root / "mlruns").exists()


def test_inside_a_flow_the_run_is_the_flows_and_a_skipped_stage_links_to_its_maker(shared_run):
    root, client, runs = shared_run
    layout = Layout(root)
    flow = Inline(config(), root)
    flow.open(name="line")
    run_stages(root, ["export"], MLFLOW_RUN_ID=str(flow.run_id))
    tracking.record_stage(flow, "export", layout)
    assert client.get_run(flow.run_id).info.status == "RUNNING", "the flow is not over yet"
    tracking.carry_stage(flow, "train", layout)
    flow.close()
    run = client.get_run(flow.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["from.train"] == runs[0].info.run_id
    assert run.data.metrics["train/bbox/AP"] == 0.25 and run.data.metrics["export/bbox/AP"] == 0.25


def test_failed_stage_is_marked_and_its_error_goes_on(store, monkeypatch):
    monkeypatch.setattr(tracking, "Recorder", Inline)
    root, client = store
    with (
        pytest.raises(UserError, match="no boxes"),
        tracking.stage_run("validate", Whole(config(experiment="failing"), 0), Layout(root)),
    ):
        raise UserError("no boxes")
    (run,) = client.search_runs([client.get_experiment_by_name("failing").experiment_id])
    assert run.info.status == "FAILED" and run.data.tags["failed.validate"] == "no boxes"


def test_unreachable_server_is_one_message_before_the_work_starts(tmp_path):
    began = time.monotonic()
    entered = False
    broken = Whole(config(uri="http://127.0.0.1:9"), 0)
    with (
        pytest.raises(UserError, match=r"(?s)tracking.uri=http://127.0.0.1:9: cannot be opened.*tracking=off"),
        tracking.stage_run("train", broken, Layout(tmp_path)),
    ):
        entered = True
    assert not entered and time.monotonic() - began < 90


def test_store_lost_on_the_way_costs_figures_not_the_run(tmp_path, capfd, monkeypatch):
    monkeypatch.setenv(tracking.RUN_ID, "no-such-run")
    with tracking.stage_run("train", Whole(config(), 0), Layout(tmp_path)):
        tracking.curves().log(0, {"loss": 1.0})
    assert "figures of this run in sqlite:///mlflow.db are incomplete" in capfd.readouterr().err


def test_of_several_machines_the_first_alone_has_a_run(store, monkeypatch):
    monkeypatch.setattr(tracking, "Recorder", Inline)
    root, client = store
    whole, layout = Whole(config(experiment="shared out"), 0), Layout(root)
    with tracking.stage_run("train", whole, layout, shared_out=True):
        pass  # another machine: rank 0 is not on it
    with (
        pytest.raises(UserError, match="lost"),
        tracking.stage_run("train", whole, layout, shared_out=True),
    ):
        raise UserError("the connection was lost before anybody was the first")
    assert client.get_experiment_by_name("shared out") is None
    with tracking.stage_run("train", whole, layout, shared_out=True):
        tracking.curves().open()
        tracking.curves().log(3, {"loss": 0.5})
        write_json(layout.reports("train") / "metrics.json", {"steps": 3})
    (run,) = client.search_runs([client.get_experiment_by_name("shared out").experiment_id])
    assert run.info.status == "FINISHED" and run.data.metrics.items() >= {"train/loss": 0.5, "train/steps": 3}.items()


def test_off_starts_no_process_and_writes_nothing(tmp_path):
    with tracking.stage_run("train", Whole(config(enabled=False), 0), Layout(tmp_path)):
        tracking.curves().log(0, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_registered_model_loads_by_its_alias_and_is_not_stored_twice(store, monkeypatch):
    monkeypatch.setattr(tracking, "Recorder", Inline)
    import onnx
    from onnx import TensorProto, helper

    root, client = store
    layout = Layout(root)
    layout.onnx.mkdir(parents=True)
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), layout.onnx / "detector.onnx")
    parity = {"onnx": {"bbox/AP": 0.5, "bbox/AP50": 0.75}}
    write_json(layout.onnx / "deploy.json", {"files": {"onnx": {"digest": "abc"}}, "parity": parity})
    for _ in range(2):
        with tracking.stage_run("export", Whole(config(experiment="registry"), 0), layout):
            pass
    version = client.get_model_version_by_alias("toy", "candidate")
    assert version.version == "1" or version.version == 1
    assert version.tags["onnx.AP"] == "0.5000" and version.tags["digest"] == "abc"

    import mlflow

    mlflow.set_tracking_uri(tracking.absolute_uri("sqlite:///mlflow.db", root))
    assert mlflow.onnx.load_model("models:/toy@candidate").graph.name == "g"


def test_cards_are_artifacts_and_the_models_has_the_latencies_of_this_run(store, monkeypatch, tmp_path):
    root, client = store
    layout = Layout(tmp_path)
    for place in (layout.onnx, layout.reports("validate"), layout.reports("export")):
        place.mkdir(parents=True)
    (layout.onnx / "model_card.md").write_text("---\na: b\n---\n\n# Model\n")
    (layout.reports("validate") / "dataset_card.md").write_text("# Data\n")
    write_json(layout.reports("export") / "timing.json", {"export/milliseconds/detector.onnx": 12.5, "export/seconds": 3.0})
    run = Inline(config(experiment="cards"), root)
    run.open(name="cards")
    for stage in ("validate", "export"):
        tracking.record_stage(run, stage, layout)
    run.close()
    assert {file.path for file in client.list_artifacts(run.run_id, "cards")} == {"cards/dataset_card.md", "cards/model_card.md"}
    stored = Path(client.download_artifacts(run.run_id, "cards/model_card.md", str(tmp_path))).read_text()
    assert "| detector.onnx | 12.5000 |" in stored and "seconds" not in stored
    assert client.get_run(run.run_id).data.metrics["export/milliseconds/detector.onnx"] == 12.5
    assert "Latency" not in (layout.onnx / "model_card.md").read_text()


def test_wrong_store_names_field_and_rule():
    with pytest.raises(ConfigError, match=r"tracking\.uri='file:///x' is no MLflow store"):
        config(uri="file:///x")


def test_points_that_a_resumed_training_sends_again_are_not_doubled(store) -> None:
    root, client = store
    first = Inline(config(experiment="resumed"), root)
    first.open(name="killed")
    for step in (1, 2, 3):
        first.curve({"loss": 1.0 / step}, step)
    again = Inline(config(experiment="resumed"), root)
    again.open(first.run.run_id, owner=False)
    for step in (1, 2, 3, 4):
        again.curve({"loss": 1.0 / step, "late": 0.5}, step)
    assert [point.step for point in client.get_metric_history(first.run.run_id, "loss")] == [1, 2, 3, 4]
    assert [point.step for point in client.get_metric_history(first.run.run_id, "late")] == [1, 2, 3, 4]
