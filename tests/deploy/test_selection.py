"""The search for the fewest convolutions in float, on made-up losses."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.deploy.quantization import plan
from pipeline.deploy.selection import Choice, Trial, choose, most_in_float, require_share
from pipeline.deploy.sensitivity import Sensitivities
from pipeline.errors import GateError
from tests.deploy.graphs import FULL, config, conv, graph_of, noise

NAMES = [f"w{number}" for number in range(20)]


@pytest.mark.parametrize("needed", range(9))
def test_finds_the_fewest_that_hold_within_the_bound(needed: int) -> None:
    tried: list[int] = []

    def losses(kept: Sequence[str]) -> dict[str, float]:
        tried.append(len(kept))
        assert list(kept) == NAMES[: len(kept)]
        return {"int8": 0.0, "int8_exact": 0.0 if len(kept) >= needed else 0.5}

    choice = choose(NAMES, 8, 0.01, losses)
    assert choice.best is not None and len(choice.best.kept_float) == needed == len(choice.last.kept_float)
    assert len(tried) == len(set(tried)) <= 6 and max(tried) <= 8


def test_a_loss_on_either_kind_of_host_counts() -> None:
    for bad in ("int8", "int8_exact"):
        choice = choose(NAMES, 4, 0.01, lambda _, bad=bad: {"int8": 0.0, "int8_exact": 0.0} | {bad: 0.02})
        assert choice.best is None


def test_when_none_holds_the_error_names_the_worst_and_the_settings() -> None:
    choice = choose(["b", "a", "c"], 1, 0.01, lambda kept: {"int8": 0.05 - 0.01 * len(kept)})
    assert choice.last.kept_float == ("b",)
    model = graph_of(
        [conv("pixels", "a", "x"), conv("x", "b", "y"), conv("y", "c", "out")], {n: noise((3, 3, 3, 3), 0) for n in "abc"}
    )
    recipe = plan(model, config(), FULL, choice.last.kept_float)
    worst = Sensitivities({"a": 20.0, "b": 3.25, "c": 30.0}, ())
    with pytest.raises(
        GateError, match=r"1 of 3 convolutions in float .* loses 0\.0400 AP[^$]*most sensitive: b \(3\.2 dB\), a"
    ) as e:
        choice.require(recipe, config(), worst)
    assert all(setting in str(e.value) for setting in ("held_loss=0.01", "share_least=0.8", "quantize.pictures"))


def test_a_choice_that_holds_requires_nothing() -> None:
    trial = Trial(("a",), {"int8": 0.001})
    choice = Choice([trial], trial)
    choice.require(None, config(), Sensitivities({}, ()))  # type: ignore[arg-type]
    assert choice.last is trial and trial.loss <= config().held_loss


@pytest.mark.parametrize("share, named, most", [(0.8, 0, 4), (0.8, 3, 1), (0.8, 9, 0), (1.0, 0, 0), (0.0, 0, 20), (0.79, 0, 4)])
def test_as_many_may_return_as_the_share_leaves(share: float, named: int, most: int) -> None:
    weights = {name: noise((3, 3, 3, 3), 0) for name in NAMES}
    places = ["pixels", *(f"t{number}" for number in range(19)), "out"]
    model = graph_of([conv(places[at], name, places[at + 1]) for at, name in enumerate(NAMES)], weights)
    recipe = plan(model, config(), FULL, NAMES[:named])
    assert most_in_float(recipe, share) == most
    assert (20 - named - most) / 20 >= share or most == 0


def test_too_many_named_by_hand_is_an_error(tmp_path: Path) -> None:
    require_share(16, 20, config())
    with pytest.raises(GateError, match=r"15 of 20 convolutions are in INT8; quantize\.share_least=0\.8"):
        require_share(15, 20, config())
