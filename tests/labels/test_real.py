"""Clean real data (the pack's COCO, YOLO and VOC sets) has no finding of severity error, and few of severity warning."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipeline.labels.validation import validate
from pipeline.stages.ingest import read_source
from tests.data.conftest import dataset_config
from tests.labels.planted import settings

SETS: dict[str, tuple[str, str, dict[str, Any], dict[str, int]]] = {
    # Two whole pictures of food; the polygons of coco128 were joined by bridges, which cross.
    "coco": ("coco", "coco_mini_by", {}, {"class-absent-from-train": 9, "mask-full": 2}),
    "keypoints": ("coco", "coco_mini_by", {"annotations": "*person_keypoints*"}, {"keypoint-outside-box": 1}),
    "run lengths": (
        "coco",
        "panopticapi_sample/sample_data",
        {"annotations": "panoptic_coco_detection_format.json"},
        {"class-absent-from-train": 3},
    ),
    "yolo polygons": (
        "yolo",
        "coco128_by",
        {"data": "instance_segmentation/config.yaml"},
        {"box-near-duplicate-other-class": 1, "class-absent-from-train": 25, "mask-self-crossing": 37},
    ),
    "voc": ("voc", "microcontroller_voc", {}, {}),
}


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_wrong_with_clean_data(root: Path, shared: Path, name: str) -> None:
    kind, folder, chosen, warnings = SETS[name]
    source = shared / "data" / folder
    dataset = read_source(dataset_config(root, kind, source=str(source), **chosen), 0, source)
    result = validate(dataset, settings("safe"))
    assert result.changes == []
    assert [f for f in result.findings if f.severity == "error"] == []
    assert Counter(f.code for f in result.findings if f.severity == "warning") == warnings
