"""On a GPU: every op runs on the current stream, never waits for the device, and can be captured in a CUDA graph."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ops_cuda._registration import CUDA_FORMS
from tests.ops.cuda.device import SIMULATED, expected, moved
from tests.ops.cuda.samples import SAMPLES

on_a_gpu = [pytest.mark.gpu, pytest.mark.skipif(SIMULATED or not torch.cuda.is_available(), reason="no GPU here")]
gpu = [pytest.param(op, marks=on_a_gpu) for op in sorted(SAMPLES)]


def test_every_op_with_a_cuda_form_has_a_sample() -> None:
    assert sorted(SAMPLES) == sorted(CUDA_FORMS)


def call(op: str, arguments: tuple[Any, ...]) -> list[Tensor]:
    return pytree.tree_leaves(getattr(torch.ops.detectline, op)(*arguments))


def assert_near(found: list[Tensor], wanted: list[Tensor]) -> None:
    for mine, twin in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine.cpu(), twin, rtol=1e-4, atol=1e-4)


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("op", gpu)
def test_a_side_stream_sees_its_inputs(op: str) -> None:
    """The inputs arrive on the stream after a long sleep: a kernel on any other stream would read zeros."""
    arguments = SAMPLES[op]()
    wanted = pytree.tree_leaves(expected(op, *arguments))
    there = moved(arguments, "cuda")
    call(op, there)  # compiles
    late = pytree.tree_map(lambda value: torch.zeros_like(value) if isinstance(value, Tensor) else value, there)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        for target, source in zip(pytree.tree_leaves(late), pytree.tree_leaves(there), strict=True):
            if isinstance(target, Tensor):
                target.copy_(source)
        found = call(op, late)
    stream.synchronize()
    assert_near(found, wanted)


@pytest.mark.parametrize("op", gpu)
def test_nothing_waits_for_the_device(op: str) -> None:
    arguments = moved(SAMPLES[op](), "cuda")
    call(op, arguments)  # compiles
    torch.cuda.synchronize()
    with no_waiting():
        call(op, arguments)


@pytest.mark.parametrize("op", gpu)
def test_a_graph_is_captured_and_replayed_on_new_values(op: str) -> None:
    arguments = SAMPLES[op]()
    wanted = pytree.tree_leaves(expected(op, *arguments))
    held = pytree.tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, moved(arguments, "cuda"))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(op, held)  # compiles, and fills the allocator
    torch.cuda.current_stream().wait_stream(stream)
    for value in pytree.tree_leaves(held):
        if isinstance(value, Tensor):
            value.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call(op, held)
    for target, source in zip(pytree.tree_leaves(held), pytree.tree_leaves(arguments), strict=True):
        if isinstance(target, Tensor):
            target.copy_(source)
    graph.replay()
    torch.cuda.synchronize()
    assert_near(found, wanted)


@pytest.mark.gpu
@pytest.mark.skipif(SIMULATED or not torch.cuda.is_available(), reason="no GPU here")
def test_more_blocks_than_65535() -> None:
    """One op of one element a thread stands for all: grids have one axis, the only one that takes more."""
    logits = torch.randn(256 * 65_536 + 999, device="cuda")
    targets = (torch.rand_like(logits) < 0.5).float()
    found = torch.ops.detectline.sigmoid_focal_loss(logits, targets, 0.25, 2.0)
    wanted = expected("sigmoid_focal_loss", logits[-2000:].cpu(), targets[-2000:].cpu(), 0.25, 2.0)
    torch.testing.assert_close(found[-2000:].cpu(), wanted)
