"""Advice: the recall is that of every anchor tried, costs are measured, and other objects or pictures give other advice."""

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch
import yaml

from ops_cuda import box_iou
from pipeline import settings
from pipeline.advice import measure as measuring
from pipeline.advice.anchors import cluster
from pipeline.advice.choice import candidates
from pipeline.advice.config import AdviseConfig
from pipeline.advice.fitting import fit, recall_of
from pipeline.advice.measure import Classes, Measured, crowded, measure
from pipeline.advice.pictures import TimedPictures
from pipeline.advice.proposal import advise, largest_batch
from pipeline.advice.statistics import Statistics, statistics_of
from pipeline.advice.strides import levels_of
from pipeline.advice.table import Advice
from pipeline.commands import advise as command
from pipeline.data.config import DatasetConfig
from pipeline.data.dataset import Dataset, open_dataset, write_dataset
from pipeline.data.formats.shapes import draw_shapes
from pipeline.detector.anchors import AnchorGenerator
from pipeline.detector.build import build_detector
from pipeline.detector.losses import Losses
from pipeline.errors import DataError, UserError
from pipeline.structures import Images, Targets
from tests.data.simple import simple_dataset
from tests.detector.models import CONF, batch, read_config
from tests.detector.models import made as build

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
    return Statistics(sizes, np.concatenate([corner, corner + extent], axis=1), image, 3)


def cheap(cfg: Any, height: int, width: int, batch: int) -> Measured:
    """Costs in proportion to pixels, as a machine has them."""
    pixels = height * width
    return Measured(1e-6 * pixels * batch, 2e-7 * pixels, int(5e8 + 4e2 * pixels * batch))


def ask(stats: Statistics, measured: Any = cheap, **other: Any) -> Advice:
    return advise(stats, replace(WANTED, **other), MODELS, measured)


def setting(advice: Advice, key: str) -> str:
    return next(o.partition("=")[2] for o in advice.overrides() if o.startswith(f"{key}="))


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


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """All of conf/model."""
    return dict(command.models(CONF))


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


@pytest.fixture(scope="module")
def checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with conf/ and validated shapes that teach every task; read-only."""
    folder = tmp_path_factory.mktemp("checkout")
    values = yaml.safe_load((root / "conf/dataset/shapes.yaml").read_text())
    values |= {"size": 64, "train": 12, "val": 4, "grounds": [1, 3], "watched": ""}
    cfg: Any = pydantic.TypeAdapter(DatasetConfig).validate_python(values)
    write_dataset(folder / "data/validated", draw_shapes(cfg, 0, folder / "drawn"))
    shutil.copytree(root / "conf", folder / "conf")
    return folder


@pytest.fixture
def shapes(checkout: Path) -> Dataset:
    return open_dataset(checkout / "data/validated")


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
