"""Advice: the recall is that of every anchor tried, costs are measured, and other objects or pictures give other advice."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
import yaml

from ops_cuda import box_iou
from pipeline.advice.anchors import cluster
from pipeline.advice.config import AdviseConfig
from pipeline.advice.measure import Measured, measure
from pipeline.advice.proposal import Advice, advise, candidates, largest_batch, levels_of, recall_of
from pipeline.advice.statistics import Statistics, statistics_of
from pipeline.commands import advise as command
from pipeline.detector.anchors import AnchorGenerator
from pipeline.errors import DataError, UserError
from tests.data.simple import simple_dataset
from tests.detector.models import CONF, read_config

WANTED: Any = pydantic.TypeAdapter(AdviseConfig).validate_python(
    yaml.safe_load((CONF.parent / "advise/default.yaml").read_text())
)
MODELS = {name: read_config(name) for name in ("faster_rcnn_r50_fpn", "retinanet_r50_fpn", "faster_rcnn_tiny", "mask_rcnn_tiny")}


def made(seed: int = 0, pictures: int = 150, size: float = 40.0, side: int = 480) -> Statistics:
    chance = np.random.default_rng(seed)
    sizes = chance.integers([side * 0.8, side], [side, side * 1.3], (pictures, 2)).astype(float)
    image = chance.integers(0, pictures, pictures * 4)
    extent = size * np.exp(chance.normal(0, 0.6, (len(image), 2)))
    extent = np.minimum(extent, sizes[image][:, ::-1] * 0.6)
    corner = chance.random((len(image), 2)) * (sizes[image][:, ::-1] - extent)
    return Statistics(sizes, np.concatenate([corner, corner + extent], axis=1), image, 3, 0)


def cheap(cfg: Any, height: int, width: int, batch: int) -> Measured:
    """Costs in proportion to pixels, as a machine has them."""
    pixels = height * width
    return Measured(1e-6 * pixels * batch, 2e-7 * pixels, int(5e8 + 4e2 * pixels * batch))


def ask(stats: Statistics, measured: Any = cheap, **other: Any) -> Advice:
    return advise(stats, replace(WANTED, **other), MODELS, measured)


def setting(advice: Advice, key: str) -> str:
    return next(o.partition("=")[2] for o in advice.overrides() if o.startswith(f"{key}="))


@pytest.mark.parametrize("name", ["faster_rcnn_r50_fpn", "retinanet_r50_fpn", "faster_rcnn_tiny"])
def test_the_recall_is_that_of_brute_force(name: str) -> None:
    """Every anchor of every padded picture against every truth, by the detector's own generator."""
    stats, cfg = made(pictures=12, side=150, size=20), MODELS[name]
    cfg = replace(cfg, input=replace(cfg.input, short_side=128, long_side=192))
    strides = [2 ** int(level[1:]) for level in levels_of(cfg)]
    generator = AnchorGenerator(cfg.anchors.sizes, cfg.anchors.ratios, strides, cfg.anchors.offset)
    divisor, reached = 2 ** int(cfg.fpn.stages[-1][3]), []
    for picture, (size, scale) in enumerate(zip(stats.sizes_I2, stats.scales_I(128, 192), strict=True)):
        padded = [-(-int(side * scale + 0.5) // divisor) * divisor for side in size]
        maps = [torch.zeros(1, 1, *(-(-side // stride) for side in padded)) for stride in strides]
        boxes = torch.from_numpy(stats.boxes_A4[stats.image_A == picture] * scale)
        ious = box_iou(boxes.unsqueeze(0), torch.cat(generator(maps)).double().unsqueeze(0))[0]
        reached += (ious.max(dim=1).values >= 0.5).tolist() if len(boxes) else []
    found = recall_of(stats, WANTED, cfg, cfg.anchors.sizes, cfg.anchors.ratios)
    assert 0.05 < found < 0.999 and found == pytest.approx(np.mean(reached), abs=1e-12)


def test_the_printed_recall_is_that_of_the_advised_anchors() -> None:
    stats = made()
    advice = ask(stats)
    line = next(line for line in advice.lines if line.what == "anchors")
    cfg = MODELS[setting(advice, "model")]
    short, long = (int(setting(advice, f"model.input.{side}_side")) for side in ("short", "long"))
    cfg = replace(cfg, input=replace(cfg.input, short_side=short, long_side=long))
    sizes, ratios = (json.loads(setting(advice, f"model.anchors.{name}")) for name in ("sizes", "ratios"))
    assert recall_of(stats, WANTED, cfg, sizes, ratios) == pytest.approx(advice.recall)
    own = recall_of(stats, WANTED, cfg, cfg.anchors.sizes, cfg.anchors.ratios)
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


def test_the_task_chooses_the_models() -> None:
    assert candidates(replace(WANTED, task="segm", leave_out=()), MODELS) == ["mask_rcnn_tiny"]
    assert candidates(replace(WANTED, models=("faster_rcnn_tiny",)), MODELS) == ["faster_rcnn_tiny"]
    with pytest.raises(UserError, match="no model that finds dense poses"):
        candidates(replace(WANTED, task="densepose"), MODELS)


def test_every_task_has_a_model() -> None:
    models = command.models(CONF)
    for task, part in {
        "bbox": "rcnn",
        "segm": "rcnn",
        "keypoints": "keypoint_rcnn",
        "semantic": "semantic_fpn",
        "panoptic": "panoptic_fpn",
        "densepose": "densepose_rcnn",
        "rotated": "rotated_faster_rcnn",
        "proposals": "rpn",
    }.items():
        found = candidates(replace(WANTED, task=task), models)
        assert all(models[name].tasks[-1] == task for name in found) and part in found[0] and "fast_rcnn_r50_fpn" not in found


def test_a_task_without_labels_is_refused(tmp_path: Path) -> None:
    dataset = simple_dataset(tmp_path)
    for task, lacking in {"semantic": "no semantic maps", "densepose": "dense pose", "keypoints": "keypoints"}.items():
        with pytest.raises(DataError, match=lacking):
            statistics_of(dataset, tmp_path, task)


def test_pictures_without_boxes_keep_their_size() -> None:
    """Semantic maps alone: nothing asks for larger pictures, and no anchor is proposed."""
    bare = replace(made(), boxes_A4=np.zeros((0, 4)), image_A=np.zeros(0, np.int64), semantic_classes=5)
    advice = advise(bare, replace(WANTED, task="semantic"), {"semantic_fpn_r50": read_config("semantic_fpn_r50")}, cheap)
    side = int(setting(advice, "model.input.short_side"))
    assert abs(side - bare.short_side) <= 16 and not any("anchors" in o for o in advice.overrides())


def test_costs_are_measured_in_a_process_of_its_own() -> None:
    one = measure(read_config("mask_rcnn_tiny"), 3, 0, 64, 64, 1, "cpu", 1)
    assert 0.001 < one.picture_seconds < 60 and one.step_seconds > 0.001
    assert 100e6 < one.peak_bytes < 8e9
    wrong = replace(read_config("faster_rcnn_tiny"), kind="rpn")
    with pytest.raises(UserError, match="advise: the timed step of 64 x 64 pixels, batch 1, failed"):
        measure(wrong, 3, 0, 64, 64, 1, "cpu", 1)


def test_the_command_prints_a_table_and_overrides_that_compose(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline import settings

    simple_dataset(tmp_path / "made")
    shutil.copytree(root / "conf", tmp_path / "conf")
    shutil.copytree(tmp_path / "made/dataset", tmp_path / "data/validated")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.advice.measure.measure", lambda cfg, classes, semantic, *rest, **_: cheap(cfg, *rest))
    command.run(["advise.models=[faster_rcnn_tiny]"])
    said = capsys.readouterr().out
    assert "input size" in said and "note: 6 training pictures are few" in said
    words = re.findall(r"(?:'([^']*)'|(\S+))", said.splitlines()[-1].removeprefix("python -m pipeline config "))
    chosen = settings.check(settings.compose([a or b for a, b in words], tmp_path))
    assert chosen.model.input.short_side == 64 and chosen.train.optimizer.kind == "sgd"


def test_statistics_leave_out_crowds(tmp_path: Path) -> None:
    dataset = simple_dataset(tmp_path)
    stats = statistics_of(dataset, tmp_path, "bbox")
    assert len(stats.boxes_A4) == 10 and stats.classes == 2 and stats.short_side == 64 and stats.most_objects == 2
