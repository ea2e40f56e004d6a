"""Two detectors on the same pictures: is the difference of their AP more than chance?

The paired bootstrap (Efron and Tibshirani 1993, chapter 8) over pictures: a resample draws as many pictures as there are, with
repetition, and gives each detector's AP on them; the spread of the differences is what chance makes of a validation set of this
size. Detections are matched once; a resample only weights the pictures, and equals evaluating copies of them (a test does that
with pycocotools). hotcoco's own `compare` counts a picture drawn twice once, which makes its intervals a quarter too narrow.

Axes: `D` detections, `I` pictures, `K` classes, `T` the ten IoU thresholds, `B` resamples.
"""

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.coco import matched_pictures
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.truth import Truth
from pipeline.tasks import Task

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]
RECALL_POINTS = np.linspace(0, 1, 101)
MISSED, FOUND, IGNORED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Matches:
    """The detections of one detector, matched with the truth; of each class the surest first."""

    starts_K: Whole
    """Where each class's detections begin; one more entry for the end."""
    image_D: Whole
    """Place of the picture among the truth's."""
    state_TD: NDArray[np.uint8]
    """MISSED (a false detection), FOUND (a true one) or IGNORED (of a crowd) at each IoU threshold."""
    truths_KI: Whole
    """Labels that count, by class and picture."""

    @classmethod
    def of(cls, truth: Truth, predictions: Predictions, task: Task, limit: int = 100) -> "Matches":
        """Match boxes or masks as COCO does, `limit` detections a picture and class."""
        place_of = {image: place for place, image in enumerate(truth.image_ids_I.tolist())}
        class_of = {category: place for place, category in enumerate(truth.category_ids_K.tolist())}
        truths_KI = np.zeros((len(class_of), len(place_of)), np.int64)
        label, image, score, states = [], [], [], []
        for one in matched_pictures(truth, predictions, task, limit):
            k, i = class_of[one["category_id"]], place_of[one["image_id"]]
            truths_KI[k, i] = sum(not ignored for ignored in one["gtIgnore"])
            found_TD, ignored_TD = np.array(one["dtMatched"], np.bool_), np.array(one["dtIgnore"], np.bool_)
            if found_TD.size:
                states.append(np.where(ignored_TD, IGNORED, found_TD).astype(np.uint8))
                label += [k] * found_TD.shape[1]
                image += [i] * found_TD.shape[1]
                score += one["dtScores"]
        state_TD = np.concatenate(states, axis=1) if states else np.zeros((10, 0), np.uint8)
        label_D, image_D = np.array(label, np.int64), np.array(image, np.int64)
        # Of equal scores the picture with the lower id comes first, as in COCO's own evaluation.
        order = np.lexsort((truth.image_ids_I[image_D], -np.array(score), label_D))
        starts_K = np.searchsorted(label_D[order], np.arange(len(class_of) + 1))
        return cls(starts_K.astype(np.int64), image_D[order], np.ascontiguousarray(state_TD[:, order]), truths_KI)

    def ap_BK(self, weights_BI: Whole) -> Floats:
        """AP of each class on each resample, in which picture i counts `weights_BI[b, i]` times; NaN where it has no truth."""
        return _average_precision(self.starts_K, self.image_D, self.state_TD, weights_BI @ self.truths_KI.T, weights_BI)


@dataclass(frozen=True, slots=True)
class Difference:
    """AP of a challenger less AP of a champion, with what chance makes of it."""

    value: float
    low: float
    high: float
    """The borders of the confidence interval."""
    resamples: int
    confidence: float


def resamples(pictures: int, count: int, seed: int) -> Whole:
    """How often each of the pictures is drawn in each of `count` resamples [B, I]."""
    return np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / max(pictures, 1)), size=count)


def difference(champion: Matches, challenger: Matches, count: int, confidence: float, seed: int) -> Difference:
    """The paired bootstrap's interval (percentiles) of the difference of mean AP, on `count` resamples."""
    pictures = champion.truths_KI.shape[1]
    weights_BI = resamples(pictures, count, seed)
    drawn_B = mean_ap(challenger.ap_BK(weights_BI)) - mean_ap(champion.ap_BK(weights_BI))
    once_1I = np.ones((1, pictures), np.int64)
    value = float((mean_ap(challenger.ap_BK(once_1I)) - mean_ap(champion.ap_BK(once_1I)))[0])
    low, high = np.nanquantile(drawn_B, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist()
    return Difference(value, low, high, count, confidence)


def mean_ap(ap_BK: Floats) -> Floats:
    """Mean over the classes that have truth; NaN for a resample without any."""
    known_BK = np.isfinite(ap_BK)
    count_B = known_BK.sum(axis=1)
    mean_B: Floats = np.where(known_BK, ap_BK, 0).sum(axis=1) / np.where(count_B, count_B, np.nan)
    return mean_B


@numba.njit(cache=True, error_model="numpy", nogil=True)
def _average_precision(
    starts_K: Whole, image_D: Whole, state_TD: NDArray[np.uint8], truths_BK: Whole, weights_BI: Whole
) -> Floats:
    """COCO's interpolated precision at 101 recalls, averaged over the thresholds."""
    resampled, classes, thresholds = len(weights_BI), len(starts_K) - 1, len(state_TD)
    ap_BK = np.full((resampled, classes), np.nan)
    most = 0
    for k in range(classes):
        most = max(most, starts_K[k + 1] - starts_K[k])
    recall_D, precision_D = np.empty(most), np.empty(most)
    for b in range(resampled):
        for k in range(classes):
            truths = truths_BK[b, k]
            if truths == 0:
                continue
            total = 0.0
            for t in range(thresholds):
                found, missed, count = 0, 0, 0
                for d in range(starts_K[k], starts_K[k + 1]):
                    state, weight = state_TD[t, d], weights_BI[b, image_D[d]]
                    if state == 2 or weight == 0:
                        continue
                    if state == 1:
                        found += weight
                    else:
                        missed += weight
                    recall_D[count], precision_D[count] = found / truths, found / (found + missed)
                    count += 1
                for place in range(count - 2, -1, -1):
                    precision_D[place] = max(precision_D[place], precision_D[place + 1])
                place = 0
                for point in range(101):
                    while place < count and recall_D[place] < RECALL_POINTS[point]:
                        place += 1
                    if place < count:
                        total += precision_D[place]
            ap_BK[b, k] = total / (101 * thresholds)
    return ap_BK
