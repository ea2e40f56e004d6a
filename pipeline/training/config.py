"""Settings of training and of the machine it runs on. No torch."""

import os
from typing import Annotated, Literal

from pydantic import Field

from pipeline.errors import ConfigError
from pipeline.schema import schema


@schema
class Sgd:
    """Stochastic gradient descent with momentum: the family's default."""

    kind: Literal["sgd"]
    lr: float
    """Peak learning rate at 16 pictures per step; scaled linearly with the real batch (Goyal et al., 2017)."""
    momentum: float
    weight_decay: float
    """L2 penalty of weights; norm scales and biases of norms are left alone, as in the reference's defaults."""

    def __post_init__(self) -> None:
        _above_zero("train.optimizer.lr", self.lr, "0.02 suits 16 pictures per step")


@schema
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019): forgiving in short runs."""

    kind: Literal["adamw"]
    lr: float
    """Peak learning rate, used as it is whatever the batch."""
    weight_decay: float

    def __post_init__(self) -> None:
        _above_zero("train.optimizer.lr", self.lr, "0.001 suits small models")


@schema
class Cosine:
    """Linear warm-up, then half a cosine down to `final` times the peak."""

    kind: Literal["cosine"]
    warmup: int
    """Steps of warm-up; a run shorter than ten times this warms up for a tenth of itself."""
    final: float
    """Last learning rate as a share of the peak."""

    def __post_init__(self) -> None:
        _at_least_zero("train.schedule.warmup", self.warmup)
        _at_least_zero("train.schedule.final", self.final)


@schema
class Steps:
    """Linear warm-up, then the rate falls by `factor` at each milestone: the reference's 1x, 3x schedules."""

    kind: Literal["steps"]
    warmup: int
    """Steps of warm-up; a run shorter than ten times this warms up for a tenth of itself."""
    milestones: tuple[float, ...]
    """Where the rate falls, as shares of the run: (0.667, 0.889) is the reference's 1x."""
    factor: float

    def __post_init__(self) -> None:
        _at_least_zero("train.schedule.warmup", self.warmup)
        _above_zero("train.schedule.factor", self.factor, "0.1 divides the rate by ten")
        if list(self.milestones) != sorted(self.milestones) or not all(0 < share < 1 for share in self.milestones):
            raise ConfigError("train.schedule.milestones", list(self.milestones), "must be rising shares between 0 and 1")


@schema
class Augment:
    """Random changes of the training pictures; truths follow."""

    flip: float
    """Chance of a mirror image, left to right; 0 where left and right mean different things."""
    scale: tuple[float, float]
    """Range of the random factor on model.input's sides."""
    crop: float
    """Chance of a random crop."""
    crop_least: float
    """Shortest side of a crop, as a share of the picture's side."""

    def __post_init__(self) -> None:
        for name in ("flip", "crop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"train.augment.{name}", getattr(self, name), "is a chance: 0 to 1")
        if not 0.1 <= self.scale[0] <= self.scale[1]:
            raise ConfigError(
                "train.augment.scale", list(self.scale), "must be two rising factors of at least 0.1, such as [0.8, 1.25]"
            )
        if not 0 < self.crop_least <= 1:
            raise ConfigError("train.augment.crop_least", self.crop_least, "must be above 0 and at most 1")


@schema
class TrainConfig:
    """How long and how the detector learns."""

    steps: int
    """Optimizer steps of the run."""
    batch: int
    """Pictures per step, over all processes and passes: a multiple of their number."""
    accumulate: int
    """Passes that a step's pictures are taken in, for batches that do not fit into memory; 1 takes them at once."""
    precision: Literal["float32", "bfloat16"]
    """What the network computes in; weights and losses are float32 either way."""
    sync_norm: bool
    """Whether batch norms that learn take their statistics over all processes; else each takes its own pictures'."""
    ema: float
    """Decay of the running mean of the weights that is measured and saved in their place; 0 saves the last weights. It warms
    up: update n has a decay of at most (1 + n) / (10 + n)."""
    optimizer: Annotated[Sgd | AdamW, Field(discriminator="kind")]
    schedule: Annotated[Cosine | Steps, Field(discriminator="kind")]
    clip: float
    """Largest gradient norm; larger gradients are scaled down to it. 0 switches clipping off."""
    augment: Augment
    repeat_rare: float | None
    """Show pictures of rare classes more often: a class that fewer than this share of the pictures hold is sampled as often as
    sqrt(share / frequency) times (0.001 suits LVIS); null shows every picture once per lap."""
    validate_every: int
    """Steps between measurements of AP on the validation split; 0 measures only at the end."""
    log_every: int
    """Steps between points of the loss curves, and between plain progress lines."""
    checkpoint_every: int
    """Steps between checkpoints, from which a stopped run goes on as if nothing had happened; 0 writes none."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "log_every", "accumulate"):
            _above_zero(f"train.{name}", getattr(self, name), "")
        if not 0 <= self.ema < 1:
            raise ConfigError("train.ema", self.ema, "must be 0 (off) or a decay below 1, such as 0.999")
        if self.checkpoint_every < 0:
            raise ConfigError("train.checkpoint_every", self.checkpoint_every, "must be 0 (none) or a number of steps")
        if self.validate_every < 0:
            raise ConfigError("train.validate_every", self.validate_every, "must be 0 (only at the end) or a number of steps")
        if self.repeat_rare is not None and not 0 < self.repeat_rare <= 1:
            raise ConfigError("train.repeat_rare", self.repeat_rare, "must be a share of the pictures in (0, 1], or null")
        if self.clip < 0:
            raise ConfigError("train.clip", self.clip, "must be 0 (off) or the largest norm allowed")


@schema
class ComputeConfig:
    """The machine's share that a stage may use."""

    device: Literal["cpu", "cuda"]
    threads: int
    """CPU threads of torch and ONNX Runtime; 0 takes every core this process may run on, shared by the training processes.
    Equal counts give equal bytes."""
    workers: int
    """Processes that read and augment pictures for each training process; 0 does it in the training process itself."""
    processes: int
    """Training processes on each machine; 0 starts one per GPU. They talk by NCCL on GPUs and by gloo on CPUs."""
    nodes: int
    """Machines that train together; each runs `python -m pipeline train` with the same settings and data."""
    rendezvous: str
    """host:port of the machine where several nodes meet; empty for one machine."""
    slot: str | None
    """Prefect concurrency limit that a flow's stage holds while it computes, so that runs side by side share a GPU in turn;
    null takes none, and a limit that the server does not have is no limit."""

    def __post_init__(self) -> None:
        for name in ("threads", "workers", "processes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"compute.{name}", getattr(self, name), "must be 0 or more")
        _above_zero("compute.nodes", self.nodes, "1 is this machine alone")
        if self.processes == 0 and self.device == "cpu":
            raise ConfigError("compute.processes", 0, "starts one per GPU: name a number with compute.device=cpu")
        host, _, port = self.rendezvous.rpartition(":")
        if self.rendezvous and not (host and port.isdigit()):
            raise ConfigError("compute.rendezvous", self.rendezvous, "is not host:port, such as 10.0.0.1:29400")
        if self.nodes > 1 and not self.rendezvous:
            raise ConfigError("compute.rendezvous", "''", "must name host:port of one of the nodes when compute.nodes is above 1")

    @property
    def alone(self) -> bool:
        """Whether training is one process, which needs nobody to talk to."""
        return self.processes == 1 and self.nodes == 1

    def threads_each(self, processes: int = 1) -> int:
        """CPU threads of one of `processes` on this machine: as set, or its share of the cores that this process may run on."""
        return self.threads or max(1, len(os.sched_getaffinity(0)) // processes)


def _at_least_zero(field: str, value: float) -> None:
    if not value >= 0:
        raise ConfigError(field, value, "must be 0 or more")


def _above_zero(field: str, value: float, hint: str) -> None:
    if not value > 0:
        raise ConfigError(field, value, "must be above 0" + (f"; {hint}" if hint else ""))
