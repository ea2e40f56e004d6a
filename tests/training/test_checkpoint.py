"""Checkpoints: whole or left out, two of them, and nothing of a training is missing in them."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.loader import Batch, collate
from pipeline.data.sampler import StepSampler
from pipeline.detector.build import build_detector
from pipeline.detector.config import ModelConfig
from pipeline.errors import UserError
from pipeline.training.checkpoint import Checkpoints, packed, random_states, read, set_random_states
from pipeline.training.config import AdamW, TrainConfig
from pipeline.training.ema import Ema
from pipeline.training.loop import NonFiniteLoss, train
from tests.detector.models import tiny_one_stage, tiny_two_stage
from tests.training.ranks import CONFIG, furthest, picture

LONG = replace(CONFIG, steps=7, ema=0.9, checkpoint_every=2, optimizer=AdamW(kind="adamw", lr=0.001, weight_decay=0.1))


class Killed(Exception):
    """Stands for a kill in the middle of a step."""


def trained(
    model_cfg: ModelConfig, cfg: TrainConfig, folder: Path, stop: int | None = None, spoilt: int | None = None
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Weights and the steps logged; `stop` ends it before the pictures of that step, `spoilt` makes that step's pictures NaN."""
    torch.manual_seed(1)
    model = build_detector(model_cfg, 3)
    logged: list[int] = []

    def batches(sampler: StepSampler) -> Iterator[Batch]:
        for step, part in enumerate(sampler, start=sampler.step + 1):
            if step == stop:
                raise Killed
            made = collate([picture(position, lambda _: False) for position in part], model.divisor)
            assert isinstance(made, Batch)
            if step == spoilt:
                made.targets.boxes_NG4[0] = torch.nan
            yield made

    checkpoints = Checkpoints(folder, cfg.checkpoint_every)
    best = train(
        model, batches, cfg, torch.device("cpu"), 3, lambda step, _: logged.append(step), lambda *_: {}, checkpoints=checkpoints
    )
    return {name: value.clone() for name, value in best.state_dict().items()}, logged


@pytest.mark.parametrize("kind", [tiny_two_stage, tiny_one_stage])
def test_a_stopped_training_ends_in_the_same_weights_and_the_same_curve(kind, tmp_path: Path) -> None:
    whole, logged = trained(kind(), LONG, tmp_path / "whole")
    for stop in (4, 6, 6):
        with pytest.raises(Killed):
            trained(kind(), LONG, tmp_path / "stopped", stop=stop)
    resumed, again = trained(kind(), LONG, tmp_path / "stopped")
    assert furthest(whole, resumed) == 0
    assert again == logged
    assert sorted(path.name for path in (tmp_path / "stopped").glob("*.pt")) == ["step-00000004.pt", "step-00000006.pt"]


def test_what_is_saved_is_the_mean_of_the_weights(tmp_path: Path) -> None:
    assert (
        furthest(trained(tiny_two_stage(), LONG, tmp_path)[0], trained(tiny_two_stage(), replace(LONG, ema=0), tmp_path / "b")[0])
        > 0
    )


def test_the_mean_follows_its_formula() -> None:
    model = torch.nn.BatchNorm1d(1)
    ema, expected = Ema(model, 0.3), 1.0
    for update, value in enumerate((2.0, 5.0, -1.0, 7.0)):
        torch.nn.init.constant_(model.weight, value)
        model.running_mean.fill_(value)
        ema.update(model)
        decay = min(0.3, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * value
    assert float(ema.model.weight) == pytest.approx(expected)
    assert float(ema.model.running_mean) == 7.0 and not ema.model.weight.requires_grad


@pytest.mark.parametrize("spoilt", [4, 5])
def test_no_checkpoint_is_kept_of_values_that_are_not_finite(spoilt: int, tmp_path: Path) -> None:
    """Step 4 has a checkpoint due, while its figures would be read in step 5."""
    with pytest.raises(NonFiniteLoss, match=f"step {spoilt} "):
        trained(tiny_two_stage(), replace(LONG, log_every=100), tmp_path, spoilt=spoilt)
    kept = [read(content) for content in [Checkpoints(tmp_path, 2).newest()] if content]
    assert [state["step"] for state in kept] == [2 if spoilt == 4 else 4]
    assert all(bool(value.isfinite().all()) for state in kept for value in state["model"].values())


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-5], lambda content: content[:200] + b"x" + content[201:], lambda _: b""]
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoints = Checkpoints(tmp_path, 1)
    for step in (1, 2, 3):
        checkpoints.write(step, packed({"step": step, "weights": torch.full((100,), float(step))}))
    newest = tmp_path / "step-00000003.pt"
    assert read(checkpoints.newest() or b"")["step"] == 3
    newest.write_bytes(damage(newest.read_bytes()))
    assert read(checkpoints.newest() or b"")["step"] == 2
    assert f"{newest} is damaged" in capsys.readouterr().out
    (tmp_path / "step-00000002.pt").write_bytes(b"")
    assert checkpoints.newest() is None


def test_every_random_generator_goes_on_where_it_was() -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))]

    before = (random_states(),)
    draw()
    states = random_states()
    expected = draw() + draw()
    set_random_states(states)
    assert draw() + draw() == expected
    set_random_states(before[0])


def test_weights_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    """A finite loss can still lead to them: here by a learning rate out of all measure."""
    cfg = replace(LONG, clip=0.0, checkpoint_every=1, optimizer=replace(CONFIG.optimizer, lr=1.3e39, weight_decay=1e3))
    with pytest.raises(UserError, match="not finite"):
        trained(tiny_two_stage(), cfg, tmp_path)
    assert not list(tmp_path.glob("*.pt"))
