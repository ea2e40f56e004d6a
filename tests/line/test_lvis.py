"""The settings of LVIS through the line: sigmoids over drawn classes, and rare classes shown more often."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline import settings
from pipeline.data.dataset import open_dataset
from pipeline.layout import Layout
from pipeline.stages.train_rank import training_pictures
from tests.line.test_architectures import SMALL
from tests.stages.tiny import TINY, run_stages

pytestmark = pytest.mark.line

LVIS = (
    "model=mask_rcnn_tiny",
    "model.roi.class_loss.kind=sigmoid",
    "+model.roi.class_loss.federated={classes: 2, power: 0.5}",
    "train.repeat_rare=0.9",
    "train.steps=40",
)


def test_it_trains_and_is_measured(root: Path, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    run_stages(root, layout, ["ingest", "validate", "train", "evaluate"], (*SMALL, *LVIS))
    measured = json.loads((layout.reports("evaluate") / "metrics.json").read_text())
    assert 0 <= measured["bbox/AP"] <= 1 and 0 <= measured["segm/AP"] <= 1
    cfg = settings.stage_config("train", settings.load([*TINY, *SMALL, *LVIS], root), layout)
    order = training_pictures(open_dataset(layout.validated).split("train"), cfg).order
    assert order.repeats is not None and order.repeats.max() > 1
    shown = np.bincount([order.row(position) for position in range(2000)], minlength=len(order.repeats))
    assert np.corrcoef(shown, order.repeats)[0, 1] > 0.5
