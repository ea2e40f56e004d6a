"""As tests/ops/test_layouts.py, of the CUDA forms; and they take every integer type for indices.

In the simulator no kernel runs here, which saves minutes: launches check what they are given, which is the point.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ops_cuda import _numba
from tests.ops.cuda.device import ON_DEVICE, SIMULATED, run
from tests.ops.cuda.samples import SAMPLES
from tests.ops.layouts import LAYOUTS, described, laid_out, said

pytestmark = ON_DEVICE


@pytest.fixture(autouse=True)
def launches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the kernels that were given what they declare; on a device they run, and no name is here."""
    seen: list[str] = []

    def check(kernel: Any, dtype: torch.dtype, device: torch.device, blocks: int, threads: int, *arguments: Any) -> None:
        _numba._checker(kernel, dtype, -1)(arguments)
        seen.append(kernel.name)

    if SIMULATED:
        monkeypatch.setattr(_numba.Kernel, "launch", check)
    return seen


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_results_lie_as_their_fakes_say(name: str, layout: str, launches: list[str]) -> None:
    arguments = laid_out(SAMPLES[name](), layout)
    assert described(run(name, *arguments)) == said(name, arguments)
    assert launches or not SIMULATED


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_indices_of_32_bits_and_masks_of_bytes(name: str, launches: list[str]) -> None:
    """Who reads label files may hold them; taken as 64 bits they would point anywhere."""

    def narrow(value: Any) -> Any:
        types = {torch.int64: torch.int32, torch.bool: torch.int64}
        return value.to(types.get(value.dtype, value.dtype)) if isinstance(value, Tensor) else value

    run(name, *pytree.tree_map(narrow, SAMPLES[name]()))
    assert launches or not SIMULATED
