"""Every op with a CUDA form goes whole into torch.compile's and torch.export's graphs, and gives there what it gives alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree

import ops_cuda  # noqa: F401  registers the ops
from tests.ops.cuda.samples import SAMPLES

pytestmark = pytest.mark.kernels


def op(name: str) -> Callable[..., Any]:
    return getattr(torch.ops.detectline, name)  # type: ignore[no-any-return]


def assert_equal(found: Any, wanted: Any) -> None:
    for mine, twin in zip(pytree.tree_leaves(found), pytree.tree_leaves(wanted), strict=True):
        assert torch.equal(mine, twin)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_compiled_whole(name: str) -> None:
    torch._dynamo.reset()
    arguments = SAMPLES[name]()
    compiled = torch.compile(lambda *given: op(name)(*given), backend="aot_eager", fullgraph=True)
    assert_equal(compiled(*arguments), op(name)(*arguments))


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_exported_whole(name: str) -> None:
    class Alone(torch.nn.Module):
        def forward(self, *given: Any) -> Any:
            return op(name)(*given)

    arguments = SAMPLES[name]()
    exported = torch.export.export(Alone(), arguments)
    assert_equal(exported.module()(*arguments), op(name)(*arguments))
