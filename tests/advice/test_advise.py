"""Advice: the recall is that of every anchor tried, costs are measured, and other objects or pictures give other advice."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ops_cuda import box_iou
from pipeline.advice.anchors import cluster
from pipeline.advice.choice import candidates
from pipeline.advice.fitting import recall_of
from pipeline.advice.measure import Measured
from pipeline.advice.proposal import advise, largest_batch
from pipeline.advice.statistics import Statistics, statistics_of
from pipeline.advice.strides import levels_of
from pipeline.advice.table import Advice
from pipeline.detector.anchors import AnchorGenerator
from pipeline.detector.build import build_detector
from pipeline.errors import UserError
from tests.advice.wanted import WANTED, cheap, setting
from tests.data.simple import simple_dataset
from tests.detector.models import read_config

MODELS = {name: read_config(name) for name in ("faster_rcnn_r50_fpn", "retinanet_r50_fpn", "faster_rcnn_tiny", "mask_rcnn_tiny")}


def made(seed: int = 0, pictures: int = 150, size: float = 40.0, side: int = 480) -> Statistics:
    chance = np.random.default_rng(seed)
    sizes = chance.integers([side * 0.8, side], [side, side * 1.3], (pictures, 2)).astype(float)
    image = chance.integers(0, pictures, pictures * 4)
    extent = size * np.exp(chance.normal(0, 0.6, (len(image), 2)))
    extent = np.minimum(extent, sizes[image][:, ::-1] * 0.6)
    corner = chance.random((len(image), 2)) * (sizes[image][:, ::-1] - extent)
    return Statistics(sizes, np.concatenate([corner, corner + extent], axis=1), image, 3)


def ask(stats: Statistics, measured: Any = cheap, **other: Any) -> Advice:
    return advise(stats, replace(WANTED, **other), MODELS, measured)


GRIDS = (
    *("faster_rcnn_r50_fpn", "retinanet_r50_fpn", "faster_rcnn_tiny", "faster_rcnn_r50_c4", "faster_rcnn_r50_dc5"),
    *("torchvision_faster_rcnn", "torchvision_retinanet"),
)
"""Pyramids with and without levels above them, one stage, a dilated one, and torchvision's rounded and spread anchors."""


@pytest.mark.parametrize("name", GRIDS)
def test_the_recall_is_that_of_brute_force(name: str) -> None:
    """Every anchor of every padded picture against every truth: the detector's own generator on the detector's own maps."""
    stats, cfg = made(pictures=12, side=150, size=20), read_config(name)
    cfg = replace(cfg, input=replace(cfg.input, short_side=128, long_side=192))
    with torch.device("meta"):
        model = build_detector(cfg, 3).eval()
    strides = [model.backbone.level_strides.get(level, 2 ** int(level[1:])) for level in levels_of(cfg) if level[0] == "p"]
    strides = strides or [model.backbone.level_strides[level] for level in levels_of(cfg)]
    anchors: Any = cfg.anchors
    generator = AnchorGenerator(anchors.sizes, anchors.ratios, strides, anchors.offset, anchors.rounding, anchors.spacing)
    reached = []
    for picture, (size, scale) in enumerate(zip(stats.sizes_I2, stats.scales_I(128, 192), strict=True)):
        padded = [-(-int(side * scale + 0.5) // model.divisor) * model.divisor for side in size]
        with torch.no_grad():
            features = model.backbone(torch.zeros(1, 3, *padded, device="meta"))
        maps = [torch.zeros(1, 1, *features[level].shape[-2:]) for level in levels_of(cfg)]
        boxes = torch.from_numpy(stats.boxes_A4[stats.image_A == picture] * scale)
        ious = box_iou(boxes.unsqueeze(0), torch.cat(generator(maps)).double().unsqueeze(0))[0]
        reached += (ious.max(dim=1).values >= 0.5).tolist() if len(boxes) else []
    found = recall_of(stats, WANTED, cfg)
    assert 0.02 < found < 0.999 and found == pytest.approx(np.mean(reached), abs=1e-12)


def test_the_printed_recall_is_that_of_the_advised_anchors() -> None:
    stats = made()
    advice = ask(stats)
    line = next(line for line in advice.lines if line.what == "anchors")
    cfg = MODELS[setting(advice, "model")]
    short, long = (int(setting(advice, f"model.input.{side}_side")) for side in ("short", "long"))
    cfg = replace(cfg, input=replace(cfg.input, short_side=short, long_side=long))
    sizes, ratios = (json.loads(setting(advice, f"model.anchors.{name}")) for name in ("sizes", "ratios"))
    advised = replace(cfg, anchors=replace(cfg.anchors, sizes=sizes, ratios=ratios))
    assert recall_of(stats, WANTED, advised) == pytest.approx(advice.recall)
    own = recall_of(stats, WANTED, cfg)
    assert advice.recall > own and f"{advice.recall:.1%}" in line.reason and f"{own:.1%}" in line.reason


def test_clusters_are_found() -> None:
    chance = np.random.default_rng(0)
    values = np.concatenate([centre * np.exp(chance.normal(0, 0.05, 200)) for centre in (8, 30, 100)])
    np.testing.assert_allclose(cluster(values, 3), [8, 30, 100], rtol=0.05)


def test_halving_all_boxes_changes_the_advice() -> None:
    stats = made()
    half = replace(
        stats, boxes_A4=np.concatenate([stats.boxes_A4[:, :2], (stats.boxes_A4[:, :2] + stats.boxes_A4[:, 2:]) / 2], axis=1)
    )
    first, second = ask(stats), ask(half)
    assert int(setting(second, "model.input.short_side")) > int(setting(first, "model.input.short_side"))
    assert first.overrides() != second.overrides()


def test_small_pictures_and_objects_below_the_stride_are_said_plainly() -> None:
    plain = " ".join(ask(made()).warnings)
    small = " ".join(ask(made(size=2.0, side=100, pictures=20)).warnings)
    assert "low resolution" not in plain and "finest stride" not in plain and "are few" not in plain
    assert "low resolution (90 px)" in small or "low resolution" in small
    assert (
        re.search(r"\d+% of the objects are smaller than the finest stride \(\d+ px\)", small)
        and "Cut the pictures into tiles" in small
    )
    assert "20 training pictures are few" in small


def test_a_budget_decides_and_says_what_did_not_fit() -> None:
    dear = {"faster_rcnn": 3.0, "retinanet": 0.1}

    def measured(cfg: Any, height: int, width: int, batch: int) -> Measured:
        return replace(cheap(cfg, height, width, batch), picture_seconds=dear[cfg.kind])

    advice = ask(made(), measured, latency_ms=500)
    assert setting(advice, "model") == "retinanet_r50_fpn" and "faster_rcnn_r50_fpn takes 3000 ms" in advice.lines[0].reason
    with pytest.raises(UserError, match=r"no model for boxes fits 50 ms and 8 GB\n  faster_rcnn_r50_fpn takes 3000 ms"):
        ask(made(), measured, latency_ms=50)


def test_memory_decides_the_batch_and_the_rate_follows_it() -> None:
    one, two = Measured(1, 1, 2_000_000_000), Measured(1, 1, 2_500_000_000)
    assert largest_batch(replace(WANTED, memory_gb=8), one, two, 1000) == 8  # 7.2 GB: 2 and ten times a half, so 11
    assert largest_batch(replace(WANTED, memory_gb=100), one, two, 1000) == 16
    assert largest_batch(replace(WANTED, memory_gb=100), one, two, 3) == 2
    assert largest_batch(replace(WANTED, memory_gb=1), one, two, 1000) == 1
    advice = ask(made(), lambda *_: one, largest_batch=4, latency_ms=5000)
    assert setting(advice, "train.batch") == "4"
    rate = next(line for line in advice.lines if line.what == "learning rate")
    assert "0.005 at 4 pictures" in rate.reason, "0.02 x 4 / 16"


@pytest.mark.parametrize("task", ["bbox", "segm", "keypoints", "semantic", "panoptic", "rotated", "densepose"])
def test_the_task_chooses_the_models(task: Any, known: dict[str, Any]) -> None:
    """Of all of conf/model: those whose purpose it is, and none that wants proposals with its pictures."""
    found = candidates(replace(WANTED, task=task), known)
    assert found and all(known[name].tasks[-1] == task and known[name].kind != "fast_rcnn" for name in found)
    assert not any("tiny" in name or "torchvision" in name for name in found)


def test_a_named_model_must_be_there_and_find_the_task() -> None:
    assert candidates(replace(WANTED, task="segm", leave_out=()), MODELS) == ["mask_rcnn_tiny"]
    assert candidates(replace(WANTED, models=("faster_rcnn_tiny",)), MODELS) == ["faster_rcnn_tiny"]
    with pytest.raises(UserError, match="no model that finds dense poses"):
        candidates(replace(WANTED, task="densepose"), MODELS)
    with pytest.raises(UserError, match="conf/model has no yolo"):
        candidates(replace(WANTED, models=("yolo",)), MODELS)
    with pytest.raises(UserError, match=r"not a model for masks \(advise.task=segm\): faster_rcnn_tiny finds boxes"):
        candidates(replace(WANTED, task="segm", models=("mask_rcnn_tiny", "faster_rcnn_tiny")), MODELS)


def test_the_trainer_scales_the_rate_as_the_table_says() -> None:
    from pipeline.training.config import Sgd
    from pipeline.training.optimizer import build_optimizer

    rate = next(line for line in ask(made(), largest_batch=4).lines if line.what == "learning rate")
    model = torch.nn.Linear(1, 1)
    built = build_optimizer(model, Sgd(kind="sgd", lr=WANTED.lr_at_16, momentum=0.9, weight_decay=0.0), 4)
    assert f"{built.param_groups[0]['lr']:g} at 4 pictures" in rate.reason


def test_statistics_leave_out_crowds(tmp_path: Path) -> None:
    dataset = simple_dataset(tmp_path)
    stats = statistics_of(dataset, "bbox", "here")
    assert len(stats.boxes_A4) == 10 and stats.classes == 2 and stats.short_side == 64 and stats.most_objects == 2
