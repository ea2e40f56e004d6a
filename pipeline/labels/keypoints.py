"""Checks of keypoints: COCO's (x, y, visibility), 0 = not labelled, 1 = labelled and hidden, 2 = visible."""

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pipeline.data.keypoints import SIDES, mirrored
from pipeline.labels.check import Check, Fix
from pipeline.labels.columns import Columns, Findings

APART = 0.1
"""A left-right pair tells its order when its points are this far apart in x, as a share of the box's longer side."""
WITNESSES = 3
"""So many other pairs of the label must agree before one that contradicts them is judged ..."""
FEWEST = 30
"""... and so many labels must show the pair, before its habits are known."""


class KeypointCount(Check):
    """Another number of keypoints than the class's skeleton has: nobody can tell which is which."""

    code, fix = "keypoint-count", Fix.UNLABEL

    def find(self, data: Columns) -> Findings:
        points_AK3 = data.keypoints_AK3
        marked = None if points_AK3 is None else np.zeros(points_AK3.shape[:2], np.bool_)
        rows, given, wanted = [], [], []
        if points_AK3 is not None and marked is not None:
            there_AK: NDArray[np.bool_] = ~np.all(np.isnan(points_AK3), axis=2)
            given_A = np.where(there_AK.any(axis=1), there_AK.shape[1] - np.argmax(there_AK[:, ::-1], axis=1), 0)
            wanted_A = _skeletons(data)
            labelled_A = np.any(np.nan_to_num(points_AK3[:, :, 2]) > 0, axis=1)  # all zero says that there are none
            wrong = np.flatnonzero((given_A > 0) & (data.label_A >= 0) & (given_A != wanted_A) & labelled_A)
            marked[wrong] = True
            rows, given, wanted = wrong.tolist(), given_A[wrong].tolist(), wanted_A[wrong].tolist()
        reason = "{n} keypoints, its class has {wanted}"
        found = data.on_annotations(self, np.array(rows, np.int64), reason, n=given, wanted=wanted)
        found.keypoints_AK = marked
        return found


class KeypointForm(Check):
    """A list of keypoints that is not triples of x, y and visibility: it cannot be read, and is left as it was."""

    code = "keypoint-form"

    def find(self, data: Columns) -> Findings:
        rows = [(row, len(extra["keypoints"])) for row, extra in data.extras() if "keypoints" in extra]
        numbers = [count for _, count in rows]
        return data.on_annotations(
            self, np.array([row for row, _ in rows], np.int64), "{n} numbers, not a multiple of 3", n=numbers
        )


class KeypointVisibility(Check):
    """A visibility that is not 0, 1 or 2, or a place that is not finite: often a score, which would be learnt from as a label."""

    code, fix = "keypoint-visibility", Fix.UNLABEL

    def find(self, data: Columns) -> Findings:
        def wrong(points_AK3: NDArray[np.float32]) -> NDArray[np.bool_]:
            there_AK = ~np.isnan(points_AK3).all(axis=2)
            known_AK: NDArray[np.bool_] = np.isin(points_AK3[..., 2], (0, 1, 2))
            finite_AK = np.isfinite(points_AK3[..., :2]).all(axis=2) | (points_AK3[..., 2] == 0)
            wrong_AK: NDArray[np.bool_] = there_AK & ~(known_AK & finite_AK)
            return wrong_AK

        return _marked(self, data, wrong, "keypoints {which} have no visibility of 0, 1 or 2, or no place")


class KeypointOutside(Check):
    """A labelled keypoint outside the picture: it cannot be seen there, nor learnt."""

    code, fix = "keypoint-outside", Fix.UNLABEL

    def find(self, data: Columns) -> Findings:
        frames_A2, slack = data.frames_A2, self.limits.outside_px

        def outside(points_AK3: NDArray[np.float32]) -> NDArray[np.bool_]:
            beyond_AK2 = np.maximum(-points_AK3[..., :2], points_AK3[..., :2] - frames_A2[:, None])
            outside_AK: NDArray[np.bool_] = (points_AK3[..., 2] > 0) & (beyond_AK2 > slack).any(axis=2)
            return outside_AK

        return _marked(self, data, outside, "keypoints {which} lie outside the picture")


class KeypointsAllZero(Check):
    """Keypoints of which none is labelled: the label teaches a box only, and evaluation leaves it out."""

    code = "keypoints-all-zero"

    def find(self, data: Columns) -> Findings:
        points_AK3 = data.keypoints_AK3
        rows = np.zeros(0, np.int64)
        if points_AK3 is not None:
            given_A = np.isfinite(points_AK3[..., 2]).any(axis=1)
            rows = np.flatnonzero(given_A & ~(points_AK3[..., 2] > 0).any(axis=1) & ~data.crowd_A)
        return data.on_annotations(self, rows, "not one of its keypoints is labelled")


class KeypointOffBox(Check):
    """A labelled keypoint far outside its own box: another object's point, or a box that was moved without it."""

    code = "keypoint-outside-box"

    def find(self, data: Columns) -> Findings:
        near_A2, far_A2 = data.boxes_A4[:, :2], data.boxes_A4[:, 2:]
        slack_A11 = (self.limits.keypoint_beyond_box * (far_A2 - near_A2).max(axis=1) + 1)[:, None, None]

        def beyond(points_AK3: NDArray[np.float32]) -> NDArray[np.bool_]:
            off_AK2 = np.maximum(near_A2[:, None] - points_AK3[..., :2], points_AK3[..., :2] - far_A2[:, None])
            beyond_AK: NDArray[np.bool_] = (points_AK3[..., 2] > 0) & (off_AK2 > slack_A11).any(axis=2) & ~data.crowd_A[:, None]
            return beyond_AK

        return _marked(self, data, beyond, "keypoints {which} lie outside its box")


class SidesSwapped(Check):
    """Left and right exchanged in one pair against all others of the label, where that hardly ever happens: a slip."""

    code = "keypoint-sides-swapped"

    def find(self, data: Columns) -> Findings:
        rows, names = [], []
        for label, category in enumerate(data.dataset.info.categories):
            pairs_P2 = _pairs(category.keypoints)
            own = np.flatnonzero(data.label_A == label)
            if data.keypoints_AK3 is None or len(pairs_P2) <= WITNESSES or len(own) < FEWEST:
                continue
            points_RK3 = data.keypoints_AK3[own]
            longer_R = (data.boxes_A4[own, 2:] - data.boxes_A4[own, :2]).max(axis=1)
            left_RP3, right_RP3 = points_RK3[:, pairs_P2[:, 0]], points_RK3[:, pairs_P2[:, 1]]
            apart_RP = (left_RP3[..., 0] - right_RP3[..., 0]) / longer_R[:, None]
            seen_RP = (left_RP3[..., 2] > 0) & (right_RP3[..., 2] > 0) & (np.abs(apart_RP) > APART)
            side_RP = np.where(seen_RP, np.sign(apart_RP), 0)
            others_RP = side_RP.sum(axis=1, keepdims=True) - side_RP
            witnesses_RP = seen_RP.sum(axis=1, keepdims=True) - seen_RP
            clear_RP = seen_RP & (witnesses_RP >= WITNESSES) & (np.abs(others_RP) == witnesses_RP)
            against_RP = clear_RP & (np.sign(others_RP) != side_RP)
            # The share counts a label added to each side, so that a pair of which little is known is not judged.
            share_P = (against_RP.sum(axis=0) + 1) / (clear_RP.sum(axis=0) + 2)
            rare_RP = against_RP & (share_P <= self.limits.side_swap_share) & (clear_RP.sum(axis=0) >= FEWEST)
            for row in np.flatnonzero(rare_RP.any(axis=1)).tolist():
                rows.append(int(own[row]))
                names.append(", ".join(f"{category.keypoints[a]} and {category.keypoints[b]}" for a, b in pairs_P2[rare_RP[row]]))
        order = np.argsort(np.array(rows, np.int64), kind="stable")
        reason = "{pair} lie the other way round than all other pairs"
        return data.on_annotations(self, np.array(rows, np.int64)[order], reason, pair=[names[place] for place in order.tolist()])


def _marked(check: Check, data: Columns, find: Callable[[NDArray[np.float32]], NDArray[np.bool_]], reason: str) -> Findings:
    """Findings about labels with keypoints for which `find` is true, and which those are (counted from 1)."""
    if data.keypoints_AK3 is None:
        return data.on_annotations(check, np.zeros(0, np.int64), "")
    with np.errstate(invalid="ignore"):
        marked_AK = find(data.keypoints_AK3)
    rows = np.flatnonzero(marked_AK.any(axis=1))
    which = [", ".join(map(str, (np.flatnonzero(marked_AK[row]) + 1).tolist())) for row in rows.tolist()]
    found = data.on_annotations(check, rows, reason, which=which)
    found.keypoints_AK = marked_AK
    return found


def _skeletons(data: Columns) -> NDArray[np.int64]:
    """Keypoints that each label's class names; 0 for an unknown class."""
    count_K = np.array([*(len(category.keypoints) for category in data.dataset.info.categories), 0], np.int64)
    wanted_A: NDArray[np.int64] = count_K[data.label_A]
    return wanted_A


def _pairs(names: tuple[str, ...]) -> NDArray[np.int64]:
    """The pairs of keypoints [P, 2] that a mirror exchanges, all in the order of sides that the first of them is named in."""
    twins = mirrored(names)
    first = next((k for k, twin in enumerate(twins) if twin > k), None)
    if first is None:
        return np.zeros((0, 2), np.int64)
    side = next(word for word in _words(names[first]) if word in SIDES)
    same = [k for k, twin in enumerate(twins) if twin not in (-1, k) and side in _words(names[k])]
    return np.array([(k, twins[k]) for k in same], np.int64).reshape(-1, 2)


def _words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]
