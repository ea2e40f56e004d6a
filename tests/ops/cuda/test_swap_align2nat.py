"""The kernels of swap-align-to-natural against the twin."""

import pytest
import torch

from tests.ops.cuda.device import ON_DEVICE, expected, run

pytestmark = ON_DEVICE

TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float64: 1e-14}


@pytest.mark.parametrize(
    ("side", "scale", "size", "dtype"),
    [
        (3, 1, (3, 4), torch.float32),
        (3, 2, (3, 2), torch.float64),
        (4, 2, (2, 3), torch.float16),
        (2, 4, (2, 1), torch.bfloat16),
        (5, 3, (2, 2), torch.float32),
        (1, 2, (2, 2), torch.float32),
    ],
)
def test_forward_and_backward(side: int, scale: int, size: tuple[int, int], dtype: torch.dtype) -> None:
    rows, columns = size[0] * scale - 1, size[1] * scale + 1  # windows beyond the map, and a map beyond the windows
    generator = torch.Generator().manual_seed(0)
    aligned = torch.randn(2, side * side, columns, rows, generator=generator).transpose(2, 3).to(dtype)
    found = run("swap_align2nat_fused", aligned, side, scale, *size, -6.0)
    wanted = expected("swap_align2nat", aligned.double(), side, scale, *size, -6.0)
    rule = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    assert found.dtype == dtype and (found == -6).any()
    torch.testing.assert_close(found.double(), wanted, **rule)
    upstream = torch.randn(found.shape, generator=generator).to(dtype)
    slope = run("swap_align2nat_backward", upstream, side, scale, rows, columns)
    wanted = expected("swap_align2nat_backward", upstream.double(), side, scale, rows, columns)
    torch.testing.assert_close(slope.double(), wanted, **rule)


def test_nothing() -> None:
    assert run("swap_align2nat_fused", torch.zeros(0, 9, 4, 4), 3, 2, 2, 2, 0.0).shape == (0, 6, 6, 2, 2)
