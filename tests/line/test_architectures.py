"""Every architecture in conf/model through the whole line, in its tiny form: pictures to files that were held against torch.

A new architecture is here as soon as conf/model/<name>_tiny.yaml is.
"""

import json
from pathlib import Path

import onnx
import pytest

from pipeline import settings
from pipeline.layout import Layout
from pipeline.tasks import FIGURE, Task
from tests.detector.test_family import NAMES
from tests.stages.tiny import run_stages

pytestmark = [pytest.mark.line, pytest.mark.timeout(900)]

SMALL = ("dataset.train=48", "dataset.val=12", "export.pictures=2")
ROUGH = ("quantize.pictures=16", "quantize.held_loss=0.05", "export.gate.int8_ap=0.05")
"""What has hardly learnt loses by points in INT8, whose gate has tests of its own."""
LEARNT = 300
STEPS = {"keypoint_rcnn_tiny": LEARNT, "densepose_rcnn_tiny": LEARNT, "panoptic_fpn_tiny": LEARNT, "rotated_rpn_tiny": 150}
"""Steps of training, where 60 leave a figure at 0: then every loss of it would be 0 too."""
COVERED = ("faster_rcnn_tiny", "mask_rcnn_tiny", "panoptic_fpn_tiny", "semantic_fpn_tiny")
"""tests/stages runs these through the line anyway."""
SLOW = ("densepose_rcnn_tiny", "mask_rcnn_c4_tiny", "tensormask_tiny")
"""Minutes each: by hand, like those that are covered."""
ALIKE = ("cascade_mask_rcnn_tiny", "mask_rcnn_dconv_tiny", "point_rend_tiny", "rotated_rpn_tiny")
"""Their way through the line is that of one that runs, and tests/detector exports them: by hand too."""
FLOORS: dict[str, dict[Task, float]] = {
    "cascade_mask_rcnn_tiny": {"bbox": 0.08, "segm": 0.08},
    "densepose_rcnn_tiny": {"bbox": 0.03, "densepose": 0.0009},
    "fast_rcnn_tiny": {"bbox": 0.1},
    "faster_rcnn_tiny": {"bbox": 0.08},
    "keypoint_rcnn_tiny": {"bbox": 0.05, "keypoints": 0.02},
    "mask_rcnn_c4_tiny": {"bbox": 0.003, "segm": 0.002},
    "mask_rcnn_dconv_tiny": {"bbox": 0.05, "segm": 0.04},
    "mask_rcnn_tiny": {"bbox": 0.08, "segm": 0.07},
    "panoptic_fpn_tiny": {"bbox": 0.06, "segm": 0.05, "semantic": 0.09, "panoptic": 0.01},
    "point_rend_tiny": {"bbox": 0.07, "segm": 0.06},
    "retinanet_tiny": {"bbox": 0.08},
    "rotated_faster_rcnn_tiny": {"rotated": 0.03},
    "rotated_rpn_tiny": {"rotated": 0.03, "proposals": 0.2},
    "rpn_tiny": {"proposals": 0.2},
    "semantic_fpn_tiny": {"semantic": 0.08},
    "tensormask_tiny": {"bbox": 0.06, "segm": 0.06},
}
"""Half of what was measured after LEARNT steps; nothing learnt is 0."""


@pytest.fixture(scope="module")
def data(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The shapes that every architecture is given; read-only."""
    layout = Layout(tmp_path_factory.mktemp("shapes"))
    run_stages(root, layout, ["ingest", "validate"], SMALL)
    return layout


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.nightly if name in COVERED + SLOW + ALIKE else ()) for name in NAMES]
)
def test_the_line_runs(name: str, data: Layout, root: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "data").symlink_to(data.root / "data")
    steps = STEPS.get(name, 60)
    run_stages(
        root, layout, ["train", "evaluate", "quantize", "export"], (*SMALL, *ROUGH, f"model={name}", f"train.steps={steps}")
    )

    tasks = settings.load([f"model={name}"], root).model.tasks
    measured = json.loads((layout.reports("evaluate") / "metrics.json").read_text())
    losses = json.loads((layout.reports("export") / "metrics.json").read_text())
    for task in tasks:
        figure = FIGURE[task]
        assert 0 < measured[f"{task}/{figure}"] <= 1
        prefix = "" if task == "bbox" else f"{task}/"
        assert abs(losses[f"export/onnx/{prefix}{figure}_loss"]) <= 0.001
        assert losses[f"export/torch/{prefix}{figure}"] == pytest.approx(measured[f"{task}/{figure}"], abs=1e-9)
    deploy = json.loads((layout.onnx / "deploy.json").read_text())
    for entry in deploy["files"].values():
        graph = onnx.load(str(layout.onnx / entry["file"]))
        onnx.checker.check_model(graph, full_check=True)
        assert [output.name for output in graph.graph.output] == deploy["outputs"]


@pytest.mark.nightly
@pytest.mark.parametrize("name", NAMES)
def test_it_learns(name: str, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(tmp_path)
    run_stages(root, layout, ["ingest", "validate", "train", "evaluate"], (f"model={name}", f"train.steps={LEARNT}"))
    measured = json.loads((layout.reports("evaluate") / "metrics.json").read_text())
    figures = {task: measured[f"{task}/{FIGURE[task]}"] for task in settings.load([f"model={name}"], root).model.tasks}
    with capsys.disabled():
        print(f"\n{name} {figures}")
    assert all(figures[task] >= floor for task, floor in FLOORS[name].items())
