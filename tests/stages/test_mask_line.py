"""The line with a mask detector: masks learnt, measured, quantized, exported, drawn; and data that it cannot learn from."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from pycocotools import mask as coco_mask

from pipeline.commands import predict
from pipeline.errors import DataError
from pipeline.layout import Layout
from tests.evaluation.cases import judge
from tests.stages.tiny import MASKS, run_stages

pytestmark = pytest.mark.line


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_masks_are_learnt_and_measured(mask_line: Layout) -> None:
    metrics = read(mask_line.reports("evaluate") / "metrics.json")
    assert metrics["segm/AP50"] > 0.1 and metrics["bbox/AP50"] > 0.1  # without learning both stay below 0.05
    assert {"segm/AP", "segm/AR100"} <= metrics.keys() and any(name.startswith("segm/AP/") for name in metrics)
    assert read(mask_line.reports("train") / "metrics.json")["val/segm/AP"] == pytest.approx(metrics["segm/AP"], abs=1e-9)
    page = (mask_line.reports("evaluate") / "index.html").read_text()
    assert "Masks by class" in page and "AP of masks" in page
    header = (mask_line.reports("evaluate") / "plots/classes.csv").read_text().splitlines()[0]
    assert header == "class,AP,AP50,AR,mask_AP,mask_AP50,mask_AR"


def test_the_judge_reads_the_same_mask_figures_from_the_files_alone(mask_line: Layout) -> None:
    """pycocotools on val.json and predictions.json, through none of this project's code."""
    found = read(mask_line.reports("evaluate") / "predictions.json")
    masks = [{name: value for name, value in row.items() if name != "bbox"} for row in found]
    verdict = judge(read(mask_line.validated / "val.json"), masks, "segm")
    metrics = read(mask_line.reports("evaluate") / "metrics.json")
    assert metrics["segm/AP"] == pytest.approx(verdict.stats[0], abs=1e-12)
    assert metrics["segm/AR100"] == pytest.approx(verdict.stats[8], abs=1e-12)


def test_both_files_give_masks_within_the_gate(mask_line: Layout) -> None:
    metrics, deploy = read(mask_line.reports("export") / "metrics.json"), read(mask_line.onnx / "deploy.json")
    assert abs(metrics["export/onnx/segm/AP_loss"]) <= 0.001 and metrics["export/int8/segm/AP_loss"] <= 0.02
    assert deploy["outputs"] == ["boxes", "scores", "labels", "count", "masks"]
    assert deploy["parity"]["torch"]["segm/AP"] == pytest.approx(metrics["export/torch/segm/AP"])
    assert deploy["parity"]["int8"]["per_class_segm"]
    graph = onnx.load(str(mask_line.onnx / "detector.int8.onnx")).graph
    assert [value.name for value in graph.output] == deploy["outputs"]
    shape = [dim.dim_value for dim in graph.output[4].type.tensor_type.shape.dim]
    assert shape[1:] == [50, 14, 14]


def test_mask_convolutions_keep_their_names_in_the_recipe(mask_line: Layout) -> None:
    recipe = read(mask_line.quantized / "recipe.json")
    assert {"roi_heads.mask_head.mask_fcn1.weight"} <= {*recipe["quantized"], *recipe["kept_float"]}


@pytest.mark.parametrize("options", [[], ["--int8"]], ids=["float", "int8"])
def test_predict_gives_masks_that_lie_on_their_objects(mask_line: Layout, tmp_path: Path, options: list[str]) -> None:
    """Against the labels' masks: the detector finds most shapes by their outlines, not only by their boxes."""
    truth = read(mask_line.validated / "val.json")
    pictures = {image["id"]: image for image in truth["images"][:12]}
    files = [str(mask_line.validated / "images" / image["file_name"]) for image in pictures.values()]
    predict.run([*files, "--model", str(mask_line.onnx), "--out", str(tmp_path), "--threshold", "0.3", *options])
    overlaps = []
    for image, record in zip(pictures.values(), read(tmp_path / "predictions.json"), strict=True):
        height, width = image["height"], image["width"]
        labels = [
            coco_mask.merge(coco_mask.frPyObjects(row["segmentation"], height, width))
            for row in truth["annotations"]
            if row["image_id"] == image["id"]
        ]
        found = [detection["mask"] for detection in record["detections"]]
        if labels and found:
            overlaps += np.asarray(coco_mask.iou(found, labels, [0] * len(labels))).max(axis=1).tolist()
    assert len(overlaps) > 5 and np.median(overlaps) > 0.5
    assert len(list(tmp_path.glob("*.png"))) == len(files)


def test_a_dataset_of_boxes_stops_before_training(line: Layout, root: Path, tmp_path: Path) -> None:
    boxes = Layout(tmp_path)
    shutil.copytree(line.validated, boxes.validated)
    for name in ("train", "val"):
        content = read(boxes.validated / f"{name}.json")
        for row in content["annotations"]:
            del row["segmentation"]
        (boxes.validated / f"{name}.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"labels of the split train have no mask: nothing to learn masks from"):
        run_stages(root, boxes, ["train"], MASKS)
    assert not boxes.detector.exists()
