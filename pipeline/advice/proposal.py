"""From a dataset's statistics and what is wanted to settings: each with one reason, and as an override to copy."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.advice.anchors import best_ious, propose_anchors
from pipeline.advice.config import AdviseConfig
from pipeline.advice.measure import Measured
from pipeline.advice.statistics import Statistics
from pipeline.detector.config import ModelConfig
from pipeline.errors import UserError
from pipeline.tasks import TITLE

Measure = Callable[[ModelConfig, int, int, int], Measured]
"""(model, height, width, batch) -> what a step and a picture cost."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    what: str
    value: str
    reason: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """The table, and what must be said plainly."""

    lines: tuple[Line, ...]
    warnings: tuple[str, ...]
    recall: float
    """Share of truths that the proposed anchors reach at `recall_iou`."""

    def overrides(self) -> tuple[str, ...]:
        """To copy behind a command."""
        return tuple(override for line in self.lines for override in line.overrides)


def advise(stats: Statistics, wanted: AdviseConfig, models: Mapping[str, ModelConfig], measure: Measure) -> Advice:
    """What to train on this dataset. `models` are the files of conf/model by name; UserError when none does the task."""
    names = candidates(wanted, models)
    failed: list[str] = []
    for name in names:
        cfg = models[name]
        short, long, why = input_size(stats, wanted, finest_stride(cfg))
        cfg = replace(cfg, input=replace(cfg.input, short_side=short, long_side=long))
        height, width = typical_size(stats, short, long)
        one = measure(cfg, height, width, 1)
        if one.picture_seconds * 1000 <= wanted.latency_ms and one.peak_bytes <= wanted.memory_gb * 1e9:
            two = measure(cfg, height, width, 2)
            break
        failed.append(f"{name} takes {one.picture_seconds * 1000:.0f} ms and {one.peak_bytes / 1e9:.2f} GB")
    else:
        budget = f"{wanted.latency_ms:g} ms and {wanted.memory_gb:g} GB"
        raise UserError(f"advise: no model for {TITLE[wanted.task]} fits {budget}\n  " + "\n  ".join(failed))
    tried = f"; {'; '.join(failed)}" if failed else ""
    lines = [
        Line(
            "model",
            name,
            f"finds {TITLE[wanted.task]}; {one.picture_seconds * 1000:.0f} ms a picture of {height} x {width} here{tried}",
            (f"model={name}",),
        ),
        Line("input size", f"{short} / {long}", why, (f"model.input.short_side={short}", f"model.input.long_side={long}")),
    ]
    anchors, recall = anchor_lines(stats, wanted, cfg)
    batch = largest_batch(wanted, one, two, len(stats.sizes_I2))
    lines += [*anchors, *training_lines(stats, wanted, one, two, batch), *selection_lines(stats, cfg)]
    return Advice(tuple(lines), warnings(stats, wanted, cfg, recall), recall)


def candidates(wanted: AdviseConfig, models: Mapping[str, ModelConfig]) -> list[str]:
    """Names of the models that do the task, best first; the costliest is taken for the best where the user gave no order."""
    if wanted.models:
        if unknown := [name for name in wanted.models if name not in models]:
            raise UserError(f"advise: conf/model has no {', '.join(unknown)}")
        return list(wanted.models)
    # The last task of a model is its own. What looks at ready proposals, or turns them, is a step on the way.
    fit = [name for name, cfg in models.items() if cfg.tasks[-1] == wanted.task and cfg.kind not in ("fast_rcnn", "rotated_rpn")]
    fit = [name for name in fit if not any(part in name for part in wanted.leave_out)]
    if not fit:
        raise UserError(f"advise: conf/model has no model that finds {TITLE[wanted.task]} (advise.task={wanted.task})")
    # A guess at what is better, to be measured: larger pictures, and two stages before one.
    return sorted(fit, key=lambda name: (-models[name].input.short_side, models[name].kind == "retinanet", name))


def levels_of(cfg: Any) -> tuple[str, ...]:
    """Levels that have upright anchors: of the pyramid or of the backbone; none where the model has none."""
    if not hasattr(cfg, "anchors") or "rotated" in cfg.tasks:
        return ()
    levels: tuple[str, ...] = cfg.rpn.levels if hasattr(cfg, "rpn") else cfg.levels
    return levels


def stride_of(level: str) -> int:
    """Pixels between the cells of p2..p7 (4 to 128) or res2..res5 (4 to 32)."""
    return 1 << int(level[-1])


def finest_stride(cfg: Any) -> int:
    """Pixels between the finest cells."""
    levels = levels_of(cfg)
    return stride_of(levels[0]) if levels else 4


def input_size(stats: Statistics, wanted: AdviseConfig, stride: int) -> tuple[int, int, str]:
    """Short and long side, multiples of 32, and why."""
    aspect = float(np.quantile(stats.sizes_I2.max(axis=1) / stats.sizes_I2.min(axis=1), 0.95))
    if not len(stats.boxes_A4):
        short = max(64, 32 * round(stats.short_side / 32))
        why = f"pictures have {stats.short_side:.0f} px (median short side), and no boxes that would ask for more"
        return short, max(short, 32 * math.ceil(short * aspect / 32)), why
    small = float(np.quantile(stats.sides_A, wanted.small_quantile))
    needed = max(wanted.object_px, 2 * stride) / small
    scale = min(needed, wanted.largest_upscale)
    short = max(64, 32 * round(stats.short_side * scale / 32))
    long = max(short, 32 * math.ceil(short * aspect / 32))
    share = (
        f"{wanted.small_quantile:.0%} of the objects are under {small:.0f} px; they get {small * short / stats.short_side:.0f} px"
    )
    limit = f", enlarged no more than {wanted.largest_upscale:g} times" if needed > wanted.largest_upscale else ""
    return short, long, f"pictures have {stats.short_side:.0f} px (median short side); {share}{limit}"


def typical_size(stats: Statistics, short: int, long: int) -> tuple[int, int]:
    """Height and width of the median picture as the network sees it."""
    scale_I = stats.scales_I(short, long)
    height, width = np.median(stats.sizes_I2 * scale_I[:, None], axis=0)
    return round(float(height)), round(float(width))


def anchor_lines(stats: Statistics, wanted: AdviseConfig, cfg: Any) -> tuple[list[Line], float]:
    """Sizes and ratios by clustering, with the share of truths that they reach; nothing for a model without anchors."""
    levels = levels_of(cfg)
    if not levels:
        return [], float("nan")
    scale_A = stats.scales_I(cfg.input.short_side, cfg.input.long_side)[stats.image_A]
    boxes_A4 = stats.boxes_A4 * scale_A[:, None]
    sizes, ratios = propose_anchors(boxes_A4, len(levels), wanted.ratios)
    ours, theirs = (
        recall_of(stats, wanted, cfg, *pair) for pair in ((sizes, (ratios,)), (cfg.anchors.sizes, cfg.anchors.ratios))
    )
    if theirs >= ours:
        sizes, ratios_L, recall = cfg.anchors.sizes, cfg.anchors.ratios, theirs
        reason = f"the model's own reach {theirs:.1%} of the objects at IoU {wanted.recall_iou:g}, clustered ones {ours:.1%}"
    else:
        ratios_L, recall = (ratios,), ours
        reason = f"clusters of the objects: {ours:.1%} are reached at IoU {wanted.recall_iou:g}, {theirs:.1%} by the model's own"
    said = f"{_bare(sizes)} x {_bare(ratios_L)}"
    overrides = (f"model.anchors.sizes={_bare(sizes)}", f"model.anchors.ratios={_bare(ratios_L)}")
    return [Line("anchors", said, reason, overrides if theirs < ours else ())], recall


def recall_of(stats: Statistics, wanted: AdviseConfig, cfg: Any, sizes: Any, ratios: Any) -> float:
    """Share of truths whose best anchor has at least `recall_iou`, every anchor of the picture tried."""
    scale_I = stats.scales_I(cfg.input.short_side, cfg.input.long_side)
    strides = tuple(stride_of(level) for level in levels_of(cfg))
    divisor = strides[0] if getattr(cfg, "fpn", None) is None else stride_of(cfg.fpn.stages[-1])
    extent_A2 = np.floor(stats.sizes_I2 * scale_I[:, None] + 0.5)[stats.image_A]
    boxes_A4 = stats.boxes_A4 * scale_I[stats.image_A][:, None]
    best_A = best_ious(boxes_A4, extent_A2, sizes, ratios, strides, cfg.anchors.offset, divisor)
    return float((best_A >= wanted.recall_iou).mean())


def largest_batch(wanted: AdviseConfig, one: Measured, two: Measured, pictures: int) -> int:
    """Pictures per step that fit into nine tenths of the memory, by the growth from one to two; a power of two."""
    each = max(two.peak_bytes - one.peak_bytes, one.peak_bytes // 20)
    room = max(0.0, wanted.memory_gb * 0.9e9 - one.peak_bytes) / each + 1
    return 1 << int(math.log2(max(1, min(room, wanted.largest_batch, pictures))))


def training_lines(stats: Statistics, wanted: AdviseConfig, one: Measured, two: Measured, batch: int) -> list[Line]:
    """Batch, learning rate and schedule."""
    pictures = len(stats.sizes_I2)
    steps = max(wanted.least_steps, math.ceil(wanted.epochs * pictures / batch))
    seconds = one.step_seconds + (batch - 1) * max(0.0, two.step_seconds - one.step_seconds)
    memory = f"{one.peak_bytes / 1e9:.2f} GB for 1 picture, {two.peak_bytes / 1e9:.2f} GB for 2, measured"
    rate = wanted.lr_at_16 * batch / 16
    hours = steps * seconds / 3600
    return [
        Line("batch", str(batch), f"{memory}; {wanted.memory_gb:g} GB are there", (f"train.batch={batch}",)),
        Line(
            "learning rate",
            f"{wanted.lr_at_16:g} at 16",
            f"linear rule: {rate:g} at {batch} pictures per step; the trainer scales it",
            ("train=reference_1x", f"train.optimizer.lr={wanted.lr_at_16:g}"),
        ),
        Line(
            "schedule",
            f"{steps} steps",
            f"{steps * batch / pictures:.0f} passes over {pictures} pictures; about {hours:.1f} h at {seconds:.2f} s a step here",
            (f"train.steps={steps}", f"train.schedule.warmup={min(1000, steps // 10)}"),
        ),
    ]


def selection_lines(stats: Statistics, cfg: Any) -> list[Line]:
    """Score threshold and number of detections."""
    owner, where = (cfg, "model.select") if hasattr(cfg, "select") else (getattr(cfg, "roi", None), "model.roi.select")
    if owner is None:
        return []
    select = owner.select
    limit = max(select.limit, 10 * math.ceil(1.5 * stats.most_objects / 10))
    reason = "low, so that precision is measured at every recall; in use start from evaluate.drawing_score and follow the curve"
    lines = [Line("score threshold", "0.05", reason, (f"{where}.score=0.05",))]
    if limit > select.limit:
        why = f"a picture has up to {stats.most_objects} objects: {select.limit} detections would cut some off"
        lines.append(Line("detections", str(limit), why, (f"{where}.limit={limit}", f"evaluate.max_detections={limit}")))
    return lines


def warnings(stats: Statistics, wanted: AdviseConfig, cfg: ModelConfig, recall: float) -> tuple[str, ...]:
    """What no setting mends."""
    said = []
    stride = finest_stride(cfg)
    scale_I = stats.scales_I(cfg.input.short_side, cfg.input.long_side)
    seen_A = stats.sides_A * scale_I[stats.image_A]
    if len(seen_A) and (lost := float((seen_A < stride).mean())) > 0.01:
        said.append(
            f"{lost:.0%} of the objects are smaller than the finest stride ({stride} px) in the network's picture: expect to "
            f"miss them. Cut the pictures into tiles, or take them from nearer"
        )
    if cfg.input.short_side > stats.short_side * 1.05:
        said.append(
            f"the pictures are of low resolution ({stats.short_side:.0f} px): enlarging them to {cfg.input.short_side} px "
            f"gives small objects more cells, but no detail"
        )
    if recall < 0.9:
        reached = f"anchors reach only {recall:.0%} of the objects at IoU {wanted.recall_iou:g}"
        said.append(f"{reached}: add ratios (advise.ratios), or a level")
    if len(stats.sizes_I2) < 100:
        few = f"{len(stats.sizes_I2)} training pictures are few"
        said.append(f"{few}: start from pretrained weights (model.weights) and label more")
    return tuple(said)


def _bare(values: Sequence[Any]) -> str:
    """[[16.0],[32.0]] without blanks, as an override takes it."""
    return "[" + ",".join(_bare(v) if isinstance(v, tuple | list) else f"{v:g}" for v in values) + "]"
