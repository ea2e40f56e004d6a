"""The training loop: a page that reads top to bottom. What is validated, drawn and logged comes in as callbacks."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.data.loader import Batch
from pipeline.data.sampler import StepSampler
from pipeline.detector.detector import Detector
from pipeline.detector.losses import Losses
from pipeline.detector.part import Part
from pipeline.errors import ConfigError, UserError
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.config import TrainConfig
from pipeline.training.distributed import ALONE, Ranks
from pipeline.training.state import TrainingState

Log = Callable[[int, Mapping[str, float]], None]
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
    passes: list[Losses]
    names: list[str]

    def read(self) -> dict[str, float]:
        """The step's figures; NonFiniteLoss names the pictures at fault, or all of the batch when no single one is."""
        terms = [{"loss": float(losses.total())} | _numbers(losses.terms) for losses in self.passes]
        figures = _mean(terms)
        finite_N = [finite for losses in self.passes for finite in losses.finite_N.tolist()]
        if not all(finite_N) or not all(map(math.isfinite, figures.values())):
            at_fault = [name for name, finite in zip(self.names, finite_N, strict=True) if not finite]
            raise NonFiniteLoss(self.step, figures, at_fault or self.names)
        return figures | _mean([_numbers(losses.counts) for losses in self.passes])


def train(
    model: Detector,
    batches: Callable[[StepSampler], Iterator[Batch]],
    cfg: TrainConfig,
    device: torch.device,
    seed: int,
    log: Log,
    validate: Callable[[nn.Module, int], dict[str, float]],
    ranks: Ranks = ALONE,
    checkpoints: Checkpoints | None = None,
) -> Detector:
    """Train `model` in place to step `cfg.steps`, from the newest of `checkpoints` if there is one; returns the model to save.

    `batches` reads what the sampler says. Rank 0 alone logs, calls `validate(model, step)` every `cfg.validate_every` and after
    the last step, and writes checkpoints. What is learnt does not depend on how many ranks and passes share a step's pictures.
    NonFiniteLoss stops the run one step after a loss became NaN or infinite, naming that batch's pictures.
    """
    state = TrainingState.start(model, cfg, ranks)
    if checkpoints is not None and state.load(checkpoints, ranks) and ranks.first:
        print(f"train: goes on after step {state.step}, from {checkpoints.folder}", flush=True)
        for done, figures in state.curve:
            log(done, figures)

    def report(step: int, figures: dict[str, float]) -> None:
        state.curve.append((step, figures))
        log(step, figures)

    sampler = StepSampler(cfg.batch, cfg.steps, ranks.rank, ranks.count, cfg.accumulate, state.step)
    stream = batches(sampler)
    sampling = torch.Generator(device)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    wrapped = ranks.wrap(model, device)
    pending: _Pending | None = None
    clock, pictures = time.monotonic(), 0
    model.train()
    for step in range(state.step + 1, cfg.steps + 1):
        parts = ranks.padded_alike([next(stream) for _ in range(cfg.accumulate)])
        state.optimizer.zero_grad()
        passes: list[Losses] = []
        for number, batch in enumerate(parts):
            later = tuple(other.targets.to(device) for other in parts[1:]) if number == 0 else ()
            part = Part(sampler.first(number), cfg.batch, ranks.count, cfg.accumulate, number, later, ranks.sum)
            sampling.manual_seed(step_seed(seed, step))
            with ranks.waiting(wrapped, number == cfg.accumulate - 1):
                with computing(device, cfg.precision):
                    losses = wrapped(batch.images.to(device), batch.targets.to(device), sampling, part)
                (losses.total() / cfg.accumulate).backward()
            passes.append(detached(losses))
        if cfg.clip:
            torch.nn.utils.clip_grad_norm_(trainable, cfg.clip, foreach=True)
        lr = state.optimizer.param_groups[0]["lr"]
        state.optimizer.step()
        state.schedule.step()
        state.step = step
        if state.ema:
            state.ema.update(model)
        if pending:
            pending.read()
        pending = _Pending(step, passes, [name for batch in parts for name in batch.names])
        pictures += cfg.batch
        if step % cfg.log_every == 0 or step == cfg.steps:
            figures = ranks.mean({f"train/{name}": value for name, value in pending.read().items()})
            if ranks.first:
                report(step, {**figures, "train/lr": lr, "train/pictures_per_second": pictures / (time.monotonic() - clock)})
            clock, pictures = time.monotonic(), 0
        if step == cfg.steps or (cfg.validate_every and step % cfg.validate_every == 0):
            if ranks.first:  # the others wait at the next thing that all do together
                report(step, validate(state.result, step))
            model.train()
            clock, pictures = time.monotonic(), 0
        if checkpoints is not None and checkpoints.due(step, cfg.steps):
            pending.read()
            state.save(checkpoints, ranks)
    ranks.wait()
    return state.result


def step_seed(seed: int, step: int) -> int:
    """Seed of the random numbers of one step: no generator's state has to be kept."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)


def computing(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The context in which the network computes in `precision`. ConfigError when the device cannot."""
    if precision == "float32":
        return nullcontext()
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("train.precision", precision, "is not known to this GPU; use train.precision=float32")
    return torch.autocast(device.type, torch.bfloat16)


def detached(losses: Losses) -> Losses:
    """The same figures without the graph that made them."""
    cut = {name: value.detach() for name, value in losses.terms.items()}
    return Losses(cut, losses.finite_N, {name: value.detach() for name, value in losses.counts.items()})


def _numbers(values: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items()}


def _mean(passes: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(figures[name] for figures in passes) / len(passes) for name in passes[0]}
