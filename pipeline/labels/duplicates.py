"""Checks of things that are there twice: boxes drawn twice over one object, one file under two names or in two splits."""

import numpy as np
from numpy.typing import NDArray

from pipeline.labels.check import Check, Fix
from pipeline.labels.columns import Columns, Findings
from pipeline.predict.rotated import rotated_iou

Rows = NDArray[np.int64]


class NearDuplicateBox(Check):
    """A box drawn twice over one object of one class: one of the two can never be matched, and a good detector is punished."""

    code, fix = "box-near-duplicate", Fix.MERGE

    def find(self, data: Columns) -> Findings:
        first_F, second_F, iou_F = repeated_boxes(data, self.limits.near_duplicate_iou)
        repeats = "IoU {iou:.2f} with annotation {of} of the same class"
        return data.on_annotations(self, second_F, repeats, iou=iou_F, of=data.ids_A[first_F])


class NearDuplicateOtherClass(Check):
    """Two boxes of different classes over one place: often one object with two names; sometimes real, as a person on a chair."""

    code = "box-near-duplicate-other-class"

    def find(self, data: Columns) -> Findings:
        first_P, second_P, iou_P = near_pairs(data, self.limits.near_duplicate_iou, same_class=False)
        classes = {category.id: category.name for category in data.dataset.info.categories}
        names = [classes[category] for category in data.category_A[first_P].tolist()]
        reason = "IoU {iou:.2f} with annotation {of} of class {name}"
        return data.on_annotations(self, second_P, reason, iou=iou_P, of=data.ids_A[first_P], name=names)


class LeakedPicture(Check):
    """The same file in two splits: what was learnt by heart is then measured. The copy nearer to training is left out."""

    code, fix = "image-in-two-splits", Fix.QUARANTINE

    def find(self, data: Columns) -> Findings:
        rank_S = _ranks(data.names)
        rows, twins = [], []
        for group in _identical_files(data):
            ranks = rank_S[data.split_I[group]]
            keeper = group[np.argmax(ranks)]
            leaked = group[ranks < ranks.max()]
            rows += leaked.tolist()
            twins += [f"{data.file_names[keeper]} in {data.names[data.split_I[keeper]]}"] * len(leaked)
        return data.on_pictures(self, np.array(rows, np.int64), "the same bytes as {twin}", twin=twins)


class RepeatedPicture(Check):
    """The same file twice in one split: it counts double, and its two sets of labels may disagree."""

    code, fix = "image-repeated", Fix.QUARANTINE

    def find(self, data: Columns) -> Findings:
        rows, twins = [], []
        for group in _identical_files(data):
            for split in np.unique(data.split_I[group]):
                first, *others = group[data.split_I[group] == split].tolist()
                rows += others
                twins += [data.file_names[first]] * len(others)
        return data.on_pictures(self, np.array(rows, np.int64), "the same bytes as {twin}", twin=twins)


def near_pairs(data: Columns, threshold: float, same_class: bool) -> tuple[Rows, Rows, NDArray[np.float64]]:
    """Pairs of annotations (first, second; first < second, int64 [P]) of one picture with IoU >= threshold, and their IoU.

    Crowds and ignored ones, boxes without area and unknown classes are left out. A sweep along x: IoU >= t bounds the distance
    of the left edges by (1 - t) / t widths, so only neighbours in that window are compared, one step further in each pass.
    Two rotated boxes must overlap so themselves: the upright hulls of slanted neighbours nearly coincide.
    """
    width_A, height_A = (data.boxes_A4[:, 2:] - data.boxes_A4[:, :2]).T
    sound = np.isfinite(data.boxes_A4).all(axis=1) & (width_A > 0) & (height_A > 0)
    rows = np.flatnonzero(sound & ~data.ignored_A & (data.label_A >= 0) & (data.image_A >= 0))
    group = data.image_A[rows]
    if same_class:
        group = group * (data.label_A.max(initial=0) + 1) + data.label_A[rows]
    order = np.lexsort((rows, data.boxes_A4[rows, 0], group))
    rows, group = rows[order], group[order]
    boxes_R4, label_R, turned_R = data.boxes_A4[rows], data.label_A[rows], np.isfinite(data.rotated_A5[rows]).all(axis=1)
    window_R = boxes_R4[:, 0] + (boxes_R4[:, 2] - boxes_R4[:, 0]) * ((1 - threshold) / threshold + 1e-9)

    firsts, seconds, ious = [], [], []
    active, step = np.arange(len(rows)), 1
    while len(active := active[active + step < len(rows)]):
        ahead = active + step
        near = (group[active] == group[ahead]) & (boxes_R4[ahead, 0] <= window_R[active])
        active, ahead = active[near], ahead[near]
        iou = _iou(boxes_R4[active], boxes_R4[ahead])
        for pair in np.flatnonzero((iou >= threshold) & turned_R[active] & turned_R[ahead]).tolist():
            one_5, other_5 = data.rotated_A5[rows[active[pair]]], data.rotated_A5[rows[ahead[pair]]]
            iou[pair] = rotated_iou(one_5, other_5[None])[0]
        hit = (iou >= threshold) & ((label_R[active] == label_R[ahead]) == same_class)
        firsts.append(np.minimum(rows[active[hit]], rows[ahead[hit]]))
        seconds.append(np.maximum(rows[active[hit]], rows[ahead[hit]]))
        ious.append(iou[hit])
        step += 1
    first_P, second_P = _joined(firsts).astype(np.int64), _joined(seconds).astype(np.int64)
    order = np.lexsort((first_P, second_P))
    return first_P[order], second_P[order], _joined(ious)[order]


def repeated_boxes(data: Columns, threshold: float) -> tuple[Rows, Rows, NDArray[np.float64]]:
    """(kept, repeated, IoU): annotations that repeat an earlier kept one, greedily in order, so what is kept holds no pair."""
    kept, repeated, ious = [], [], []
    gone: set[int] = set()
    pairs = near_pairs(data, threshold, same_class=True)
    for first, second, iou in zip(*(column.tolist() for column in pairs), strict=True):
        if first not in gone and second not in gone:
            gone.add(second)
            kept.append(first)
            repeated.append(second)
            ious.append(iou)
    return np.array(kept, np.int64), np.array(repeated, np.int64), np.array(ious)


def _iou(first_P4: NDArray[np.float64], second_P4: NDArray[np.float64]) -> NDArray[np.float64]:
    overlap_P2 = np.minimum(first_P4[:, 2:], second_P4[:, 2:]) - np.maximum(first_P4[:, :2], second_P4[:, :2])
    inter_P = np.maximum(overlap_P2, 0).prod(axis=1)
    areas_P = (first_P4[:, 2:] - first_P4[:, :2]).prod(axis=1) + (second_P4[:, 2:] - second_P4[:, :2]).prod(axis=1)
    iou_P: NDArray[np.float64] = inter_P / (areas_P - inter_P)
    return iou_P


def _joined(pieces: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(pieces) if pieces else np.zeros(0)


def _identical_files(data: Columns) -> list[Rows]:
    """Groups of at least two pictures with the same bytes, rows in order, groups by their first row."""
    known = np.flatnonzero(data.digests_I != "")
    _, digest_F, count = np.unique(data.digests_I[known].astype(str), return_inverse=True, return_counts=True)
    known, digest_F = known[count[digest_F] > 1], digest_F[count[digest_F] > 1]
    order = np.argsort(digest_F, kind="stable")
    groups = np.split(known[order], np.flatnonzero(np.diff(digest_F[order])) + 1)
    return sorted((group for group in groups if len(group) > 1), key=lambda group: int(group[0]))


def _ranks(names: tuple[str, ...]) -> NDArray[np.int64]:
    """How far each split is from training: of two copies, the one in the split further away is kept."""
    order = {"train": 0, "val": 1}
    return np.array([order.get(name, 2 + place) for place, name in enumerate(names)], np.int64)
