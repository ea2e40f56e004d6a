"""What a task asks of the labels, and what the labels make of a model's settings."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.advice.pictures import TimedPictures
from pipeline.advice.proposal import advise
from pipeline.advice.statistics import statistics_of
from pipeline.commands import advise as command
from pipeline.data.dataset import Dataset
from pipeline.errors import DataError, UserError
from tests.advice.wanted import WANTED, cheap, setting
from tests.data.simple import simple_dataset
from tests.detector.models import read_config


@pytest.mark.parametrize("task", ["segm", "keypoints", "semantic", "panoptic", "rotated", "densepose"])
def test_a_task_that_the_dataset_lacks_is_refused_by_name(
    task: str, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simple_dataset(tmp_path / "made")
    (tmp_path / "conf").symlink_to(root / "conf")
    shutil.copytree(tmp_path / "made/dataset", tmp_path / "data/validated")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"cannot teach [\w ]+ \(advise.task={task}\)") as refused:
        command.run([f"advise.task={task}"])
    assert "it holds boxes (advise.task=bbox)\n" in f"{refused.value}\n"


def test_labels_that_only_one_split_has_do_not_teach(shapes: Dataset, tmp_path: Path) -> None:
    from pipeline.advice.choice import held_tasks, require_task

    every = {"bbox", "segm", "keypoints", "semantic", "panoptic", "rotated", "densepose"}
    assert {*held_tasks(shapes, tmp_path)} == every
    shapes.splits["val"].annotations.keypoints_AK3 = None
    with pytest.raises(UserError, match="cannot teach keypoints"):
        require_task(shapes, "keypoints", tmp_path)
    assert {*held_tasks(shapes, tmp_path)} == every - {"keypoints"}


def test_a_named_model_with_a_further_task_needs_its_labels(shapes: Dataset, known: dict[str, Any], tmp_path: Path) -> None:
    """Panoptic FPN for masks learns maps too; left to itself the command passes over what cannot be taught."""
    from pipeline.advice.choice import teachable

    shapes.splits["train"].maps = None
    with pytest.raises(DataError, match="no semantic maps"):
        teachable(replace(WANTED, task="segm", models=("panoptic_fpn_r50",)), known, shapes, tmp_path)
    shapes.splits["train"].annotations.rotated_A5 = None
    assert [*teachable(replace(WANTED, task="proposals"), known, shapes, tmp_path)] == ["rpn_r50_fpn"]


def test_heads_are_as_large_as_the_labels_ask(shapes: Dataset) -> None:
    for task, name, key in (
        ("keypoints", "keypoint_rcnn_r50_fpn", "model.roi.keypoint.keypoints"),
        ("densepose", "densepose_rcnn_r50_fpn", "model.roi.densepose.parts"),
    ):
        stats = statistics_of(shapes, task, "here")  # type: ignore[arg-type]
        advice = advise(stats, replace(WANTED, task=task, models=(name,)), {name: read_config(name)}, cheap)
        most = max(len(category.keypoints) for category in shapes.info.categories)
        assert shapes.info.surface is not None
        assert setting(advice, key) == str(most if task == "keypoints" else len(shapes.info.surface.parts))


def test_the_least_stuff_is_a_share_of_the_pictures(shapes: Dataset) -> None:
    """64 x 64 pixels are as many as the reference's least segment; on COCO's pictures the model's own stays."""
    name, wanted = "panoptic_fpn_r50", replace(WANTED, task="panoptic", models=("panoptic_fpn_r50",), latency_ms=1e6)
    stats = statistics_of(shapes, "panoptic", "here")
    advice = advise(stats, wanted, {name: read_config(name)}, cheap)
    assert setting(advice, "model.combine.stuff_area") == str(round(0.0133 * 64 * 64))
    advice = advise(replace(stats, sizes_I2=stats.sizes_I2 * [8, 10]), wanted, {name: read_config(name)}, cheap)
    assert not any("stuff" in override for override in advice.overrides())


def test_pictures_are_not_mirrored_where_dense_labels_cannot_follow(shapes: Dataset) -> None:
    assert shapes.info.surface is not None and shapes.info.surface.mirror is not None
    name, wanted = "densepose_rcnn_tiny", replace(WANTED, task="densepose", models=("densepose_rcnn_tiny",))
    models = {name: read_config(name)}
    advice = advise(statistics_of(shapes, "densepose", "here"), wanted, models, cheap)
    assert not any("flip" in override for override in advice.overrides())
    shapes.info.surface = replace(shapes.info.surface, mirror=None)
    assert setting(advise(statistics_of(shapes, "densepose", "here"), wanted, models, cheap), "train.augment.flip") == "0"
    assert statistics_of(shapes, "bbox", "here").mirrored


def test_maps_need_no_objects(shapes: Dataset) -> None:
    split = shapes.splits["train"]
    split.annotations = split.annotations.take(np.zeros(0, np.int64))
    stats = statistics_of(shapes, "semantic", "here")
    name = "semantic_fpn_r50"
    advice = advise(stats, replace(WANTED, task="semantic", models=(name,)), {name: read_config(name)}, cheap)
    assert setting(advice, "model.input.short_side") == "64" and not any("nan" in text for text in advice.warnings)
    with pytest.raises(DataError, match="no object with area"):
        statistics_of(shapes, "panoptic", "here")


def test_keypoints_are_counted_on_pictures_that_have_some(shapes: Dataset) -> None:
    split = shapes.splits["train"]
    assert split.annotations.keypoints_AK3 is not None
    split.annotations.keypoints_AK3[split.annotations.image_A >= 5] = 0
    assert len(statistics_of(shapes, "keypoints", "here").sizes_I2) == 5
    assert len(statistics_of(shapes, "bbox", "here").sizes_I2) == 12
    assert TimedPictures.of(shapes, "keypoints").rows.max() == 4
