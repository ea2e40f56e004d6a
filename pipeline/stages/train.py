"""Train: a detector with as many classes as the dataset has, from scratch or from pretrained weights."""

import shutil
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import tracking
from pipeline.data.dataset import open_dataset
from pipeline.progress import Progress
from pipeline.training.launch import launch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.settings import TrainStage

SHOWN = ("train/loss", "train/lr", "train/pictures_per_second", "val/bbox/AP", "val/bbox/AP50", "val/segm/AP")
"""Figures of the progress line; all of them go to the curves."""


def run(cfg: "TrainStage") -> None:
    """data/validated -> models/detector, reports/train.

    A run that was stopped goes on from its checkpoints in work/train. When losses are not finite the message names the
    pictures, and models/detector is left as it was.
    """
    open_dataset(cfg.layout.validated)  # a missing one is said before anything starts
    with work_folder(cfg) as work, Progress("train", cfg.train.steps) as progress:
        curves = tracking.curves()

        def show(step: int, figures: Mapping[str, float]) -> None:
            curves.log(step, figures)
            shown = (f"{name.split('/', 1)[1]} {value:.4g}" for name, value in figures.items() if name in SHOWN)
            progress.show(step, "  ".join(shown))

        def hear(said: Mapping[str, Any]) -> None:
            if "first" in said:
                curves.open()  # of several machines, the one that rank 0 is on has the run
            else:
                show(**said)

        if cfg.compute.alone:
            from pipeline.stages.train_rank import train_alone

            train_alone(cfg, work, show)
        else:
            cfg.write(work / "settings.json")
            launch("pipeline.stages.train_rank:train_rank", work / "settings.json", cfg.compute, hear)


@contextmanager
def work_folder(cfg: "TrainStage") -> "Iterator[Path]":
    """The place of this run's checkpoints, named by all that its result depends on; removed when the block ends well."""
    labels = sorted(cfg.layout.validated.glob("*.json"))  # with dataset.json, which holds a digest of the pictures
    work = cfg.layout.work("train", cfg.digest(labels))
    work.mkdir(parents=True, exist_ok=True)
    yield work
    shutil.rmtree(work)
