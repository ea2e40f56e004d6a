"""The paired bootstrap, against copies of pictures and pycocotools."""

from dataclasses import replace

import numpy as np
import pytest

from pipeline.evaluation.coco import measure
from pipeline.evaluation.comparison import Matches, difference, mean_ap, resamples
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.truth import Truth

PICTURES, CLASSES = 25, 3


def scene(seed: int, pictures: int = PICTURES) -> Truth:
    """Pictures with no to five objects, some of them crowds; ids that are not in order."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(pictures) + 100
    owner = np.sort(rng.integers(0, pictures, 3 * pictures))
    corner, size = rng.uniform(0, 60, (len(owner), 2)), rng.uniform(8, 60, (len(owner), 2))
    return Truth(
        image_ids_I=ids,
        image_ids_A=ids[owner],
        category_ids_A=rng.integers(1, CLASSES + 1, len(owner)),
        boxes_A4=np.concatenate([corner, corner + size], axis=1),
        area_A=size.prod(axis=1),
        crowd_A=rng.random(len(owner)) < 0.1,
        category_ids_K=np.arange(1, CLASSES + 2),  # the last has no object
        names=("a", "b", "c", "d"),
    )


def detector(truth: Truth, skill: float, seed: int) -> Predictions:
    """Finds a share `skill` of the objects, roughly, and things that are not there. Scores tie often."""
    rng = np.random.default_rng(seed)
    kept = np.flatnonzero(rng.random(len(truth.boxes_A4)) < skill)
    false = rng.poisson(1.0, len(truth.image_ids_I))
    corner = rng.uniform(0, 60, (false.sum(), 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 40, corner.shape)], axis=1)
    return Predictions(
        image_ids_D=np.concatenate([truth.image_ids_A[kept], np.repeat(truth.image_ids_I, false)]),
        boxes_D4=np.concatenate([truth.boxes_A4[kept] + rng.normal(0, 2.5, (len(kept), 4)), boxes]),
        scores_D=np.round(np.concatenate([rng.beta(5, 2, len(kept)), rng.beta(2, 4, len(boxes))]), 3),
        category_ids_D=np.concatenate([truth.category_ids_A[kept], rng.integers(1, CLASSES + 1, len(boxes))]),
    )


def copies(truth: Truth, found: Predictions, weights_I: np.ndarray) -> tuple[Truth, Predictions]:
    """Every picture as often as it was drawn, each time as a picture of its own; ids rise as those of the originals."""
    rising = np.argsort(truth.image_ids_I)
    drawn = np.repeat(rising, weights_I[rising])
    rows = [np.flatnonzero(truth.image_ids_A == truth.image_ids_I[place]) for place in drawn]
    own = [np.flatnonzero(found.image_ids_D == truth.image_ids_I[place]) for place in drawn]
    number = np.arange(1, len(drawn) + 1)
    index, shown = np.concatenate(rows), np.concatenate(own)
    copied = replace(
        truth,
        image_ids_I=number,
        image_ids_A=np.repeat(number, [len(one) for one in rows]),
        category_ids_A=truth.category_ids_A[index],
        boxes_A4=truth.boxes_A4[index],
        area_A=truth.area_A[index],
        crowd_A=truth.crowd_A[index],
    )
    return copied, replace(found.take(shown), image_ids_D=np.repeat(number, [len(one) for one in own]))


@pytest.mark.parametrize("seed", range(4))
def test_weights_equal_evaluating_copies_with_pycocotools(seed: int) -> None:
    truth = scene(seed)
    found = detector(truth, 0.7, seed)
    weights_BI = np.concatenate([np.ones((1, PICTURES), np.int64), resamples(PICTURES, 5, seed)])
    ap_BK = Matches.of(truth, found, "bbox").ap_BK(weights_BI)
    for weights_I, ap_K in zip(weights_BI, ap_BK, strict=True):
        judged = measure(*copies(truth, found, weights_I), engine="pycocotools")
        expected = [np.nan if one.ap < 0 else one.ap for one in judged.classes]
        np.testing.assert_allclose(ap_K, expected, rtol=0, atol=1e-9)
        np.testing.assert_allclose(mean_ap(ap_K[None])[0], judged.value, rtol=0, atol=1e-9)


def test_a_detector_against_itself_differs_by_nothing() -> None:
    truth = scene(1)
    matches = Matches.of(truth, detector(truth, 0.7, 1), "bbox")
    same = difference(matches, matches, 200, 0.95, seed=0)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_interval_is_that_of_brute_force_and_holds_the_truth_as_often_as_it_says() -> None:
    """Equal detectors on many draws of pictures: 90 % intervals miss 0 about as often above as below, in a tenth of the draws."""
    above = below = 0
    for seed in range(100):
        truth = scene(1000 + seed, pictures=40)
        pair = [Matches.of(truth, detector(truth, 0.6, 2 * seed + which), "bbox") for which in (0, 1)]
        found = difference(*pair, 200, 0.9, seed)
        above, below = above + (found.low > 0), below + (found.high < 0)
    assert above + below >= 2 and max(above, below) <= 15  # 5 expected each; beyond these borders in one of 10,000 runs


def test_a_better_detector_is_told() -> None:
    truth = scene(7, pictures=80)
    worse, better = (Matches.of(truth, detector(truth, skill, 3), "bbox") for skill in (0.4, 0.8))
    assert difference(worse, better, 300, 0.95, 0).low > 0
    assert difference(better, worse, 300, 0.95, 0).high < 0


def test_no_detections_and_no_truth() -> None:
    truth = scene(3)
    none = detector(truth, 0.5, 0).take(np.zeros(0, np.int64))
    assert mean_ap(Matches.of(truth, none, "bbox").ap_BK(resamples(PICTURES, 3, 0))).tolist() == [0, 0, 0]
