"""Checks of the dataset as a whole: how classes, sizes and light are spread, and whether the splits are alike."""

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.check import Check
from pipeline.labels.columns import Columns, Findings
from pipeline.labels.structure import class_counts

AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
"""COCO's sizes, by area in square pixels of the stored picture."""
FEWEST = 100
"""Values in each split from which their distributions are compared ..."""
CRITICAL = 1.95
"""... and how far apart they must be to be no chance: the Kolmogorov-Smirnov statistic's bound at a level of 0.001, in units of
sqrt((n + m) / nm)."""
LEAST = 10
"""Objects of a size, or pictures with a class, from which a figure about them means something."""
FOLLOWS = 0.95
"""A class follows a property of its pictures when that alone tells pictures with it from those without as well as this (area
under the ROC curve)."""


class ClassImbalance(Check):
    """Classes of very unequal frequency: the rare ones are hardly learnt without resampling (train.sampler) or a fitting loss."""

    code = "class-imbalance"

    def find(self, data: Columns) -> Findings:
        count_K = _trained(data)
        known = np.flatnonzero(count_K)
        if len(known) < 2:
            return data.on_dataset(self, [])
        most, least = known[np.argmax(count_K[known])], known[np.argmin(count_K[known])]
        classes, ratio = data.dataset.classes, count_K[most] / count_K[least]
        reason = f"train has {count_K[most]} labels of {classes[most]} and {count_K[least]} of {classes[least]}: 1 to {ratio:.0f}"
        return data.on_dataset(self, [reason] if ratio > self.limits.imbalance else [])


class RareClass(Check):
    """A class with very few training labels: what is learnt of it is those few objects."""

    code = "class-rare"

    def find(self, data: Columns) -> Findings:
        count_K = _trained(data)
        rare = np.flatnonzero((count_K > 0) & (count_K < self.limits.rare))
        return data.on_dataset(self, [f"class {data.dataset.classes[k]} has {count_K[k]} training labels" for k in rare.tolist()])


class ClassNotMeasured(Check):
    """A class that train holds and another split does not: nobody will know how well it is found there."""

    code = "class-absent-from-split"

    def find(self, data: Columns) -> Findings:
        count_SK, trained_K = class_counts(data), _trained(data)
        splits, reasons = [], []
        for split, name in enumerate(data.names):
            if name == "train" or not count_SK[split].any():
                continue
            absent = np.flatnonzero((trained_K > 0) & (count_SK[split] == 0)).tolist()
            splits += [split] * len(absent)
            reasons += [f"class {data.dataset.classes[k]} is in train, not in {name}" for k in absent]
        return data.on_dataset(self, reasons, splits)


class SplitDrift(Check):
    """A split whose classes, sizes or light differ from train's: what is measured on it says little about what was learnt."""

    code = "split-drift"

    def find(self, data: Columns) -> Findings:
        if "train" not in data.names:
            return data.on_dataset(self, [])
        train, count_SK = data.names.index("train"), class_counts(data)
        properties = _properties(data)
        splits, reasons = [], []
        for split, name in enumerate(data.names):
            if split == train:
                continue
            said = [_class_drift(count_SK[train], count_SK[split], self.limits.drift, data.dataset.classes)]
            for what, (value_R, split_R) in properties.items():
                said.append(_drift(what, value_R[split_R == train], value_R[split_R == split], self.limits.drift))
            found = [f"{name} against train: {one}" for one in said if one]
            splits += [split] * len(found)
            reasons += found
        return data.on_dataset(self, reasons, splits)


class CrowdedPicture(Check):
    """A picture with very many objects: COCO's evaluation looks at 100 detections a picture, and detectors give no more."""

    code = "image-crowded"

    def find(self, data: Columns) -> Findings:
        counted = (data.image_A >= 0) & ~data.ignored_A
        count_I = np.bincount(data.image_A[counted], minlength=len(data.file_names))
        rows = np.flatnonzero(count_I > self.limits.crowded)
        return data.on_pictures(self, rows, "{n} objects", n=count_I[rows])


class ClassBelowCell(Check):
    """A class of which many objects are smaller, at the chosen model's input, than a finest cell: they will be missed."""

    code = "class-below-cell"

    def find(self, data: Columns) -> Findings:
        shorter_A = (data.boxes_A4[:, 2:] - data.boxes_A4[:, :2]).min(axis=1)
        scale_A = np.append(data.scale_I(), np.nan)[data.image_A]  # the last serves -1
        side_A = np.where(~data.ignored_A & (data.label_A >= 0), shorter_A * scale_A, np.nan)
        reasons = []
        for label, name in enumerate(data.dataset.classes):
            own = side_A[(data.label_A == label) & np.isfinite(side_A)]
            lost = int((own < self.limits.cell_px).sum())
            if len(own) >= LEAST and lost > self.limits.lost_share * len(own):
                sides = f"below {self.limits.cell_px:g} px at model.input.short_side={data.network[0]}" if data.network else ""
                reasons.append(f"{lost} of {len(own)} objects of {name} are {sides}; their median is {np.median(own):.1f} px")
        return data.on_dataset(self, reasons)


class SizeRangeEmpty(Check):
    """A split with hardly an object of one of COCO's sizes: the AP of that size is chance, or missing."""

    code = "size-range-empty"

    def find(self, data: Columns) -> Findings:
        area_A = np.where(np.isfinite(data.area_A), data.area_A, (data.boxes_A4[:, 2:] - data.boxes_A4[:, :2]).prod(axis=1))
        counted = (data.image_A >= 0) & ~data.ignored_A & (area_A > 0)
        splits, reasons = [], []
        for split, name in enumerate(data.names):
            own = area_A[counted & (data.split_A == split)]
            if len(own) < FEWEST:
                continue
            counts = {size: int(((own >= low) & (own < high)).sum()) for size, (low, high) in AREAS.items()}
            shares = ", ".join(f"{count / len(own):.0%} {size}" for size, count in counts.items())
            few = [f"{count} {size}" for size, count in counts.items() if count < LEAST]
            if few:
                splits.append(split)
                reasons.append(f"{name} has {' and '.join(few)} of {len(own)} objects ({shares})")
        return data.on_dataset(self, reasons, splits)


class ClassFollowsPicture(Check):
    """A class that the picture's brightness, sharpness or shape gives away: the detector may learn the camera, not the object."""

    code = "class-follows-picture"

    def find(self, data: Columns) -> Findings:
        seen = np.array([look is not None for look in data.looks], np.bool_)
        rows = np.flatnonzero(seen)
        looks = [data.looks[row] for row in rows.tolist()]
        values = {
            "brightness": np.array([look.brightness for look in looks if look is not None]),
            "sharpness": np.array([look.sharpness for look in looks if look is not None]),
            "width to height": data.real_widths_I[rows] / np.maximum(data.real_heights_I[rows], 1),
        }
        known = np.flatnonzero((data.image_A >= 0) & (data.label_A >= 0))
        known = known[np.argsort(data.label_A[known], kind="stable")]
        starts = np.searchsorted(data.label_A[known], np.arange(len(data.dataset.classes) + 1))
        ranks = {what: _ranks(value_R) for what, value_R in values.items()}
        reasons = []
        for label, name in enumerate(data.dataset.classes):
            with_I = np.zeros(len(data.file_names), np.bool_)
            with_I[data.image_A[known[starts[label] : starts[label + 1]]]] = True
            there = with_I[rows]
            if min(there.sum(), (~there).sum()) < LEAST:
                continue
            for what, rank_R in ranks.items():
                told = _told_apart(rank_R, there)
                if told >= FOLLOWS:
                    reasons.append(f"{what} tells pictures with {name} from the others in {told:.0%} of the pairs")
        return data.on_dataset(self, reasons)


def _trained(data: Columns) -> NDArray[np.int64]:
    """Training labels of each class."""
    if "train" not in data.names:
        return np.zeros(len(data.dataset.classes), np.int64)
    count_K: NDArray[np.int64] = class_counts(data)[data.names.index("train")]
    return count_K


def _properties(data: Columns) -> dict[str, tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Values to compare between splits, and the split of each."""
    size_A2 = (data.boxes_A4[:, 2:] - data.boxes_A4[:, :2]) / data.frames_A2
    share_A = np.sqrt(np.where((size_A2 > 0).all(axis=1), size_A2.prod(axis=1), np.nan))
    sized = np.isfinite(share_A)
    rows = np.array([row for row, look in enumerate(data.looks) if look is not None], np.int64)
    light = np.array([look.brightness for look in data.looks if look is not None], np.float64)
    return {"object sizes": (share_A[sized], data.split_A[sized]), "brightness of the pictures": (light, data.split_I[rows])}


def _class_drift(one_K: NDArray[np.int64], other_K: NDArray[np.int64], least: float, classes: tuple[str, ...]) -> str | None:
    n, m = int(one_K.sum()), int(other_K.sum())
    if min(n, m) < FEWEST:
        return None
    apart_K = other_K / m - one_K / n
    apart = float(np.abs(apart_K).sum() / 2)
    # What chance gives: each share deviates by about sqrt(p / n), and total variation is half of their sum.
    chance = float(np.sqrt((one_K + other_K) / (n + m) * (1 / n + 1 / m)).sum() / 2)
    if apart <= max(least, 2 * chance):
        return None
    most = int(np.argmax(np.abs(apart_K)))
    shares = f"{classes[most]} {one_K[most] / n:.0%} and {other_K[most] / m:.0%}"
    return f"classes differ by {apart:.0%} (total variation), most {shares}"


def _drift(what: str, one: NDArray[np.float64], other: NDArray[np.float64], least: float) -> str | None:
    """The Kolmogorov-Smirnov distance of two samples, in words where it is large and no chance."""
    n, m = len(one), len(other)
    if min(n, m) < FEWEST:
        return None
    both = np.sort(np.concatenate([one, other]))
    below = [np.searchsorted(np.sort(values), both, side="right") / len(values) for values in (one, other)]
    apart = float(np.abs(below[0] - below[1]).max())
    if apart <= max(least, CRITICAL * np.sqrt((n + m) / (n * m))):
        return None
    return f"{what} differ by {apart:.2f} (Kolmogorov-Smirnov), medians {np.median(one):.3g} and {np.median(other):.3g}"


def _ranks(value_R: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places of the values in ascending order, from 1; equal ones share the middle of theirs."""
    _, group_R, count = np.unique(value_R, return_inverse=True, return_counts=True)
    middle: NDArray[np.float64] = (np.cumsum(count) - (count - 1) / 2)[group_R]
    return middle


def _told_apart(rank_R: NDArray[np.float64], there_R: NDArray[np.bool_]) -> float:
    """Area under the ROC curve of what is ranked as a sign of `there_R`, or of its absence (Mann and Whitney's statistic)."""
    n, m = int(there_R.sum()), int((~there_R).sum())
    area = (rank_R[there_R].sum() - n * (n + 1) / 2) / (n * m)
    return float(max(area, 1 - area))
