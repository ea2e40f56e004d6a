"""The evaluate stage on pictures whose answer is known."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from pipeline.errors import DataError
from pipeline.evaluation.config import EvaluateConfig
from pipeline.layout import Layout
from tests.data.simple import simple_dataset
from tests.evaluation.cases import judge
from tests.evaluation.colours import ColourDetector


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """The stage's module, and its config over a small dataset and a detector that finds colours."""
    from pipeline.settings import EvaluateStage
    from pipeline.stages import evaluate
    from pipeline.training.config import ComputeConfig

    simple_dataset(tmp_path / "made")
    (tmp_path / "data").mkdir()
    (tmp_path / "made/dataset").rename(tmp_path / "data/validated")
    loaded = SimpleNamespace(
        model=ColourDetector().eval(),
        cfg=SimpleNamespace(
            kind="colours", tasks=("bbox",), input=SimpleNamespace(short_side=128, long_side=160, channels="rgb")
        ),
        categories=[{"id": 1, "name": "red"}, {"id": 4, "name": "blue"}],
        stuff=[],
        semantic=[],
    )
    monkeypatch.setattr(evaluate, "load_detector", lambda folder, trusted: loaded)
    config = EvaluateStage(
        layout=Layout(tmp_path),
        evaluate=EvaluateConfig(
            engine="hotcoco", split="val", batch=4, max_detections=100, keypoint_sigma=0.05, drawing_score=0.5, sheet=6
        ),
        compute=ComputeConfig(device="cpu", threads=1, workers=0, processes=1, nodes=1, rendezvous="", slot=None),
        trusted=(),
    )
    return SimpleNamespace(run=evaluate.run, config=config, loaded=loaded, out=tmp_path / "reports/evaluate")


def test_reports_say_what_was_measured(stage):
    stage.run(stage.config)
    metrics = json.loads((stage.out / "metrics.json").read_text())
    assert metrics["bbox/AP50"] > 0.85
    assert {"bbox/AP", "bbox/AR100", "bbox/AP/red", "bbox/AP/blue"} <= metrics.keys()
    assert all(0 <= value <= 1 for value in metrics.values())
    predictions = json.loads((stage.out / "predictions.json").read_text())
    assert {row["category_id"] for row in predictions} == {1, 4}
    page = (stage.out / "index.html").read_text()
    assert page.count("<img") == 7
    assert all(f"val_{place}.png" in page for place in range(6))
    assert "Worst pictures" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert len(list(csv.reader((stage.out / "plots/pr.csv").open()))) == 102
    assert sorted(path.name for path in stage.out.rglob("*") if path.is_file()) == [
        "classes.csv",
        "index.html",
        "metrics.json",
        "pr.csv",
        "predictions.json",
    ]


def test_a_rerun_gives_the_same_bytes_and_the_judge_agrees(stage):
    stage.run(stage.config)
    first = {path.name: path.read_bytes() for path in stage.out.rglob("*") if path.is_file()}
    stage.run(stage.config)
    assert first == {path.name: path.read_bytes() for path in stage.out.rglob("*") if path.is_file()}
    stage.run(replace(stage.config, evaluate=replace(stage.config.evaluate, engine="pycocotools")))
    assert json.loads((stage.out / "metrics.json").read_text()) == pytest.approx(json.loads(first["metrics.json"]), abs=1e-12)


def test_the_judge_reads_the_same_numbers_from_the_files_alone(stage, tmp_path):
    """pycocotools on val.json and predictions.json, through none of this project's code."""
    stage.run(stage.config)
    metrics = json.loads((stage.out / "metrics.json").read_text())
    gt = json.loads((tmp_path / "data/validated/val.json").read_text())
    verdict = judge(gt, json.loads((stage.out / "predictions.json").read_text()))
    names = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
    expected = {f"bbox/{name}": value for name, value in zip(names, verdict.stats, strict=True) if value >= 0}
    assert {name: value for name, value in metrics.items() if "AP/" not in name} == pytest.approx(expected, abs=1e-12)


def test_classes_that_do_not_fit_are_both_listed_and_the_old_report_stays(stage):
    stage.run(stage.config)
    before = (stage.out / "metrics.json").read_bytes()
    stage.loaded.categories[1]["name"] = "green"
    with pytest.raises(DataError, match=r"(?s)data/validated.*red \(1\), blue \(4\).*red \(1\), green \(4\).*pipeline train"):
        stage.run(stage.config)
    assert (stage.out / "metrics.json").read_bytes() == before


def test_an_unknown_split_lists_the_known(stage):
    with pytest.raises(DataError, match=r"(?s)'vall'.*train.*val"):
        stage.run(replace(stage.config, evaluate=replace(stage.config.evaluate, split="vall")))
