"""The command `suspects` on the line: labels that say another class."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline import settings, tracking
from pipeline.commands import suspects
from pipeline.data.dataset import open_dataset
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.truth import Truth
from pipeline.labels.check import Severity
from pipeline.layout import Layout
from tests.stages.tiny import TINY
from tests.test_tracking import Inline

CHANGED = 12


@pytest.fixture
def spoilt(line: Layout, tmp_path: Path) -> tuple[Layout, set[int]]:
    """The line with the classes of some validation labels changed; the labels' ids."""
    layout = Layout(tmp_path)
    shutil.copytree(line.validated, layout.validated)
    shutil.copytree(line.detector, layout.detector)
    path = layout.validated / "val.json"
    content = json.loads(path.read_bytes())
    ids = [one["id"] for one in content["categories"]]
    changed = content["annotations"][::4][:CHANGED]
    for label in changed:
        label["category_id"] = ids[(ids.index(label["category_id"]) + 1) % len(ids)]
    path.write_text(json.dumps(content))
    return layout, {label["id"] for label in changed}


def true_objects(folder: Path) -> Predictions:
    """What a perfect detector finds in the validation pictures."""
    truth = Truth.of(open_dataset(folder).split("val"), open_dataset(folder).info.categories)
    return Predictions(truth.image_ids_A, truth.boxes_A4, np.full(len(truth.boxes_A4), 0.95), truth.category_ids_A)


def test_changed_classes_are_suspected_and_recorded(
    line: Layout, spoilt: tuple[Layout, set[int]], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(tracking, "Recorder", Inline)
    layout, wanted = spoilt
    monkeypatch.setattr(suspects, "predicted", lambda *_: true_objects(line.validated))
    chosen = settings.load([*TINY, "tracking=sqlite", "suspects.class_score=0.6"], root)
    severity = chosen.suspects.severity | dict.fromkeys(["suspect-location"], Severity.IGNORE)
    severity |= dict.fromkeys(["suspect-class"], Severity.ERROR)
    chosen = replace(chosen, suspects=replace(chosen.suspects, severity=severity))
    with tracking.stage_run("suspects", chosen, layout):
        suspects.compare(chosen, layout)
    found = json.loads((layout.reports("suspects") / "findings.json").read_bytes())
    assert {(one["severity"], one["annotation"]) for one in found if one["code"] == "suspect-class"} == {
        ("error", n) for n in wanted
    }
    assert "suspect-location" not in {one["code"] for one in found}

    uri = tracking.absolute_uri(chosen.tracking.uri, tmp_path)
    client = MlflowClient(uri, uri)
    (run,) = client.search_runs([client.get_experiment_by_name(chosen.tracking.experiment).experiment_id])
    assert run.data.metrics["suspects/class"] == CHANGED
    assert run.data.params["suspects.class_score"] == "0.6" and "validated.digest" in run.data.tags
    stored = {file.path for file in client.list_artifacts(run.info.run_id, "reports/suspects")}
    assert stored == {"reports/suspects/findings.json", "reports/suspects/index.html"}
