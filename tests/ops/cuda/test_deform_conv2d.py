"""The kernels of deformable convolution against the twin, in one turn and in several."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, expected, run
from tests.ops.test_deform_conv2d import given

pytestmark = ON_DEVICE

TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 2e-2, torch.bfloat16: 1e-1}
CASES = [((1, 1, 1, 1), 1, True), ((2, 1, 1, 2), 2, False), ((1, 2, 2, 4), 4, True)]


def near(found: Any, wanted: Any, dtype: torch.dtype) -> None:
    found, wanted = ([values] if isinstance(values, Tensor) else values for values in (found, wanted))
    for mine, twin in zip(found, wanted, strict=True):
        assert mine.dtype == dtype
        scale = float(twin.abs().max()) if twin.numel() else 0.0
        torch.testing.assert_close(mine.double(), twin.double(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * max(1.0, scale))


def both_ways(
    dtype: torch.dtype, geometry: tuple[int, ...], x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor | None
) -> None:
    """In float64 the twin's answer to the rounded inputs; the gradients of a random upstream."""
    x, offset, weight = (value.to(dtype) for value in (x, offset, weight))
    mask = mask if mask is None else mask.to(dtype)
    exact = [value if value is None else value.double() for value in (x, weight, offset, mask)]
    wanted = expected("deform_conv2d", *exact, *geometry)
    near(run("deform_conv2d", x, weight, offset, mask, *geometry), wanted, dtype)
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(5)).to(dtype).transpose(2, 3).contiguous().mT
    slopes = run("deform_conv2d_backward", upstream, x, weight, offset, mask, *geometry)
    near(slopes, expected("deform_conv2d_backward", upstream.double(), *exact, *geometry), dtype)


@pytest.mark.parametrize("dtype", [*HALF_TYPES, torch.float64])
@pytest.mark.parametrize(("geometry", "offset_groups", "modulated"), CASES)
def test_both_ways(dtype: torch.dtype, geometry: tuple[int, ...], offset_groups: int, modulated: bool) -> None:
    if dtype in (torch.float16, torch.bfloat16) and offset_groups == 4:
        pytest.skip("two cases of half types are enough: the simulator is slow")
    both_ways(dtype, geometry, *given(geometry, offset_groups, modulated))


def test_offsets_of_nought_meet_the_border(monkeypatch: pytest.MonkeyPatch) -> None:
    """The padded border lies one pixel out, to the digit: it reads zero, and its offsets have a slope. One image a turn."""
    from ops_cuda.kernels import deform_conv2d

    monkeypatch.setattr(deform_conv2d, "ELEMENTS", 1)
    x, offset, weight, mask = given((1, 1, 1, 1), 1, True)
    both_ways(torch.float64, (1, 1, 1, 1), x, torch.zeros_like(offset), weight, mask)


def test_far_and_broken_offsets_read_nothing() -> None:
    x, offset, weight, mask = given((1, 1, 1, 1), 1, True)
    offset[0], offset[1] = 1e9, float("nan")
    found = run("deform_conv2d", x.float(), weight.float(), offset.float(), mask.float(), 1, 1, 1, 1)
    assert torch.equal(found, torch.zeros_like(found))


def test_layouts_and_nothing() -> None:
    x, offset, weight, mask = given((2, 1, 1, 2), 2, True)
    x, offset, weight, mask = (value.float() for value in (x, offset, weight, mask))
    wanted = run("deform_conv2d", x, weight, offset, mask, 2, 1, 1, 2)
    turned = [value.transpose(2, 3).contiguous().transpose(2, 3) for value in (x, weight, offset, mask)]
    assert not turned[0].is_contiguous() and torch.equal(run("deform_conv2d", *turned, 2, 1, 1, 2), wanted)
    none = (x[:0], weight, offset[:0], mask[:0], 2, 1, 1, 2)
    assert run("deform_conv2d", *none).shape == (0, *wanted.shape[1:])
    slopes = run("deform_conv2d_backward", wanted[:0], *none)
    assert [slope.shape for slope in slopes] == [value.shape for value in none[:4]] and not slopes[1].any()
