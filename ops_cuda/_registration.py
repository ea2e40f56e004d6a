"""The one `torch.library` namespace of these ops: `torch.ops.detectline.*`."""

import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

LIBRARY = torch.library.Library("detectline", "DEF")

CUDA_FORMS: dict[str, Callable[[], Callable[..., Any]]] = {}
"""Op -> how to get the function that serves its CUDA tensors."""


def on_cuda(op: str, module: str, function: str) -> None:
    """Serve an op's CUDA tensors by `ops_cuda.kernels.<module>.<function>`, which is imported at the first call."""

    @functools.cache
    def form() -> Callable[..., Any]:
        found: Callable[..., Any] = getattr(importlib.import_module(f"ops_cuda.kernels.{module}"), function)
        return found

    CUDA_FORMS[op] = form
    LIBRARY.impl(op, lambda *arguments: form()(*arguments), "CUDA")


def layout_of(maps: Sequence[Tensor]) -> torch.memory_format:
    """In which an op reads maps [N, C, H, W] and writes their gradients: channels last where all of them are, else contiguous.

    Compiled graphs rely on it: what an op returns must lie in memory as its fake says.
    """
    last = all(one.is_contiguous(memory_format=torch.channels_last) for one in maps)
    return torch.channels_last if last else torch.contiguous_format
