"""The smallest line that still learns: 64-pixel shapes, a narrow ResNet, seconds per stage."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from pipeline import settings
from pipeline.layout import Layout

TINY = (
    "model=faster_rcnn_tiny",
    "dataset.size=64",
    "dataset.train=96",
    "dataset.val=24",
    "train.steps=240",
    "train.optimizer.lr=0.002",
    "train.optimizer.weight_decay=0.0001",
    "train.augment.crop=0",
    "train.validate_every=0",
    "compute.workers=0",
    "quantize.pictures=16",
    "tracking=off",
)

MASKS = ("model=mask_rcnn_tiny", "train.steps=200", "quantize.pictures=4")
"""On top: the same detector with a mask head."""


def run_stages(root: Path, layout: Layout, stages: Sequence[str], overrides: Sequence[str] = ()) -> None:
    """Run `stages` in this process, with the settings of the checkout at `root` and files in `layout`."""
    config = settings.load([*TINY, *overrides], root)
    for stage in stages:
        importlib.import_module(f"pipeline.stages.{stage}").run(settings.stage_config(stage, config, layout))
