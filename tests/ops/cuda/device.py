"""Where the tests of this folder run their kernels: in the simulator (a child of `test_simulator.py`), or on a GPU (`-m gpu`).

The same cases serve both. In the simulator an op's CUDA form is called on CPU tensors; on a GPU the op itself is, on copies.
"""

import os
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import ops_cuda  # noqa: F401  registers the ops
from ops_cuda._registration import CUDA_FORMS

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"

ON_DEVICE = (
    [pytest.mark.filterwarnings("ignore::RuntimeWarning")]  # numpy's, of divisions by zero that the device does silently
    if SIMULATED
    else [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")]
)
"""For `pytestmark`: without the simulator these tests need a GPU."""

HALF_TYPES = [torch.float32, torch.float16, torch.bfloat16]


def moved(values: Any, device: str) -> Any:
    """Nested values with every tensor on `device`, strides kept."""

    def move(value: Any) -> Any:
        if not isinstance(value, Tensor) or value.device.type == device:
            return value
        there = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=device)
        return there.copy_(value.detach())

    return pytree.tree_map(move, values)


def run(op: str, *arguments: Any) -> Any:
    """The op's CUDA form of CPU tensors, result on the CPU."""
    if SIMULATED:
        return CUDA_FORMS[op]()(*arguments)
    return moved(getattr(torch.ops.detectline, op)(*moved(arguments, "cuda")), "cpu")


def expected(op: str, *arguments: Any) -> Any:
    """The CPU twin's result."""
    return getattr(torch.ops.detectline, op)(*arguments)
