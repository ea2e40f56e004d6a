"""A model's settings fitted to a dataset: input size, anchors, sizes of heads, detections. Each change is a line of the table."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.advice.anchors import best_ious, propose_anchors
from pipeline.advice.config import AdviseConfig
from pipeline.advice.statistics import Statistics
from pipeline.advice.strides import divisor_of, finest_stride, levels_of, stride_of
from pipeline.advice.table import Line, bare


@dataclass(frozen=True, slots=True)
class Fitted:
    """The settings that the overrides of its lines make of a file of conf/model, and so those that are timed."""

    cfg: Any
    """A ModelConfig."""
    shape: tuple[Line, ...]
    """Input size, anchors, sizes of heads, least area of stuff."""
    selection: tuple[Line, ...]
    """Score threshold and number of detections."""
    recall: float
    """Of the anchors; NaN for a model without upright anchors."""


def fit(stats: Statistics, wanted: AdviseConfig, cfg: Any) -> Fitted:
    """The model of `cfg` for this dataset."""
    short, long, why = input_size(stats, wanted, finest_stride(cfg))
    cfg = replace(cfg, input=replace(cfg.input, short_side=short, long_side=long))
    sides = (f"model.input.short_side={short}", f"model.input.long_side={long}")
    cfg, anchors, recall = with_anchors(stats, wanted, cfg)
    cfg, heads = with_heads(stats, cfg)
    cfg, stuff = with_stuff(stats, wanted, cfg)
    cfg, selection = with_selection(stats, cfg)
    return Fitted(cfg, (Line("input size", f"{short} / {long}", why, sides), *anchors, *heads, *stuff), selection, recall)


def input_size(stats: Statistics, wanted: AdviseConfig, stride: int) -> tuple[int, int, str]:
    """Short and long side, multiples of 32, and why."""
    seen = f"pictures have {stats.short_side:.0f} px (median short side)"
    needed = 1.0
    if len(stats.boxes_A4):
        small = float(np.quantile(stats.sides_A, wanted.small_quantile))
        needed = max(wanted.object_px, 2 * stride) / small
    scale = min(needed, wanted.largest_upscale)
    short = max(64, 32 * round(stats.short_side * scale / 32))
    aspect = float(np.quantile(stats.sizes_I2.max(axis=1) / stats.sizes_I2.min(axis=1), 0.95))
    long = max(short, 32 * math.ceil(short * aspect / 32))
    if not len(stats.boxes_A4):
        return short, long, f"{seen}; no object is labelled that would ask for more or less"
    share = (
        f"{wanted.small_quantile:.0%} of the objects are under {small:.0f} px; they get {small * short / stats.short_side:.0f} px"
    )
    limit = f", enlarged no more than {wanted.largest_upscale:g} times" if needed > wanted.largest_upscale else ""
    return short, long, f"{seen}; {share}{limit}"


def with_anchors(stats: Statistics, wanted: AdviseConfig, cfg: Any) -> tuple[Any, list[Line], float]:
    """Sizes and ratios by clustering where they reach more truths than the model's own; nothing for a model without anchors."""
    levels = levels_of(cfg)
    if not levels or not len(stats.boxes_A4):
        return cfg, [], float("nan")
    boxes_A4 = stats.boxes_A4 * stats.scales_I(cfg.input.short_side, cfg.input.long_side)[stats.image_A][:, None]
    sizes, ratios = propose_anchors(boxes_A4, len(levels), len(cfg.anchors.sizes[0]), wanted.ratios)
    clustered = replace(cfg, anchors=replace(cfg.anchors, sizes=sizes, ratios=(ratios,)))
    ours, theirs = (recall_of(stats, wanted, one) for one in (clustered, cfg))
    if theirs >= ours:
        reason = f"the model's own reach {theirs:.1%} of the objects at IoU {wanted.recall_iou:g}, clustered ones {ours:.1%}"
        return cfg, [Line("anchors", _said(cfg), reason)], theirs
    reason = f"clusters of the objects: {ours:.1%} are reached at IoU {wanted.recall_iou:g}, {theirs:.1%} by the model's own"
    overrides = (f"model.anchors.sizes={bare(sizes)}", f"model.anchors.ratios={bare((ratios,))}")
    return clustered, [Line("anchors", _said(clustered), reason, overrides)], ours


def recall_of(stats: Statistics, wanted: AdviseConfig, cfg: Any) -> float:
    """Share of truths whose best anchor has at least `recall_iou`, every anchor of the picture tried."""
    scale_I = stats.scales_I(cfg.input.short_side, cfg.input.long_side)
    strides = tuple(stride_of(cfg, level) for level in levels_of(cfg))
    extent_A2 = np.floor(stats.sizes_I2 * scale_I[:, None] + 0.5)[stats.image_A]
    boxes_A4 = stats.boxes_A4 * scale_I[stats.image_A][:, None]
    own = cfg.anchors
    spread = own.spacing == "grid"
    best_A = best_ious(boxes_A4, extent_A2, own.sizes, own.ratios, strides, own.offset, divisor_of(cfg), own.rounding, spread)
    return float((best_A >= wanted.recall_iou).mean())


def with_heads(stats: Statistics, cfg: Any) -> tuple[Any, list[Line]]:
    """Heatmaps and surface parts as many as the labels have: a head for others cannot learn them, or learns nothing."""
    lines = []
    roi: Any = getattr(cfg, "roi", None)
    for what, field, branch, labelled in (
        ("keypoints", "keypoints", "keypoint", stats.keypoints),
        ("surface parts", "parts", "densepose", stats.parts),
    ):
        head = getattr(roi, branch, None)
        if head is None or getattr(head, field) == labelled:
            continue
        reason = f"the labels name {labelled}; the model's file has {getattr(head, field)}"
        lines.append(Line(what, str(labelled), reason, (f"model.roi.{branch}.{field}={labelled}",)))
        roi = replace(roi, **{branch: replace(head, **{field: labelled})})
    return (replace(cfg, roi=roi) if lines else cfg), lines


def with_stuff(stats: Statistics, wanted: AdviseConfig, cfg: Any) -> tuple[Any, list[Line]]:
    """The least area of a stuff segment, in pixels of the pictures themselves: the model's own is for pictures of COCO's size."""
    if not hasattr(cfg, "combine"):
        return cfg, []
    pixels = float(np.median(np.prod(stats.sizes_I2, axis=1)))
    least = round(wanted.stuff_share * pixels)
    if cfg.combine.stuff_area <= least:
        return cfg, []
    own = cfg.combine.stuff_area
    reason = f"{wanted.stuff_share:.1%} of a picture, as on COCO; the model's own {own:g} px are {own / pixels:.0%} of one"
    override = f"model.combine.stuff_area={least}"
    return replace(cfg, combine=replace(cfg.combine, stuff_area=float(least))), [
        Line("least stuff", f"{least} px", reason, (override,))
    ]


def with_selection(stats: Statistics, cfg: Any) -> tuple[Any, tuple[Line, ...]]:
    """Score threshold and number of detections; a semantic model has neither, which is said."""
    top = hasattr(cfg, "select")
    owner, where = (cfg, "model.select") if top else (getattr(cfg, "roi", None), "model.roi.select")
    if owner is None:
        return cfg, (Line("score threshold", "none", _without_threshold(cfg)),)
    select = owner.select
    reason = "low, so that precision is measured at every recall; in use start from evaluate.drawing_score and follow the curve"
    if hasattr(cfg, "combine"):
        reason += f"; a thing enters the panoptic map from {cfg.combine.score:g} on (model.combine.score)"
    lines = [Line("score threshold", f"{select.score:g}", reason, (f"{where}.score={select.score:g}",))]
    limit = max(select.limit, 10 * math.ceil(1.5 * stats.most_objects / 10))
    if limit > select.limit:
        why = f"a picture has up to {stats.most_objects} objects: {select.limit} detections would cut some off"
        lines.append(Line("detections", str(limit), why, (f"{where}.limit={limit}", f"evaluate.max_detections={limit}")))
        select = replace(select, limit=limit)
    return (replace(cfg, select=select) if top else replace(cfg, roi=replace(cfg.roi, select=select))), tuple(lines)


def _without_threshold(cfg: Any) -> str:
    if cfg.tasks == ("semantic",):
        return "every pixel gets its best class: there is no score to cut at"
    return "its settings have none: proposals are ranked, and a model of your own decides for itself"


def _said(cfg: Any) -> str:
    return f"{bare(cfg.anchors.sizes)} x {bare(cfg.anchors.ratios)}"
