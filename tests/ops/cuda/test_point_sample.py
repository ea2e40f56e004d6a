"""The kernels of reading features at points against the twin."""

import pytest
import torch

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, expected, run

pytestmark = ON_DEVICE

TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-12}


def given(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points beyond every edge, on edges and centres, and one that is no number; a row of no picture."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 4, 9, 6, generator=generator, dtype=torch.float64).to(dtype).transpose(2, 3)[:, 1:]  # 3 channels
    points = torch.rand(4, 11, 2, generator=generator, dtype=torch.float64) * torch.tensor([13.0, 10.0]) - 2
    points[0, :4] = torch.tensor([[0.0, 0.0], [9.0, 6.0], [0.5, 0.5], [8.5, 5.5]])
    points[1, :2] = torch.tensor([[1e9, 3.0], [3.0, -1e9]])
    return maps, points.to(torch.float64 if dtype is torch.float64 else torch.float32), torch.tensor([1, 0, 1, 0])


@pytest.mark.parametrize("dtype", [*HALF_TYPES, torch.float64])
def test_forward_and_backward(dtype: torch.dtype) -> None:
    maps, points, image = given(dtype)
    exact = maps.double(), points.double(), image
    found = run("point_sample", maps, points, image)
    rule = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected("point_sample", *exact), **rule)
    upstream = torch.randn(4, 3, 11, generator=torch.Generator().manual_seed(1)).to(dtype)
    slope = run("point_sample_backward", upstream, maps, points, image)
    assert slope.dtype == dtype
    torch.testing.assert_close(slope.double(), expected("point_sample_backward", upstream.double(), *exact), **rule)


def test_points_that_are_no_numbers_and_no_rows() -> None:
    maps, points, image = given(torch.float32)
    points[2, 3], image[3] = float("nan"), -1
    found = run("point_sample", maps, points, image)
    assert not found[2, :, 3].any() and not found[3].any() and found[2, :, 4].any()
    assert run("point_sample", maps, points[:0], image[:0]).shape == (0, 3, 11)
    assert not run("point_sample_backward", found[:0], maps, points[:0], image[:0]).any()
