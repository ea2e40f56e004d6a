"""Suspects: labels that a detector contradicts. It must not have been trained on them, or it repeats what they say.

What: where a label and a detection of its class agree, both are settled. Of the rest, boxes that overlap are put together, and
cleanlab scores each box of such a contest: an object nobody labelled, a box in the wrong place, a wrong class.
Limits: a wrong detection accuses a right label. Suspects are for people to look at; nothing is ever changed by them.
Source: ObjectLab (Tkachenko, Thyagarajan, Mueller 2023), whose scores per box cleanlab computes. It compares every box with every
other of a picture, so that crossing neighbours accuse each other and an overlooked object that touches a label is never found;
hence the contests. Its distance term is in pixels, so it is left out (ALPHA): a fault scores the same at any picture size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask
from scipy.sparse.csgraph import connected_components

from pipeline.data.dataset import Split
from pipeline.labels.config import SuspectsConfig
from pipeline.labels.suspicion import Kind

ALPHA = 1.0
"""Share of IoU in cleanlab's similarity of boxes; the rest would be exp(-0.1 per pixel of distance)."""
CLASSES = 4
"""Least classes that cleanlab 2.9 may be given: it takes some lists of three for another form of predictions."""
BARELY_4 = np.array([0.0, 0, 1000, 1000])
BARELY_APART = [np.array([[999.0, 999, 1999, 1999, 0.9]]), *(np.zeros((0, 5)) for _ in range(CLASSES - 1))]
"""A picture with a label and a detection that hardly touch. cleanlab lifts every score to the smallest overlap in all that it is
given together: without this one, the suspects of a small dataset would hide each other."""
INSIDE = 0.5
"""A detection that lies in a crowd by this share of its area says nothing, as in COCO's evaluation."""

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Labels:
    """Boxes of a dataset, A rows."""

    image_A: Rows
    boxes_A4: NDArray[np.float64]
    """(x1, y1, x2, y2) in pixels."""
    label_A: Rows
    """Class, 0..K-1."""
    judged_A: NDArray[np.bool_]
    """False for crowds and ignored objects: they are no suspects, and detections inside them say nothing."""
    row_A: Rows
    """Row in the split's table."""

    @classmethod
    def of(cls, split: Split) -> "Labels":
        """The labels of `split` on a picture of it, with a box that has an area."""
        table = split.annotations
        size_A2 = table.boxes_A4[:, 2:] - table.boxes_A4[:, :2]
        usable_A = (table.image_A >= 0) & np.isfinite(table.boxes_A4).all(axis=1) & (size_A2 > 0).all(axis=1)
        row_A = np.flatnonzero(usable_A)
        ignored_A = np.array([bool(table.extra.get(row, {}).get("ignore", 0)) for row in row_A.tolist()], bool)
        label_A = table.label_A[row_A].astype(np.int64)
        judged_A = ~(table.crowd_A[row_A] | ignored_A) & (label_A >= 0)
        return cls(table.image_A[row_A].astype(np.int64), table.boxes_A4[row_A].astype(np.float64), label_A, judged_A, row_A)


@dataclass(frozen=True, slots=True)
class Found:
    """What the detector found on the same pictures, D rows."""

    image_D: Rows
    boxes_D4: NDArray[np.float64]
    label_D: Rows
    scores_D: NDArray[np.float64]


class Contest(NamedTuple):
    """Boxes that overlap and do not agree; without labels it is one detection where nothing is labelled."""

    rows_A: Rows
    rows_D: Rows
    """By class, as cleanlab lists predictions."""


class Suspect(NamedTuple):
    """One label (or one place without) that a detection contradicts."""

    kind: Kind
    image: int
    """Row of the picture."""
    label: int
    """Row among the labels; -1 where one is missing."""
    detection: int
    """Row of the detection that contradicts."""
    quality: float
    """cleanlab's score of the box, 0 (surely wrong) .. 1."""
    sure: float
    """How sure: the detection's score times what the label lacks in quality, 0..1."""


def find_suspects(labels: Labels, found: Found, cfg: SuspectsConfig) -> list[Suspect]:
    """All suspects, the surest first; a label is suspected of one fault at most."""
    from cleanlab.object_detection import rank  # 4 s: it brings scikit-learn

    given = list(contests(labels, found, cfg))
    if not given:
        return []
    asked: dict[str, Any] = {
        "labels": [
            *(_as_labels(contest, labels, found) for contest in given),
            {"bboxes": BARELY_4[None], "labels": np.zeros(1, int)},
        ],
        "predictions": [*(_as_predictions(contest, labels, found) for contest in given), BARELY_APART],
        "alpha": ALPHA,
    }
    overlooked = rank.compute_overlooked_box_scores(high_probability_threshold=cfg.overlooked_score, **asked)
    location = rank.compute_badloc_box_scores(low_probability_threshold=cfg.location_score, **asked)
    classes = rank.compute_swap_box_scores(
        high_probability_threshold=cfg.class_score, overlapping_label_check=False, **asked
    )  # two labels of one place are a finding of validate, without any detector
    suspects: list[Suspect] = []
    for contest, *scores in zip(given, overlooked[:-1], location[:-1], classes[:-1], strict=True):
        suspects += _judged(contest, labels, found, cfg, *scores)
    return sorted(suspects, key=lambda one: (-one.sure, one.image, one.label, one.detection))


def contests(labels: Labels, found: Found, cfg: SuspectsConfig) -> Iterator[Contest]:
    """What labels and detections disagree about, picture by picture.

    Detections below every score that could accuse are left out. A label that a detection of its class overlaps by `cfg.agree_iou`
    is confirmed; that detection, and those that overlap a confirmed label more than any other, are settled. Boxes that overlap
    by more than `cfg.apart_iou` are in one contest.
    """
    sure_D = np.flatnonzero(found.scores_D > min(cfg.overlooked_score, cfg.location_score, cfg.class_score) - 1e-9)
    of_labels, of_found = _by_image(labels.image_A), _by_image(found.image_D[sure_D])
    none = np.zeros(0, np.int64)
    for image, places in of_found.items():
        rows_A, rows_D = of_labels.get(image, none), sure_D[places]
        judged_A = labels.judged_A[rows_A]
        overlap_DA = overlaps(found.boxes_D4[rows_D], labels.boxes_A4[rows_A], ~judged_A)
        counts_D = ~(overlap_DA[:, ~judged_A] >= INSIDE).any(axis=1)
        rows_A, rows_D, iou_DA = rows_A[judged_A], rows_D[counts_D], overlap_DA[counts_D][:, judged_A]
        same_DA = found.label_D[rows_D][:, None] == labels.label_A[rows_A]
        agree_DA = same_DA & (iou_DA >= cfg.agree_iou)
        confirmed_A = agree_DA.any(axis=0)
        near_DA = (iou_DA == iou_DA.max(axis=1, initial=0)[:, None]) & (iou_DA > cfg.apart_iou)
        left_D = ~(agree_DA.any(axis=1) | (near_DA & confirmed_A).any(axis=1))
        rows_A, rows_D, iou_DA = rows_A[~confirmed_A], rows_D[left_D], iou_DA[left_D][:, ~confirmed_A]
        yield from _grouped(rows_A, rows_D, iou_DA > cfg.apart_iou, found, cfg.agree_iou)


def overlaps(boxes_D4: NDArray[np.float64], boxes_A4: NDArray[np.float64], crowd_A: NDArray[np.bool_]) -> NDArray[np.float64]:
    """IoU [D, A]; for crowds the share of the detection that lies inside."""
    if not len(boxes_D4) or not len(boxes_A4):
        return np.zeros((len(boxes_D4), len(boxes_A4)))
    found_D4, given_A4 = (np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1) for boxes in (boxes_D4, boxes_A4))
    return np.asarray(coco_mask.iou(found_D4, given_A4, crowd_A.astype(np.uint8)))


def may_be_overlooked(split: Split, image: int, category: int) -> bool:
    """Whether a missing label of this category would be a fault: federated labels (LVIS) are of few categories per picture."""
    extra = split.images.extra.get(image, {})
    absent = extra.get("neg_category_ids")
    if absent is None:
        return True
    present = split.annotations.category_A[split.rows_of(image)].tolist()
    return category in {*absent, *present} and category not in extra.get("not_exhaustive_category_ids", ())


def _judged(
    contest: Contest,
    labels: Labels,
    found: Found,
    cfg: SuspectsConfig,
    overlooked_D: NDArray[np.float64],
    location_A: NDArray[np.float64],
    class_A: NDArray[np.float64],
) -> Iterator[Suspect]:
    """The suspects of one contest, from cleanlab's scores of its boxes."""
    if not len(contest.rows_A):
        for detection, quality in zip(contest.rows_D.tolist(), overlooked_D.tolist(), strict=True):
            if not np.isnan(quality):
                yield _suspect(Kind.OVERLOOKED, labels, found, -1, detection, quality)
        return
    nobody = np.zeros(len(contest.rows_A), bool)
    iou_DA = overlaps(found.boxes_D4[contest.rows_D], labels.boxes_A4[contest.rows_A], nobody)
    scores_D, label_D = found.scores_D[contest.rows_D], found.label_D[contest.rows_D]
    for place, label in enumerate(contest.rows_A.tolist()):
        same_D = label_D == labels.label_A[label]
        accused: list[Suspect] = []
        for kind, quality, limit, heard_D in (
            (Kind.LOCATION, float(location_A[place]), cfg.agree_iou, same_D & (scores_D > cfg.location_score)),
            (Kind.CLASS, float(class_A[place]), 1 - cfg.class_iou, ~same_D & (scores_D > cfg.class_score)),
        ):
            if quality < limit and heard_D.any():
                accuser = int(contest.rows_D[np.argmax(np.where(heard_D, iou_DA[:, place], -1))])
                accused.append(_suspect(kind, labels, found, label, accuser, quality))
        if accused:
            yield max(accused, key=lambda one: one.sure)


def _suspect(kind: Kind, labels: Labels, found: Found, label: int, detection: int, quality: float) -> Suspect:
    image = int(found.image_D[detection])
    return Suspect(kind, image, label, detection, quality, float(found.scores_D[detection]) * (1 - quality))


def _grouped(rows_A: Rows, rows_D: Rows, linked_DA: NDArray[np.bool_], found: Found, same_iou: float) -> Iterator[Contest]:
    """Connected labels and detections; a detection alone stands for the others of one place, whatever their class."""
    alone = rows_D[~linked_DA.any(axis=1)]
    alone = alone[np.argsort(-found.scores_D[alone], kind="stable")]
    iou_DD = overlaps(found.boxes_D4[alone], found.boxes_D4[alone], np.zeros(len(alone), bool))
    kept: list[int] = []
    for place, row in enumerate(alone.tolist()):
        if not (iou_DD[place, kept] >= same_iou).any():
            kept.append(place)
            yield Contest(np.zeros(0, np.int64), np.array([row]))
    if not linked_DA.any():
        return
    count_D, count_A = linked_DA.shape
    graph = np.zeros((count_D + count_A, count_D + count_A), bool)
    graph[:count_D, count_D:] = linked_DA
    groups = connected_components(graph, directed=False)[1]
    for group in np.unique(groups[:count_D][linked_DA.any(axis=1)]):
        members = rows_D[groups[:count_D] == group]
        by_class = members[np.argsort(found.label_D[members], kind="stable")]
        yield Contest(rows_A[groups[count_D:] == group], by_class)


def _numbered(contest: Contest, labels: Labels, found: Found) -> Rows:
    """The contest's own classes, ascending: cleanlab wants a list per class, and of a thousand few take part."""
    return np.union1d(labels.label_A[contest.rows_A], found.label_D[contest.rows_D])


def _as_labels(contest: Contest, labels: Labels, found: Found) -> dict[str, Any]:
    numbered = _numbered(contest, labels, found)
    return {
        "bboxes": labels.boxes_A4[contest.rows_A],
        "labels": np.searchsorted(numbered, labels.label_A[contest.rows_A]),
    }


def _as_predictions(contest: Contest, labels: Labels, found: Found) -> list[NDArray[np.float64]]:
    numbered = _numbered(contest, labels, found)
    rows_D5 = np.column_stack([found.boxes_D4[contest.rows_D], found.scores_D[contest.rows_D]])
    place_D = np.searchsorted(numbered, found.label_D[contest.rows_D])
    return [rows_D5[place_D == place] for place in range(max(len(numbered), CLASSES))]


def _by_image(image_B: Rows) -> dict[int, Rows]:
    """Rows of each picture that has some, pictures ascending."""
    order = np.argsort(image_B, kind="stable")
    images, starts = np.unique(image_B[order], return_index=True)
    return dict(zip(images.tolist(), np.split(order, starts[1:]), strict=True)) if len(images) else {}
