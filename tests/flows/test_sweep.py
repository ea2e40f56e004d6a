"""The search as its users run it: a real one on 64-pixel shapes, and mistakes that are told before it starts."""

import re
import shlex

import pytest

from tests.line.conftest import SETTINGS, clone  # noqa: F401

SPACE = """
study: tiny
storage: sqlite:///work/sweep/optuna.db
trials: 3
workers: 2
pruner: none
startup: 5
metric: bbox/AP
space:
  train.optimizer.lr: {kind: float, low: 0.001, high: 0.005, log: true}
  train.augment.flip: {kind: choice, choices: [0.0, 0.5]}
"""


def test_an_unknown_setting_in_the_space_is_told_before_any_trial(root, tmp_path, monkeypatch):
    from pipeline.errors import ConfigError

    sweep = pytest.importorskip("flows.sweep")
    (tmp_path / "conf").symlink_to(root / "conf")
    (tmp_path / "params.yaml").write_bytes((root / "params.yaml").read_bytes())
    monkeypatch.setattr(sweep, "CHECKOUT", tmp_path)
    monkeypatch.setattr(sweep, "require_source", lambda source, checkout: None)
    compose = sweep.settings.compose

    def misspelt(overrides, where):
        values = compose(overrides, where)
        values["sweep"]["space"] = {"train.optimizer.rate": {"kind": "choice", "choices": [0.1]}}
        return values

    monkeypatch.setattr(sweep.settings, "compose", misspelt)
    with pytest.raises(ConfigError, match=r"train\.optimizer\.rate"):
        sweep.checked([])


def test_a_figure_that_the_model_has_not_is_told_before_any_trial(root, monkeypatch):
    from pipeline.errors import ConfigError

    sweep = pytest.importorskip("flows.sweep")
    monkeypatch.setattr(sweep, "require_source", lambda source, checkout: None)
    with pytest.raises(ConfigError, match=r"segm/AP.*begins with one of bbox/"):
        sweep.checked(["model=faster_rcnn_tiny", "sweep.metric=segm/AP"])
    sweep.checked(["model=faster_rcnn_tiny", "sweep.metric=bbox/AP50"])


@pytest.mark.line
@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_search_ends_with_a_line_that_gives_the_same_ap(clone):  # noqa: F811
    made = clone("sweep")
    (made.folder / "conf/sweep/tiny.yaml").write_text(SPACE)
    made.run("pipeline", "config", *SETTINGS)
    said = made.run("flows.sweep", "sweep=tiny")
    best = float(re.search(r"best ([\d.]+), by:", said)[1])
    line = shlex.split(re.search(r"python -m (flows\.line .*)", said)[1])
    again = made.run(*line)
    assert f"{best:.3f}" in again
    assert (made.folder / "reports/sweep/index.html").exists()
