"""The tests behind the alarm: each sees a planted shift and not its clean twin, and chance alone alarms as rarely as promised."""

import warnings

import numpy as np
import pytest
from scipy.stats import anderson_ksamp, binom, false_discovery_control, ks_2samp, spearmanr

from pipeline.monitor.two_sample import Comparison, Nominal, Ordered, Vectors, holm, p_values, relabelled

NEW, KNOWN = 40, 60
PICTURES = NEW + KNOWN
FIRST = np.arange(PICTURES) < NEW


def p_of(test: Comparison, permutations: int = 999, seed: int = 0) -> float:
    return p_values({"it": test}, NEW, KNOWN, permutations, seed)["it"]


def crowded(rng: np.random.Generator, shift: float = 0.0, spread: float = 1.0) -> Ordered:
    """30 objects a picture, nearly alike within it: a level per picture plus little noise."""
    level_N = rng.normal(0, spread, PICTURES) + shift * FIRST
    picture_V = np.repeat(np.arange(PICTURES), 30)
    return Ordered(picture_V, level_N[picture_V] + rng.normal(0, 0.05, len(picture_V)), PICTURES)


def kinds(rng: np.random.Generator, share: float) -> Nominal:
    """Three classes; of the new pictures' objects `share` are of the last."""
    picture_V = np.repeat(np.arange(PICTURES), 5)
    last_V = rng.random(len(picture_V)) < np.where(FIRST[picture_V], share, 0.2)
    return Nominal(picture_V, np.where(last_V, 2, rng.integers(0, 2, len(picture_V))), PICTURES, 3)


@pytest.mark.parametrize("seed", range(3))
def test_shift_of_values_is_seen_and_its_clean_twin_is_not(seed):
    value_N = np.random.default_rng(seed).normal(size=PICTURES)
    assert p_of(Ordered(np.arange(PICTURES), value_N + 1.2 * FIRST, PICTURES)) == 1 / 1000
    assert p_of(Ordered(np.arange(PICTURES), value_N, PICTURES)) > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_wider_spread_without_a_shift_is_seen(seed):
    """A test of means alone would miss it."""
    value_N = np.random.default_rng(seed).normal(size=PICTURES)
    assert p_of(Ordered(np.arange(PICTURES), np.where(FIRST, 4 * value_N, value_N), PICTURES)) < 0.005


@pytest.mark.parametrize("seed", range(3))
def test_shift_of_classes_is_seen_and_its_clean_twin_is_not(seed):
    assert p_of(kinds(np.random.default_rng(seed), 0.45)) == 1 / 1000
    assert p_of(kinds(np.random.default_rng(seed), 0.2)) > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_vectors_of_another_direction_are_seen_and_their_clean_twins_are_not(seed):
    vector_NE = np.random.default_rng(seed).normal(size=(PICTURES, 20))
    assert p_of(Vectors(vector_NE)) > 0.01
    vector_NE[:, 3] += 2.5 * FIRST
    assert p_of(Vectors(vector_NE)) == 1 / 1000


def test_effects_are_0_for_equal_sets_and_1_for_sets_apart():
    every, same = np.arange(PICTURES), np.zeros(PICTURES)
    assert Ordered(every, same, PICTURES).effect(FIRST) == 0 and Ordered(every, FIRST * 1.0, PICTURES).effect(FIRST) == 1
    assert Nominal(every, FIRST.astype(np.int64), PICTURES, 2).effect(FIRST) == 1
    assert Nominal(every, np.zeros(PICTURES, np.int64), PICTURES, 2).effect(FIRST) == 0
    assert Vectors(np.ones((PICTURES, 2))).effect(FIRST) == 0 and Vectors(FIRST[:, None] * np.ones(2)).effect(FIRST) > 0.5


def test_a_p_value_is_never_zero_and_counts_the_observed_labelling():
    """Phipson and Smyth 2010: b / n would give 0 here."""
    apart = Ordered(np.arange(PICTURES), FIRST * 1.0, PICTURES)
    assert p_of(apart, permutations=99) == 1 / 100 and p_of(apart, permutations=199) == 1 / 200


def test_equal_values_are_no_difference():
    """All labellings tie: a count of strictly larger distances would give the smallest p-value of all."""
    assert p_of(Ordered(np.arange(PICTURES), np.zeros(PICTURES), PICTURES)) == 1
    assert p_of(Vectors(np.ones((PICTURES, 4)))) == 1
    nothing = np.zeros(0, np.int64)
    assert p_of(Ordered(nothing, np.zeros(0), PICTURES)) == 1 and p_of(Nominal(nothing, nothing, PICTURES, 3)) == 1


def test_a_detector_that_finds_nothing_any_more_differs():
    """The new pictures have no objects at all."""
    picture_V = np.repeat(np.arange(NEW, PICTURES), 3)
    assert p_of(Nominal(picture_V, picture_V % 3, PICTURES, 3)) == 1 / 1000


def test_whole_pictures_are_relabelled_and_sides_keep_their_sizes():
    drawn = np.concatenate(list(relabelled(NEW, KNOWN, 1200, np.random.default_rng(0))))
    assert drawn.shape == (1200, PICTURES) and (drawn.sum(axis=1) == NEW).all()
    assert abs(drawn.mean(axis=0) - NEW / PICTURES).max() < 0.08


def test_distance_is_that_of_anderson_and_darling():
    """Scipy's statistic of two samples without ties orders labellings as ours does."""
    value_N = np.random.default_rng(3).normal(size=30)
    test = Ordered(np.arange(30), value_N, 30)
    drawn_BN = np.concatenate(list(relabelled(12, 18, 60, np.random.default_rng(4))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its table of p-values ends where ours go on
        theirs = [anderson_ksamp([value_N[new_N], value_N[~new_N]]).statistic for new_N in drawn_BN]
    assert spearmanr(test.distances(drawn_BN), theirs).statistic > 0.99


def test_rate_of_false_alarms_of_crowded_pictures_is_the_level_not_that_of_single_objects():
    """30 objects a picture that are alike: tests of objects alarm at nearly every set, tests of pictures at 5 of 100."""
    of, level = 300, 0.05
    rng, hits, wrong = np.random.default_rng(1), 0, 0
    for seed in range(of):
        test = crowded(rng)
        hits += p_of(test, 99, seed) <= level
        if seed < 50:
            level_N = rng.normal(0, 1, PICTURES)
            wrong += ks_2samp(np.repeat(level_N[:NEW], 30), np.repeat(level_N[NEW:], 30)).pvalue <= level
    assert binom.ppf(0.001, of, level) <= hits <= binom.ppf(0.999, of, level)
    assert wrong > 30


def test_holm_is_step_down_and_keeps_the_order():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0]) and holm([]) == []
    values = np.random.default_rng(0).random(8).tolist()
    assert all(a >= v for a, v in zip(holm(values), values, strict=True))
    assert min(holm(values)) == pytest.approx(min(1, 8 * min(values)))
    assert any(a > b for a, b in zip(holm([0.01] * 5), false_discovery_control([0.01] * 5), strict=True)), "that is another rate"


@pytest.mark.parametrize("seed", range(3))
def test_a_shift_in_a_weak_direction_is_seen_beside_strong_ones(seed):
    """As in an inner layer: hundreds of columns move together with a few strong causes, and what is new is a weak one."""
    rng = np.random.default_rng(seed)
    causes_NF = rng.normal(size=(PICTURES, 9)) * [*[6] * 8, 1]
    columns_FE = rng.normal(size=(9, 200))
    clean_NE = causes_NF @ columns_FE + rng.normal(0, 0.1, (PICTURES, 200))
    assert p_of(Vectors(clean_NE)) > 0.01
    causes_NF[:, 8] += 3 * FIRST
    assert p_of(Vectors(causes_NF @ columns_FE + rng.normal(0, 0.1, (PICTURES, 200)))) == 1 / 1000
