"""The one `torch.library` namespace of these ops: `torch.ops.detectline.*`."""

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch

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
