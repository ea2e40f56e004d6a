"""The three ways in which an op's tensors may lie in memory, and where its results must lie: where its fake says."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value


def _transposed(value: Tensor) -> Tensor:
    """The same values, columns one behind the other."""
    return value.mT.contiguous().mT if value.dim() > 1 else value


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda value: value.contiguous(),
    "channels_last": _channels_last,
    "transposed": _transposed,
}


def laid_out(arguments: tuple[Any, ...], layout: str) -> tuple[Any, ...]:
    """The arguments with every tensor in that layout, the values as they are."""
    return pytree.tree_map(lambda value: LAYOUTS[layout](value) if isinstance(value, Tensor) else value, arguments)


def said(name: str, arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Shape, strides and dtype of each result, as the op's fake has them."""
    with FakeTensorMode() as mode:
        fake = pytree.tree_map(lambda value: mode.from_tensor(value) if isinstance(value, Tensor) else value, arguments)
        return described(getattr(torch.ops.detectline, name)(*fake))


def described(results: Any) -> list[tuple[Any, ...]]:
    """Shape, strides and dtype of each tensor; where an axis has one element its stride does not matter."""
    tensors = pytree.tree_leaves(results)
    strides = [[step for step, size in zip(one.stride(), one.shape, strict=True) if size > 1] for one in tensors]
    return [(tuple(one.shape), steps, one.dtype) for one, steps in zip(tensors, strides, strict=True)]
