"""The alarm over all statistics: each finds what is planted for it and nothing else does; chance alone alarms at the set rate."""

import numpy as np
import pytest
from scipy.stats import binom

from pipeline.errors import ConfigError, UserError
from pipeline.monitor.drift import judge, strangeness
from pipeline.monitor.observations import Observations
from pipeline.monitor.two_sample import Vectors
from tests.monitor.sets import STATISTICS, config, pictures

PLANTED = {
    "embedding": {"embedding": 2.5},
    "scores": {"score": -2.0},
    "classes": {"last": 0.5},
    "sizes": {"size": 2.0},
    "objects": {"objects": 12},
    "brightness": {"looks": (-1.5, 0, 0)},
    "contrast": {"looks": (0, 1.5, 0)},
    "sharpness": {"looks": (0, 0, -1.5)},
}


@pytest.mark.parametrize("name", STATISTICS)
def test_each_statistic_finds_its_shift_and_the_others_do_not(name):
    rng = np.random.default_rng(5)
    verdict = judge(pictures(rng, **PLANTED[name]), pictures(rng, 60), config(), 3, 0)
    assert verdict.drifted == (name,)
    found = {one.name: one for one in verdict.compared}
    assert found[name].p == 1 / 400 and found[name].adjusted == pytest.approx(8 / 400) and found[name].effect > 0.05
    assert verdict.figures()["monitor/alarm"] == 1


def test_chance_alone_alarms_at_most_at_the_set_rate_and_would_not_without_the_correction():
    of, cfg = 150, config(false_alarms=0.1, permutations=159)
    rng, alarms, uncorrected = np.random.default_rng(11), 0, 0
    for seed in range(of):
        verdict = judge(pictures(rng, 25), pictures(rng, 30), cfg, 3, seed)
        alarms += bool(verdict.drifted)
        uncorrected += any(one.p <= cfg.false_alarms for one in verdict.compared)
    assert alarms <= binom.ppf(0.999, of, 0.1)
    assert alarms >= binom.ppf(0.001, of, 0.04), "an alarm that never comes is not calibrated either"
    assert uncorrected > binom.ppf(0.9999, of, 0.1)


def test_too_few_pictures_are_refused_with_the_number_needed():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match=r"9 readable new pictures, and at least 10 are needed \(monitor.least=10\)"):
        judge(pictures(rng, 9), pictures(rng, 60), config(), 3, 0)
    with pytest.raises(UserError, match="9 reference pictures"):
        judge(pictures(rng, 60), pictures(rng, 9), config(), 3, 0)


def test_only_sure_detections_are_objects_and_unsure_ones_are_scores():
    rng = np.random.default_rng(1)
    known, new = pictures(rng, 60), pictures(rng, 40)
    doubtful = Observations.joined([new])
    doubtful.score_V[:] = 0.2
    named = {one.name: one for one in judge(doubtful, known, config(), 3, 0).compared}
    assert named["objects"].new == 0 and named["scores"].new == pytest.approx(0.2)
    assert named["objects"].drifted and named["scores"].drifted and named["classes"].drifted


def test_the_strangest_picture_is_the_one_unlike_the_reference():
    rng = np.random.default_rng(2)
    new, known = pictures(rng, 20), pictures(rng, 60)
    new.embedding_NE[7] += 9
    strange_N = strangeness(new, known)
    assert strange_N.argmax() == 7 and strange_N[7] > 2 and 0.7 < np.median(strange_N) < 1.3


def test_rows_are_taken_with_their_objects_and_come_back_from_disk(tmp_path):
    both = pictures(np.random.default_rng(3), 5)
    taken = both.take([3, 3, 0])
    assert taken.names == ("3.png", "3.png", "0.png")
    own = both.size_V[both.picture_V == 3]
    assert taken.size_V[taken.picture_V == 0].tolist() == taken.size_V[taken.picture_V == 1].tolist() == own.tolist()
    taken.write(tmp_path / "kept.npz")
    again = Observations.read(tmp_path / "kept.npz")
    assert again.names == taken.names
    for name in ("looks_N3", "embedding_NE", "picture_V", "score_V", "label_V", "size_V"):
        np.testing.assert_array_equal(getattr(again, name), getattr(taken, name))


def test_joined_sets_keep_which_object_is_on_which_picture():
    rng = np.random.default_rng(4)
    first, second = pictures(rng, 4), pictures(rng, 3)
    both = Observations.joined([first, second])
    np.testing.assert_array_equal(both.take([4, 5, 6]).label_V, second.label_V)
    assert isinstance(Vectors(both.embedding_NE).kernel_NN, np.ndarray) and len(both) == 7


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"permutations": 100}, "monitor.permutations=100 is too few: 8 statistics at 0.05 need 159"),
        ({"splits": ()}, "monitor.splits"),
        ({"statistics": ("scores", "scores")}, "each once"),
        ({"false_alarms": 0.0}, "must be in"),
        ({"score": 0.01}, "monitor.low_score=0.05"),
        ({"most": 5}, "monitor.least=10"),
    ],
)
def test_wrong_settings_are_named(wrong, said):
    with pytest.raises(ConfigError, match=said):
        config(**wrong)


def test_the_fewest_permutations_can_alarm():
    """One fewer never could: the smallest p-value times the number of statistics is above the rate."""
    cfg = config(permutations=159)
    assert 8 / (cfg.permutations_needed + 1) <= 0.05 < 8 / cfg.permutations_needed
