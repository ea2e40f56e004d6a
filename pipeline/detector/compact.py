"""Padded rows, and dropping them where that is free: in eager runs on the CPU."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ops_cuda import true_rows


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a padded [N, S] batch laid end to end as M rows: all of them, or only the real ones."""

    valid_NS: Tensor
    kept_M: Tensor | None
    """Flat positions of the rows that are left; None when all are."""

    def take(self, values_NSx: Tensor) -> Tensor:
        """[M, ...] from [N, S, ...]."""
        flat = values_NSx.flatten(0, 1)
        return flat if self.kept_M is None else flat.index_select(0, self.kept_M)

    def spread(self, values_Mx: Tensor) -> Tensor:
        """[N, S, ...] from [M, ...]; dropped rows are zero."""
        shape = (*self.valid_NS.shape, *values_Mx.shape[1:])
        if self.kept_M is None:
            return values_Mx.reshape(shape)
        flat = values_Mx.new_zeros((self.valid_NS.numel(), *values_Mx.shape[1:]))
        return flat.index_copy(0, self.kept_M, values_Mx).view(shape)

    def spread_first(self, values_Mx: Tensor, most: int) -> Tensor:
        """[N, most, ...] from [M, ...]: the first `most` rows of each image only."""
        images, slots = self.valid_NS.shape
        if self.kept_M is None:
            return self.spread(values_Mx)[:, :most]
        image_M, slot_M = self.kept_M // slots, self.kept_M % slots
        rows_R = torch.nonzero(slot_M < most).squeeze(1)  # the rows were compacted, so this runs on the CPU
        place_R = image_M[rows_R] * most + slot_M[rows_R]
        flat = values_Mx.new_zeros((images * most, *values_Mx.shape[1:]))
        return flat.index_copy(0, place_R, values_Mx[rows_R]).view(images, most, *values_Mx.shape[1:])

    def image(self) -> Tensor:
        """Image index [M] of each row."""
        images = self.valid_NS.shape[0]
        return self.take(torch.arange(images, device=self.valid_NS.device).unsqueeze(1).expand_as(self.valid_NS))

    def valid(self) -> Tensor:
        """bool [M]: the row is real."""
        return self.take(self.valid_NS)


def compact(valid_NS: Tensor, enabled: bool = True) -> Rows:
    """The rows to work on. Padding is dropped in eager CPU runs only; CUDA and traced graphs keep it and stay free of host waits.

    A head's results do not depend on it: `spread` gives the same values in real rows.
    """
    eager = type(valid_NS) is Tensor and valid_NS.device.type == "cpu" and not torch.compiler.is_compiling()
    kept_M = torch.nonzero(valid_NS.flatten()).squeeze(1) if enabled and eager else None
    return Rows(valid_NS, kept_M)


def channels_last(x_NCHW: Tensor) -> Tensor:
    """The same values with a cell's channels side by side, where nothing is learnt, in eager CPU runs: convolutions then need
    no reordering, and ResNet-50-FPN and the mask head find in 0.65 to 0.8 of the time (benchmarks/model.py, two cores).

    Not in training: batch norm's statistics come out 200 times less exact there (5e-5 instead of 2e-7 after two steps).
    """
    if x_NCHW.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x_NCHW
    return x_NCHW.contiguous(memory_format=torch.channels_last)


def compact_exported(valid_NS: Tensor, enabled: bool = True) -> Rows:
    """`compact`, and in a graph that is exported too: for heads whose cost is all in their rows, as a mask head's.

    There the rows are row 0, real or not, then the real ones: the exported file's work grows with what it finds.
    """
    if enabled and torch.compiler.is_exporting():
        return Rows(valid_NS, true_rows(valid_NS.flatten()))
    return compact(valid_NS, enabled)
