"""The processes (ranks) of one training: what each knows of the others, and the few things that they tell each other.

Gradients go by torch's DistributedDataParallel, over NCCL between GPUs and gloo between CPUs. What the hosts tell each other
goes over a gloo group of its own, which waits as long as it takes: rank 0 validates while the others wait.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from pipeline.data.loader import Batch

_LONG = timedelta(days=30)
"""Longest validation that the other ranks wait for; a rank that dies ends the wait at once."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among those that train together; alone, every method is for free."""

    rank: int = 0
    count: int = 1
    local: int = 0
    """Place among the ranks of this machine."""
    local_count: int = 1
    hosts: Any = None
    """The gloo group for what is not on a device."""
    machines: int = 1
    leaders: Any = None
    """The gloo group of the first rank of each machine; None when there is but one."""

    @property
    def first(self) -> bool:
        """Whether this rank writes, logs and validates."""
        return self.rank == 0

    @property
    def leads(self) -> bool:
        """Whether this rank writes what each machine keeps: checkpoints, and the results."""
        return self.local == 0

    def wrap(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The module to call in training: its backward averages gradients over the ranks. All start from rank 0's weights."""
        if self.count == 1:
            return model
        ids = [device.index] if device.type == "cuda" else None
        # Buffers are each rank's own: running statistics are rank 0's, and RetinaNet's running mean is equal on all.
        return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True)

    def waiting(self, wrapped: nn.Module, last: bool) -> AbstractContextManager[Any]:
        """In this context gradients stay here, for all passes of a step but the last."""
        return nullcontext() if last or not isinstance(wrapped, DistributedDataParallel) else wrapped.no_sync()

    def padded_alike(self, batches: list[Batch]) -> list[Batch]:
        """The step's batches with pixels padded to one height and width, over passes and ranks.

        Padding is seen by anchors, so the same picture must have the same wherever it is dealt to.
        """
        shapes = [batch.images.pixels_N3HW.shape[2:] for batch in batches]
        most = torch.tensor(shapes).amax(0)
        if self.count > 1:
            dist.all_reduce(most, dist.ReduceOp.MAX, group=self.hosts)
        height, width = most.tolist()
        for batch in batches:
            pixels_N3HW = batch.images.pixels_N3HW
            around = (0, width - pixels_N3HW.shape[3], 0, height - pixels_N3HW.shape[2])
            batch.images.pixels_N3HW = functional.pad(pixels_N3HW, around) if any(around) else pixels_N3HW
        return batches

    def sum(self, count: Tensor) -> Tensor:
        """Sum of a tensor on the training device over the ranks; nothing waits for the device."""
        if self.count == 1:
            return count
        total = count.clone()
        dist.all_reduce(total)
        return total

    def mean(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Mean of each figure over the ranks; all must give the same names in the same order."""
        if self.count == 1:
            return dict(figures)
        values = torch.tensor(list(figures.values()), dtype=torch.float64)
        dist.all_reduce(values, group=self.hosts)
        return dict(zip(figures, (values / self.count).tolist(), strict=True))

    def gathered(self, value: Any) -> list[Any]:
        """Every rank's `value`, in order. Returns on no rank before all have got here."""
        if self.count == 1:
            return [value]
        values: list[Any] = [None] * self.count
        dist.all_gather_object(values, value, group=self.hosts)
        return values

    def from_rank(self, rank: int, value: Any) -> Any:
        """The `value` of one rank on every rank."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=rank, group=self.hosts)
        return values[0]

    def on_every_machine(self, value: Any) -> Any:
        """Rank 0's `value` on the rank that leads each machine; only those call it."""
        if self.machines == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self.leaders)
        return values[0]

    def wait(self) -> None:
        """Until every rank is here, however long rank 0 validates."""
        if self.count > 1:
            dist.barrier(group=self.hosts)


ALONE = Ranks()
"""Training in one process."""


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """This process as one of those that torchrun started (which is known by its environment)."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local, local_count = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    dist.init_process_group("nccl" if device == "cuda" else "gloo", timeout=timedelta(minutes=30) if device == "cuda" else _LONG)
    try:
        hosts: Any = dist.new_group(backend="gloo", timeout=_LONG)
        places: list[Any] = [None] * count
        dist.all_gather_object(places, local, group=hosts)
        leading = [number for number, place in enumerate(places) if place == 0]
        leaders = dist.new_group(leading, timeout=_LONG, backend="gloo") if len(leading) > 1 else None
        yield Ranks(rank, count, local, local_count, hosts, len(leading), leaders)
    finally:
        dist.destroy_process_group()
