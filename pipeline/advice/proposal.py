"""From a dataset's statistics and what is wanted to settings: each with one reason, and as an override to copy."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pipeline.advice.choice import candidates
from pipeline.advice.config import AdviseConfig
from pipeline.advice.fitting import fit
from pipeline.advice.measure import Measured
from pipeline.advice.statistics import Statistics
from pipeline.advice.strides import finest_stride
from pipeline.advice.table import Advice, Line
from pipeline.detector.config import ModelConfig
from pipeline.errors import UserError
from pipeline.tasks import TITLE

Measure = Callable[[ModelConfig, int, int, int], Measured]
"""(model, height, width, batch) -> what a step and a picture cost."""


def advise(stats: Statistics, wanted: AdviseConfig, models: Mapping[str, ModelConfig], measure: Measure) -> Advice:
    """What to train on this dataset. `models` are the files of conf/model by name; UserError when none does the task.

    A model is timed with the settings that the advice's overrides give it, no others.
    """
    failed: list[str] = []
    for name in candidates(wanted, models):
        fitted = fit(stats, wanted, models[name])
        height, width = typical_size(stats, fitted.cfg.input.short_side, fitted.cfg.input.long_side)
        one = measure(fitted.cfg, height, width, 1)
        if one.picture_seconds * 1000 <= wanted.latency_ms and one.peak_bytes <= wanted.memory_gb * 1e9:
            two = measure(fitted.cfg, height, width, 2)
            break
        failed.append(f"{name} takes {one.picture_seconds * 1000:.0f} ms and {one.peak_bytes / 1e9:.2f} GB")
    else:
        budget = f"{wanted.latency_ms:g} ms and {wanted.memory_gb:g} GB"
        raise UserError(f"advise: no model for {TITLE[wanted.task]} fits {budget}\n  " + "\n  ".join(failed))
    tried = f"; {'; '.join(failed)}" if failed else ""
    cost = f"{one.picture_seconds * 1000:.0f} ms a picture of {height} x {width} here"
    model = Line("model", name, f"finds {TITLE[wanted.task]}; {cost}{tried}", (f"model={name}",))
    batch = largest_batch(wanted, one, two, len(stats.sizes_I2))
    training = training_lines(stats, wanted, one, two, batch)
    lines = (model, *fitted.shape, *training, *fitted.selection)
    return Advice(lines, warnings(stats, wanted, fitted.cfg, fitted.recall), fitted.recall)


def typical_size(stats: Statistics, short: int, long: int) -> tuple[int, int]:
    """Height and width of the median picture as the network sees it."""
    scale_I = stats.scales_I(short, long)
    height, width = np.median(stats.sizes_I2 * scale_I[:, None], axis=0)
    return round(float(height)), round(float(width))


def largest_batch(wanted: AdviseConfig, one: Measured, two: Measured, pictures: int) -> int:
    """Pictures per step that fit into nine tenths of the memory, by the growth from one to two; a power of two."""
    each = max(two.peak_bytes - one.peak_bytes, one.peak_bytes // 20)
    room = max(0.0, wanted.memory_gb * 0.9e9 - one.peak_bytes) / each + 1
    return 1 << int(math.log2(max(1, min(room, wanted.largest_batch, pictures))))


def training_lines(stats: Statistics, wanted: AdviseConfig, one: Measured, two: Measured, batch: int) -> list[Line]:
    """Batch, learning rate and schedule; no mirroring where the labels cannot follow it."""
    pictures = len(stats.sizes_I2)
    steps = max(wanted.least_steps, math.ceil(wanted.epochs * pictures / batch))
    seconds = one.step_seconds + (batch - 1) * max(0.0, two.step_seconds - one.step_seconds)
    memory = f"{one.peak_bytes / 1e9:.2f} GB for 1 picture, {two.peak_bytes / 1e9:.2f} GB for 2, measured"
    rate = wanted.lr_at_16 * batch / 16
    hours = steps * seconds / 3600
    why = "the labels do not say what a dense pose becomes in a mirrored picture: training would stop at the first"
    flips = [] if stats.mirrored else [Line("mirrored pictures", "none", why, ("train.augment.flip=0",))]
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
        *flips,
    ]


def warnings(stats: Statistics, wanted: AdviseConfig, cfg: Any, recall: float) -> tuple[str, ...]:
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
