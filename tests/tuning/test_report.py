"""The search's page: which setting matters, which trial was best, what became of the others."""

import math

import pytest
from pydantic import TypeAdapter

from pipeline.errors import UserError
from pipeline.tuning import study as studies
from pipeline.tuning.config import SweepConfig
from pipeline.tuning.report import LEAST, importances, page

SPACE = {
    "train.optimizer.lr": {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "train.schedule.warmup": {"kind": "int", "low": 0, "high": 9, "log": False},
}
CONFIG = TypeAdapter(SweepConfig).validate_python(
    {"study": "s", "storage": "sqlite:///optuna.db", "trials": 30, "workers": 1, "pruner": "none", "startup": 0}
    | {"metric": "bbox/AP", "space": SPACE}
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory):
    """Thirty trials of a figure that the learning rate alone decides; every seventh fails."""
    folder = tmp_path_factory.mktemp("study")

    def objective(number, overrides, report):
        if number % 7 == 6:
            raise UserError(f"no <memory> for {number}")
        rate = float(overrides[0].partition("=")[2])
        return 1.0 - abs(math.log10(rate) + 3.0)

    made = studies.open_study(CONFIG, folder, 0)
    studies.work(made, CONFIG, folder / "lock", objective)
    return made


def test_the_setting_that_decides_is_the_important_one(study) -> None:
    weights = importances(study, 26)
    assert weights.keys() == SPACE.keys() and sum(weights.values()) == pytest.approx(1)
    assert weights["train.optimizer.lr"] > 0.8
    assert importances(study, LEAST - 1) == {}


def test_the_page_has_both_plots_and_every_trial(study) -> None:
    said = page(study, CONFIG).html()
    assert said.count("data:image/png") == 2
    assert "no &lt;memory&gt; for 27" in said and "<memory>" not in said
    for one in study.get_trials():
        assert f"{one.params['train.optimizer.lr']:.3g}"[:4] in said


def test_a_search_without_a_finished_trial_has_a_page_too(tmp_path) -> None:
    empty = studies.open_study(CONFIG, tmp_path, 0)
    assert "data:image/png" not in page(empty, CONFIG).html()
