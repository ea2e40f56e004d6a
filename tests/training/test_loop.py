"""The loop, its schedules and optimizers, on a model small enough to follow by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.data.loader import Batch
from pipeline.detector.losses import Losses
from pipeline.detector.part import Part
from pipeline.structures import Images, Targets
from pipeline.training.config import AdamW, Augment, Cosine, Sgd, Steps, TrainConfig
from pipeline.training.loop import NonFiniteLoss, train
from pipeline.training.optimizer import build_optimizer, build_schedule, factor_at

AUGMENT = Augment(flip=0.0, scale=(1.0, 1.0), crop=0.0, crop_least=1.0)


class Line(nn.Module):
    """A one-weight model whose loss is (weight - mean pixel)^2, with a norm beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.norm = nn.BatchNorm2d(3)
        self.modes: list[bool] = []

    def forward(self, images: Images, targets: Targets, generator: torch.Generator, part: Part) -> Losses:
        self.modes.append(self.training)
        pixels = images.pixels_N3HW.float()
        terms = {"loss_a": (self.weight - pixels.nan_to_num(0, 0).mean()) ** 2, "loss_b": 0 * self.norm(pixels).sum()}
        if not pixels.isfinite().all():
            terms["loss_a"] = terms["loss_a"] * float("nan")
        return Losses(terms, pixels.isfinite().flatten(1).all(1))


def batches(pixels: list[float]) -> list[Batch]:
    made = []
    for place, value in enumerate(pixels):
        images = Images(torch.full((2, 3, 4, 4), value), torch.tensor([[4, 4]] * 2))
        targets = Targets(torch.zeros(2, 1, 4), torch.full((2, 1), -1))
        made.append(Batch(images, targets, [f"{place}a.png", f"{place}b.png"]))
    return made


def config(**changes: object) -> TrainConfig:
    values = {
        "steps": 6,
        "batch": 2,
        "accumulate": 1,
        "precision": "float32",
        "sync_norm": False,
        "ema": 0.0,
        "optimizer": Sgd(kind="sgd", lr=0.8, momentum=0.0, weight_decay=0.0),
        "schedule": Steps(kind="steps", warmup=0, milestones=(0.5,), factor=0.1),
        "clip": 0.0,
        "augment": AUGMENT,
        "repeat_rare": None,
        "validate_every": 2,
        "log_every": 1,
        "checkpoint_every": 0,
    }
    return TrainConfig(**(values | changes))  # type: ignore[arg-type]


def run(pixels: list[float], cfg: TrainConfig) -> tuple[Line, list[tuple[int, dict[str, float]]]]:
    model, logged = Line(), []
    train(
        model,
        lambda sampler: iter(batches(pixels)[sampler.step :]),
        cfg,
        torch.device("cpu"),
        0,
        lambda step, figures: logged.append((step, figures)),
        lambda model, step: {"val": float(step)},
    )
    return model, logged


def test_the_weights_follow_gradient_descent_computed_by_hand() -> None:
    model, logged = run([1.0] * 6, config())
    weight = 0.0
    for step in range(6):
        lr = 0.8 * 2 / 16 * (1.0 if step < 3 else 0.1)
        weight -= lr * 2 * (weight - 1)
    assert float(model.weight.detach()) == pytest.approx(weight, rel=1e-6)
    rates = [figures["train/lr"] for _, figures in logged if "train/lr" in figures]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.01, 0.01, 0.01])


def test_validation_comes_at_its_steps_and_training_goes_on_in_train_mode() -> None:
    model, logged = run([1.0] * 5, config(steps=5))
    assert [step for step, figures in logged if "val" in figures] == [2, 4, 5]
    assert all(model.modes)


def test_clipping_bounds_the_step() -> None:
    model, _ = run([1000.0], config(steps=1, clip=0.5))
    assert float(model.weight.detach()) == pytest.approx(0.1 * 0.5, rel=1e-4)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("log_every", [1, 100])
def test_a_loss_that_is_not_finite_names_its_own_pictures(bad: float, log_every: int) -> None:
    given = batches([1.0, 1.0, 1.0, 1.0, 1.0])
    given[2].images.pixels_N3HW[1, 0, 0, 0] = bad
    cfg = config(steps=5, validate_every=0, log_every=log_every)
    with pytest.raises(NonFiniteLoss, match=r"step 3 .*\n.*pictures: 2b\.png\n"):
        train(Line(), lambda _: iter(given), cfg, torch.device("cpu"), 0, lambda *_: None, lambda *_: {})


def test_a_loss_that_breaks_in_the_last_step_is_seen() -> None:
    with pytest.raises(NonFiniteLoss, match="step 2 "):
        run([1.0, math.nan], config(steps=2, validate_every=0, log_every=100))


def test_norms_are_not_decayed_and_every_weight_is_optimized_once() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.GroupNorm(2, 4))
    model[0].bias.requires_grad_(False)
    optimizer = build_optimizer(model, AdamW(kind="adamw", lr=0.1, weight_decay=0.3), batch=4)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay[id(model[0].weight)] == 0.3
    assert {decay[id(p)] for m in model[1:] for p in m.parameters()} == {0.0}
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(decay) == 5


def test_a_cosine_rises_to_the_peak_and_ends_at_its_last_share() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = build_schedule(optimizer, Cosine(kind="cosine", warmup=50, final=0.01), steps=100)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert np.argmax(rates) == 10 and rates[10] == pytest.approx(2.0)  # warm-up is capped at a tenth of the run
    assert rates[0] == pytest.approx(2.0 / 11)
    assert rates[55] == pytest.approx(2.0 * (0.01 + 0.99 * 0.5))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_milestones_are_shares_of_the_run() -> None:
    cfg = Steps(kind="steps", warmup=0, milestones=(0.6, 0.8), factor=0.1)
    assert [factor_at(step, cfg, 10, 0) for step in (5, 6, 7, 8, 9)] == pytest.approx([1, 0.1, 0.1, 0.01, 0.01])
