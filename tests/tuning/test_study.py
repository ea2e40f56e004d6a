"""The shared study: exact counts, killed workers, pruning, the space."""

import os
import signal
import subprocess
import sys
import time

import pytest
from pydantic import TypeAdapter

from pipeline.errors import ConfigError, UserError
from pipeline.tuning import study as studies
from pipeline.tuning.config import SweepConfig

SPACE = {
    "train.optimizer.lr": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "train.schedule.warmup": {"kind": "int", "low": 0, "high": 9, "log": False},
    "model.anchors.ratios": {"kind": "choice", "choices": ["[[0.5,1.0]]", "[[1.0]]"]},
}


def config(**changes) -> SweepConfig:
    values = {"study": "s", "storage": "sqlite:///optuna.db", "trials": 6, "workers": 2, "pruner": "none", "startup": 0}
    return TypeAdapter(SweepConfig).validate_python(values | {"metric": "bbox/AP", "space": SPACE} | changes)


def reasons(study):
    return [one.user_attrs.get(studies.REASON) for one in study.get_trials()]


@pytest.mark.parametrize(
    "name, parameter, said",
    [
        ("train.batch", {"kind": "int", "low": 8, "high": 4, "log": False}, "low"),
        ("train.optimizer.lr", {"kind": "float", "low": 0.0, "high": 1.0, "log": True}, "log"),
        ("train.batch", {"kind": "int", "low": 1.5, "high": 4, "log": False}, "whole"),
        ("dataset.size", {"kind": "int", "low": 1, "high": 4, "log": False}, "may change"),
        ("train.batch", {"kind": "choice", "choices": []}, "at least one"),
    ],
)
def test_a_wrong_space_is_refused(name, parameter, said):
    with pytest.raises(ConfigError, match=said):
        config(space={name: parameter})


def test_a_study_that_was_begun_with_another_space_or_other_data_is_not_gone_on_with(tmp_path):
    study = studies.open_study(config(), tmp_path, 0)
    studies.require_same(study, config(), ["train.steps=5"], "data")
    studies.require_same(study, config(trials=9), ["train.steps=5"], "data")
    with pytest.raises(ConfigError, match="another space"):
        studies.require_same(study, config(), ["train.steps=6"], "data")
    with pytest.raises(ConfigError, match="other data"):  # AP on other pictures is no better or worse
        studies.require_same(study, config(), ["train.steps=5"], "new data")


def test_values_stay_within_the_space_and_a_resumed_study_ends_at_its_count(tmp_path):
    seen = []

    def objective(number, overrides, report):
        seen.append(dict(word.split("=", 1) for word in overrides))
        return float(number)

    for trials in (2, 5, 5):
        wanted = config(trials=trials)
        study = studies.open_study(wanted, tmp_path, 0)
        studies.work(study, wanted, tmp_path / "lock", objective)
        assert len(seen) == trials
    assert studies.best(study).number == 4
    assert studies.overrides_of(studies.best(study).params) == [f"{name}={value}" for name, value in seen[4].items()]
    for values in seen:
        assert 1e-4 <= float(values["train.optimizer.lr"]) <= 1e-2
        assert int(values["train.schedule.warmup"]) in range(10)
        assert values["model.anchors.ratios"] in SPACE["model.anchors.ratios"]["choices"]


def test_failed_trials_keep_their_reason_and_all_failing_is_an_error(tmp_path):
    def objective(number, overrides, report):
        if number != 1:
            raise UserError(f"no memory for {number}")
        return 0.5

    study = studies.open_study(config(trials=3), tmp_path, 0)
    studies.work(study, config(trials=1), tmp_path / "lock", objective)
    with pytest.raises(UserError, match="no memory for 0"):
        studies.best(study)
    studies.work(study, config(trials=3), tmp_path / "lock", objective)
    assert reasons(study) == ["no memory for 0", None, "no memory for 2"]
    assert studies.best(study).number == 1


def test_a_trial_below_the_median_is_pruned_at_its_report(tmp_path):
    reached = []

    def objective(number, overrides, report):
        value = 0.9 if number < 2 else 0.1
        report(10, value)
        reached.append(number)
        return value

    wanted = config(trials=3, pruner="median")
    study = studies.open_study(wanted, tmp_path, 0)
    studies.work(study, wanted, tmp_path / "lock", objective)
    assert [one.state.name for one in study.get_trials()] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert reached == [0, 1]


VICTIM = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.tuning.test_study import config
from pipeline.tuning import study as studies

def objective(number, overrides, report):
    print(number, flush=True)
    time.sleep(600)

root = Path({folder!r})
studies.work(studies.open_study(config(), root, 0), config(), root / "lock", objective)
"""


def test_the_trial_of_a_killed_worker_is_tried_again_with_the_same_values(root, tmp_path):
    program = VICTIM.format(root=str(root), folder=str(tmp_path))
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        assert worker.stdout.readline() == b"0\n"
        study = studies.open_study(config(), tmp_path, 1)
        studies.retry_lost(study)
        assert [one.state.name for one in study.get_trials()] == ["RUNNING"]  # it lives
    finally:
        os.kill(worker.pid, signal.SIGKILL)
    while studies.alive(study.get_trials()[0].user_attrs[studies.WORKER]):  # not yet reaped, a zombie is dead too
        time.sleep(0.01)
    tried = []
    studies.work(study, config(), tmp_path / "lock", lambda number, overrides, report: tried.append(overrides) or 1.0)
    worker.wait()
    worker.stdout.close()
    trials = study.get_trials()
    assert [one.state.name for one in trials] == ["FAIL"] + ["COMPLETE"] * 6
    assert trials[0].user_attrs[studies.LOST]
    assert trials[1].params == trials[0].params
    assert len(tried) == 6
