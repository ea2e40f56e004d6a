"""The training loop: a page that reads top to bottom. What is validated, drawn and logged comes in as callbacks."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.data.loader import Batch
from pipeline.detector.detector import Detector
from pipeline.detector.losses import Losses
from pipeline.errors import UserError
from pipeline.training.config import TrainConfig
from pipeline.training.optimizer import build_optimizer, build_schedule

Log = Callable[[int, dict[str, float]], None]
"""Called with a step and its figures: losses, learning rate, pictures per second, validation AP."""


class NonFiniteLoss(UserError):
    """A loss, or a value that it is made from, became NaN or infinite."""

    def __init__(self, step: int, figures: dict[str, float], names: list[str]) -> None:
        values = ", ".join(f"{name}={value:g}" for name, value in figures.items())
        super().__init__(
            f"train: step {step} gave values that are not finite ({values})\n  in these pictures: {', '.join(names)}\n"
            "  look at their labels in reports/validate/index.html, lower train.optimizer.lr, or set train.clip"
        )


@dataclass(slots=True)
class _Pending:
    """A step whose figures are still on the device: read one step late, so that the device never waits for the host."""

    step: int
    losses: Losses
    total: Tensor
    names: list[str]

    def read(self) -> dict[str, float]:
        """The step's figures; NonFiniteLoss names the pictures at fault, or all of the batch when no single one is."""
        figures = {"loss": float(self.total)} | {name: float(value) for name, value in self.losses.terms.items()}
        finite_N = self.losses.finite_N.tolist()
        if not all(finite_N) or not all(map(math.isfinite, figures.values())):
            at_fault = [name for name, finite in zip(self.names, finite_N, strict=True) if not finite]
            raise NonFiniteLoss(self.step, figures, at_fault or self.names)
        return figures | {name: float(value) for name, value in self.losses.counts.items()}


def train(
    model: Detector,
    batches: Iterator[Batch],
    cfg: TrainConfig,
    device: torch.device,
    seed: int,
    log: Log,
    validate: Callable[[int], dict[str, float]],
) -> None:
    """Train `model` in place for `cfg.steps` steps; `validate(step)` is called every `cfg.validate_every` and after the last.

    NonFiniteLoss stops the run one step after a loss became NaN or infinite, naming that batch's pictures.
    """
    optimizer = build_optimizer(model, cfg.optimizer, cfg.batch)
    schedule = build_schedule(optimizer, cfg.schedule, cfg.steps)
    sampling = torch.Generator(device).manual_seed(seed)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    pending: _Pending | None = None
    clock, pictures = time.monotonic(), 0
    model.train()
    for step, batch in enumerate(batches, start=1):
        losses = model.losses(batch.images.to(device), batch.targets.to(device), sampling)
        total = losses.total()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        if cfg.clip:
            torch.nn.utils.clip_grad_norm_(trainable, cfg.clip, foreach=True)
        lr = optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
        if pending:
            pending.read()
        pending = _Pending(step, detached(losses), total.detach(), batch.names)
        pictures += len(batch.names)
        if step % cfg.log_every == 0 or step == cfg.steps:
            figures = {f"train/{name}": value for name, value in pending.read().items()}
            log(step, {**figures, "train/lr": lr, "train/pictures_per_second": pictures / (time.monotonic() - clock)})
            clock, pictures = time.monotonic(), 0
        if step == cfg.steps or (cfg.validate_every and step % cfg.validate_every == 0):
            log(step, validate(step))
            model.train()
            clock, pictures = time.monotonic(), 0


def detached(losses: Losses) -> Losses:
    """The same figures without the graph that made them."""
    cut = {name: value.detach() for name, value in losses.terms.items()}
    return Losses(cut, losses.finite_N, {name: value.detach() for name, value in losses.counts.items()})
