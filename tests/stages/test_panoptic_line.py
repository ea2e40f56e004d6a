"""The line with maps: a panoptic and a semantic detector learnt, measured, quantized, exported, drawn; maps through validate."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.commands import predict
from pipeline.errors import DataError
from pipeline.layout import Layout
from pipeline.predict.map_files import decode_classes, decode_segments
from tests.stages.tiny import run_stages

GROUNDS = ("dataset.grounds=[1,3]", "train.optimizer.lr=0.003", "quantize.pictures=4")
PANOPTIC = (*GROUNDS, "model=panoptic_fpn_tiny", "train.steps=300")
SEMANTIC = (*GROUNDS, "model=semantic_fpn_tiny", "train.steps=300")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def mapped(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The data alone, ingested and validated."""
    layout = Layout(tmp_path_factory.mktemp("mapped"))
    run_stages(root, layout, ["ingest", "validate"], GROUNDS)
    return layout


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.line) for name in ("panoptic", "semantic")])
def line(request: pytest.FixtureRequest, mapped: Layout, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp(request.param))
    shutil.copytree(mapped.validated, layout.validated)
    overrides = PANOPTIC if request.param == "panoptic" else SEMANTIC
    run_stages(root, layout, ["train", "evaluate", "quantize", "export"], overrides)
    return layout


def is_panoptic(line: Layout) -> bool:
    return "panoptic" in line.root.name


def test_maps_survive_validation(mapped: Layout) -> None:
    """All of them, and the segments of labels that stayed."""
    for kind in ("semantic", "panoptic"):
        before, after = ({p.name: p.read_bytes() for p in (at / kind).iterdir()} for at in (mapped.dataset, mapped.validated))
        assert before == after and len(after) == 96 + 24
    info = read(mapped.validated / "dataset.json")
    assert {"semantic", "panoptic"} <= {*info["tasks"]} and info["semantic"][0] == "things" and len(info["stuff"]) == 5
    assert read(mapped.dataset / "dataset.json")["digest"] == info["digest"]


def test_maps_are_learnt_and_measured(line: Layout) -> None:
    metrics, trained = (read(line.reports(stage) / "metrics.json") for stage in ("evaluate", "train"))
    assert {"semantic/mIoU", "semantic/fwIoU", "semantic/mACC", "semantic/pACC", "semantic/mIoU/things"} <= metrics.keys()
    assert metrics["semantic/mIoU/things"] > 0.3  # one class everywhere gives less
    assert trained["val/semantic/mIoU"] == pytest.approx(metrics["semantic/mIoU"], abs=1e-9)
    page = (line.reports("evaluate") / "index.html").read_text()
    assert "Worst maps" in page and "Semantic maps by class" in page
    figures = {"panoptic/PQ", "panoptic/SQ", "panoptic/RQ", "panoptic/PQ_things", "panoptic/PQ_stuff"}
    if is_panoptic(line):
        assert figures <= metrics.keys() and "bbox/AP" in metrics and "Worst pictures" in page
    else:
        assert not any(name.startswith(("bbox", "panoptic")) for name in metrics) and "Worst pictures" not in page


def test_both_files_are_within_the_gate(line: Layout) -> None:
    metrics, deploy = read(line.reports("export") / "metrics.json"), read(line.onnx / "deploy.json")
    assert abs(metrics["export/onnx/semantic/mIoU_loss"]) <= 0.001 and metrics["export/int8/semantic/mIoU_loss"] <= 0.02
    assert deploy["outputs"][-1] == "semantic" and len(deploy["semantic"]) == 6
    if is_panoptic(line):
        assert abs(metrics["export/onnx/panoptic/PQ_loss"]) <= 0.001
        assert deploy["merging"] == {"overlap": 0.5, "stuff_area": 64.0, "score": 0.5, "stuff_ids": [4, 5, 6, 7, 8]}
    else:
        assert deploy["outputs"] == ["semantic"] and deploy["merging"] is None
    recipe = read(line.quantized / "recipe.json")
    assert "sem_seg_head.predictor.weight" in {*recipe["quantized"], *recipe["kept_float"]}


@pytest.mark.parametrize("options", [[], ["--int8"]], ids=["float", "int8"])
def test_predict_writes_and_draws_maps(
    line: Layout, tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The maps on disk measure as those of evaluate did: most pixels of things are things."""
    files = sorted((line.validated / "images").glob("val_*.png"))[:12]
    predict.run([*map(str, files), "--model", str(line.onnx), "--out", str(tmp_path), *options])
    assert "things" in capsys.readouterr().out
    right = []
    for path, record in zip(files, read(tmp_path / "predictions.json"), strict=True):
        classes = decode_classes(tmp_path / record["semantic"]["file"])
        wanted = decode_classes(line.validated / "semantic" / path.name)
        assert classes.shape == wanted.shape and record["semantic"]["classes"][0] == "things"
        right.append(((classes == 0) == (wanted == 0)).mean())
        if is_panoptic(line):
            ids, infos = decode_segments(tmp_path / record["panoptic"]["file"]), record["panoptic"]["segments_info"]
            assert set(np.unique(ids[ids > 0]).tolist()) == {info["id"] for info in infos}
            for info in infos:
                if not info["isthing"]:
                    assert (classes[ids == info["id"]] == info["category_id"] - 3).all()
                    assert record["semantic"]["classes"][info["category_id"] - 3] == info["class"]
        else:
            assert "panoptic" not in record and record["detections"] == []
    assert np.mean(right) > 0.7
    assert len(list(tmp_path.glob("*.png"))) == len(files)


def test_a_dataset_without_maps_stops_before_training(mapped: Layout, root: Path, tmp_path: Path) -> None:
    plain = Layout(tmp_path)
    shutil.copytree(mapped.validated, plain.validated)
    info = read(plain.validated / "dataset.json")
    info["tasks"] = [task for task in info["tasks"] if task not in ("semantic", "panoptic")]
    (plain.validated / "dataset.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="no semantic maps to learn from"):
        run_stages(root, plain, ["train"], SEMANTIC)
    assert not plain.detector.exists()
