"""Everything that a training carries from one step to the next, and how it goes to a checkpoint and back."""

from dataclasses import dataclass, field
from typing import Any

import torch

from pipeline.detector.detector import Detector
from pipeline.detector.weights import load_transient_buffers, transient_buffers
from pipeline.errors import UserError
from pipeline.training.checkpoint import Checkpoints, packed, random_states, read, set_random_states
from pipeline.training.config import TrainConfig
from pipeline.training.distributed import Ranks
from pipeline.training.ema import Ema
from pipeline.training.optimizer import build_optimizer, build_schedule

Point = tuple[int, dict[str, float]]


@dataclass(slots=True)
class TrainingState:
    """A training after `step` steps. The sampling generator and the augmentation are functions of seed and step: no state."""

    model: Detector
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    ema: Ema | None
    """On rank 0 alone, when it is wanted."""
    step: int = 0
    curve: list[Point] = field(default_factory=list)
    """Every figure logged so far: a resumed run draws the whole curve."""

    @classmethod
    def start(cls, model: Detector, cfg: TrainConfig, ranks: Ranks) -> "TrainingState":
        """Before the first step."""
        optimizer = build_optimizer(model, cfg.optimizer, cfg.batch)
        ema = Ema(model, cfg.ema) if cfg.ema and ranks.first else None
        return cls(model, optimizer, build_schedule(optimizer, cfg.schedule, cfg.steps), ema)

    @property
    def result(self) -> Detector:
        """The model to measure and to save."""
        return self.model if self.ema is None else self.ema.model  # type: ignore[return-value]

    def save(self, checkpoints: Checkpoints, ranks: Ranks) -> None:
        """Write rank 0's state as a checkpoint on every machine. All ranks call it, after each has found its losses finite.

        UserError for weights that are not.
        """
        randoms = ranks.gathered(random_states())  # a rank whose losses were not finite never comes here, so nothing is written
        if ranks.leads:
            content = ranks.on_every_machine(self._packed(checkpoints, randoms) if ranks.first else None)
            checkpoints.write(self.step, content)

    def _packed(self, checkpoints: Checkpoints, randoms: list[Any]) -> bytes:
        """What a checkpoint holds."""
        if not all(bool(torch.isfinite(value).all()) for value in self.model.parameters()):
            todo = "lower train.optimizer.lr, or set train.clip"
            raise UserError(f"train: the weights after step {self.step} are not finite; no checkpoint of them is kept\n  {todo}")
        state = {
            "step": self.step,
            "model": self.model.state_dict(),
            "buffers": transient_buffers(self.model),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "ema": self.ema.state() if self.ema else None,
            "random": randoms,
            "curve": self.curve,
            "work": checkpoints.folder.name,
        }
        return packed(state)

    def load(self, checkpoints: Checkpoints, ranks: Ranks) -> bool:
        """Go back to the newest checkpoint that any machine has, if it is one of this work and this number of ranks.

        So a machine that comes back with an empty disk is given what the others kept, whichever ranks they have now.
        """
        own = checkpoints.newest() if ranks.leads else None
        steps = ranks.gathered(read(own)["step"] if own is not None else 0)
        if not any(steps):
            return False
        state = read(ranks.from_rank(steps.index(max(steps)), own))
        if state["work"] != checkpoints.folder.name or len(state["random"]) != ranks.count:
            return False
        self.model.load_state_dict(state["model"])
        load_transient_buffers(self.model, state["buffers"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.ema is not None:
            self.ema.load(state["ema"])
        self.step, self.curve = state["step"], [(step, figures) for step, figures in state["curve"]]
        set_random_states(state["random"][ranks.rank])
        return True
