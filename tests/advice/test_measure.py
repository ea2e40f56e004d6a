"""A step of every task is timed: on the dataset's own pictures, with the settings that the printed overrides make."""

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import settings
from pipeline.advice import measure as measuring
from pipeline.advice.fitting import fit
from pipeline.advice.measure import Classes, Measured, crowded, measure
from pipeline.advice.pictures import TimedPictures
from pipeline.advice.statistics import statistics_of
from pipeline.commands import advise as command
from pipeline.data.dataset import Dataset
from pipeline.detector.losses import Losses
from pipeline.errors import UserError
from pipeline.structures import Images, Targets
from tests.advice.wanted import WANTED, cheap
from tests.detector.models import batch, read_config
from tests.detector.models import made as build


def test_costs_are_measured_in_a_process_of_its_own() -> None:
    cfg = read_config("mask_rcnn_tiny")
    images, targets = batch(build(cfg, 3), [(60, 64)])
    one = measure(cfg, Classes(3, 0, 4), images, targets, "cpu", 1)
    assert 0.001 < one.picture_seconds < 60 and one.step_seconds > 0.001
    assert 100e6 < one.peak_bytes < 8e9


def test_a_step_that_fails_says_of_which_model_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)
    cfg = read_config("semantic_fpn_tiny")
    images, targets = batch(build(cfg, 3), [(64, 64)])
    with pytest.raises(UserError, match=r"timed step of semantic_fpn, 64 x 64 pixels, batch 1, failed: .*semantic_classes=1"):
        measure(cfg, Classes(3, 1, 4), images, targets, "cpu", 1)


def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are timed in this process: its imports are done."""

    def run(command: list[str], input: str, **_: Any) -> Any:
        task = json.loads(input)
        try:
            return subprocess.CompletedProcess(command, 0, json.dumps(measuring.asdict(measuring._measured(task))), "")
        except UserError as error:
            return subprocess.CompletedProcess(command, 1, f"{measuring.FAILED}{error}", "")

    monkeypatch.setattr(measuring.subprocess, "run", run)


TINY = {
    "bbox": "retinanet_tiny",
    "segm": "mask_rcnn_tiny",
    "keypoints": "keypoint_rcnn_tiny",
    "semantic": "semantic_fpn_tiny",
    "panoptic": "panoptic_fpn_tiny",
    "rotated": "rotated_faster_rcnn_tiny",
    "densepose": "densepose_rcnn_tiny",
}
TERMS = {
    "bbox": "loss_box_reg",
    "segm": "loss_mask",
    "keypoints": "loss_keypoint",
    "semantic": "loss_sem_seg",
    "panoptic": "loss_sem_seg",
    "rotated": "loss_box_reg",
    "densepose": "loss_densepose_U",
}
"""A term of each task's loss that only its own labels feed."""


@pytest.mark.parametrize("task", TINY)
def test_the_overrides_make_the_model_that_was_timed(
    task: str,
    checkout: Path,
    known: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of the models of conf/model that a user would take; what is printed composes to its settings, to the last anchor."""
    timed: list[Any] = []

    def remember(cfg: Any, *rest: Any) -> Measured:
        timed.append(cfg)
        return cheap(cfg, *rest)

    monkeypatch.chdir(checkout)
    monkeypatch.setattr(command, "measuring", lambda *_: remember)
    monkeypatch.setattr(command, "models", lambda folder: known)
    command.run([f"advise.task={task}"])
    said = capsys.readouterr().out.splitlines()
    chosen = settings.load(shlex.split(said[-1].removeprefix("python -m pipeline config ")))
    assert chosen.model == timed[-1] and chosen.model.tasks[-1] == task
    assert chosen.train.optimizer.kind == "sgd" and chosen.train.steps == WANTED.least_steps
    table = said[: said.index("")]
    for what in ("model", "input size", "batch", "learning rate", "schedule", "score threshold"):
        assert sum(line.startswith(f"{what} ") for line in table) == 1, what
    assert any(line.startswith("anchors ") for line in table) == (task not in ("semantic", "rotated"))
    assert all(len(re.split(r"  +", line, maxsplit=2)) == 3 for line in table), "what, value, reason"


@pytest.mark.parametrize(("task", "name"), [*TINY.items(), ("bbox", "fast_rcnn_tiny")])
def test_a_step_of_every_task_is_timed_on_its_own_labels(
    task: Any, name: str, checkout: Path, shapes: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms: dict[str, float] = {}
    total = Losses.total

    def told(losses: Any) -> torch.Tensor:
        terms.update({name: float(value.detach()) for name, value in losses.terms.items()})
        return total(losses)

    monkeypatch.setattr(Losses, "total", told)
    in_process(monkeypatch)
    monkeypatch.chdir(checkout)
    chosen = settings.load([f"advise.task={task}", f"advise.models=[{name}]", "compute.threads=1"])
    stats = statistics_of(shapes, task, "here")
    fitted = fit(stats, chosen.advise, read_config(name))
    found = command.measuring(shapes, chosen, stats.most_objects)(fitted.cfg, 70, 90, 2)
    assert found.step_seconds > 0 and found.picture_seconds > 0 and found.peak_bytes > 0
    named = [name for name in terms if name.startswith(TERMS[task])]
    assert named and all(np.isfinite(value) for value in terms.values()) and all(terms[name] > 0 for name in named), terms


def test_the_timed_batch_is_the_datasets_own(shapes: Dataset) -> None:
    """The pictures with most objects, stretched to one size with all their labels."""
    cfg = read_config("panoptic_fpn_tiny")
    pictures = TimedPictures.of(shapes, "panoptic")
    images, targets = pictures.batch(cfg, 128, 192, 2)
    split = shapes.split("train")
    counts = np.bincount(split.annotations.image_A, minlength=len(split.images))
    assert counts[pictures.rows].tolist() == sorted(counts.tolist(), reverse=True)
    assert images.pixels_N3HW.shape == (2, 3, 128, 192) and images.sizes_N2.tolist() == [[128, 192]] * 2
    own = split.annotations.boxes_A4[split.rows_of(int(pictures.rows[0]))] * [3, 2, 3, 2]
    np.testing.assert_allclose(targets.boxes_NG4[0, : len(own)], own, rtol=1e-6)
    assert split.maps is not None and targets.semantic_NHW is not None
    classes_HW = split.maps.classes_of(int(pictures.rows[0]))
    np.testing.assert_array_equal(targets.semantic_NHW[0], classes_HW.repeat(2, axis=0).repeat(3, axis=1))


def test_a_batch_comes_back_as_it_was_sent_and_is_padded(tmp_path: Path) -> None:
    images, targets = batch(build(read_config("panoptic_fpn_tiny"), 3), [(64, 64), (40, 60)])
    torch.save({"images": measuring._plain(images), "targets": measuring._plain(targets)}, tmp_path / "batch.pt")
    read: tuple[Images, Targets] = measuring.read_batch(tmp_path / "batch.pt", 48)
    assert read[0].pixels_N3HW.shape == (2, 3, 96, 96) and (read[0].pixels_N3HW[:, :, 64:] == 0).all()
    assert read[1].semantic_NHW is not None and (read[1].semantic_NHW[:, :, 64:] == 255).all()
    for before, after in ((images, read[0]), (targets, read[1])):
        for name, value in measuring._plain(before).items():
            other = measuring._plain(after)[name]
            if name == "pixels_N3HW" or name == "semantic_NHW":
                other = other[..., :64, :64]
            torch.testing.assert_close(other, value, rtol=0, atol=0)


def test_a_picture_is_timed_with_as_many_finds_as_the_fullest_has_objects() -> None:
    """Else a network that has learnt nothing would show its mask head to none, or to a hundred."""
    for name in ("mask_rcnn_tiny", "retinanet_tiny"):
        for objects in (1, 7):
            torch.manual_seed(0)
            model: Any = build(crowded(read_config(name), objects), 3).eval()
            with torch.no_grad():
                found = model.detect(batch(model, [(64, 64)])[0])
            assert found.count_N.tolist() == [objects], name
    assert crowded(read_config("semantic_fpn_tiny"), 5) == read_config("semantic_fpn_tiny")
