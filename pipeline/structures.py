"""The padded batches that the detector core takes and gives. Axes: `N` images, `G` truths, `D` detections."""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


class _Batch:
    """Tensors that move together."""

    def to(self, device: torch.device | str) -> Self:
        """The same batch on `device`; fields that are None stay None."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}  # type: ignore[arg-type]
        return replace(self, **moved)  # type: ignore[type-var]


@dataclass(slots=True)
class Images(_Batch):
    """A batch of pictures, padded at the right and bottom."""

    pixels_N3HW: Tensor
    """uint8, channels in the order that the model's config names; H and W are multiples of the model's divisor."""
    sizes_N2: Tensor
    """int64 (height, width) of the real picture inside the padding, in pixels."""


@dataclass(slots=True)
class Targets(_Batch):
    """Truths of a batch. G is the batch's own maximum (at least 1), so padding never changes a result."""

    boxes_NG4: Tensor
    """float32 (x1, y1, x2, y2) in the network's pixels; padded rows are zero."""
    labels_NG: Tensor
    """int64 class 0..K-1; -1 marks padding. Padded truths match nothing."""


@dataclass(slots=True)
class Detections(_Batch):
    """Results of a batch in falling score order; row d of image n is real when d < count[n]."""

    boxes_ND4: Tensor
    """float32 (x1, y1, x2, y2); zero in padded rows."""
    scores_ND: Tensor
    """float32 in 0..1; zero in padded rows."""
    labels_ND: Tensor
    """int64 class 0..K-1; -1 in padded rows."""
    count_N: Tensor
    """int64 number of real rows."""
    finite_N: Tensor
    """bool: False where the network gave a non-finite value for the image (its rows are dropped)."""
