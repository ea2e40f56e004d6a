"""Running mean of the weights (Polyak and Juditsky, 1992): steadier than the last ones, and what is then measured and saved."""

import copy
from typing import Any

import torch
from torch import nn


class Ema:
    """A copy of a model whose weights follow with `decay`; buffers are the model's latest."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False)
        self.decay, self.updates = decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights after one more step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for own, latest in zip(self.model.buffers(), model.buffers(), strict=True):
            own.copy_(latest)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"model": self.model.state_dict(), "updates": self.updates}

    def load(self, state: dict[str, Any]) -> None:
        """Put `state` back."""
        self.model.load_state_dict(state["model"])
        self.updates = state["updates"]
