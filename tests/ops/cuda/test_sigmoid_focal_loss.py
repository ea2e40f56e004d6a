"""The focal loss's kernels against the twin."""

import pytest
import torch

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, expected, run

pytestmark = ON_DEVICE

TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float64: 1e-12}


def logits_and_targets(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 9, generator=generator).mul(4).to(dtype)
    logits[0, :4] = torch.tensor([-100.0, 100, 0, -20])
    targets = torch.randint(0, 2, (9, 7), generator=generator).to(dtype).T  # not contiguous
    return logits, targets


@pytest.mark.parametrize("dtype", [*HALF_TYPES, torch.float64])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (-1.0, 1.5), (0.7, 0.0)])
def test_forward_and_backward(dtype: torch.dtype, alpha: float, gamma: float) -> None:
    logits, targets = logits_and_targets(dtype)
    exact = [logits.double(), targets.double(), alpha, gamma]
    found = run("sigmoid_focal_loss", logits, targets, alpha, gamma)
    assert found.dtype == dtype
    rule = {"rtol": TOLERANCE[dtype], "atol": 2 * torch.finfo(dtype).smallest_normal}
    torch.testing.assert_close(found.double(), expected("sigmoid_focal_loss", *exact), **rule)
    upstream = torch.randn(7, 9, generator=torch.Generator().manual_seed(1)).to(dtype)
    slope = run("sigmoid_focal_loss_backward", upstream, logits, targets, alpha, gamma)
    torch.testing.assert_close(slope.double(), expected("sigmoid_focal_loss_backward", upstream.double(), *exact), **rule)


def test_no_elements() -> None:
    assert run("sigmoid_focal_loss", torch.zeros(0, 4), torch.zeros(0, 4), 0.25, 2.0).shape == (0, 4)
    empty = run("class_focal_loss", torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64), 0.25, 2.0)
    assert empty[0] == 0 and empty[1].shape == (2, 0, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("alpha", [0.25, -1.0])
def test_sum_over_classes(dtype: torch.dtype, alpha: float) -> None:
    """250 elements: each thread of the simulator's three blocks takes several."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 25, 5, generator=generator).mul(4).to(dtype)
    classes = torch.randint(-2, 5, (2, 25), generator=generator)
    total, slope = run("class_focal_loss", logits, classes, alpha, 2.0)
    assert total.dtype == torch.float32 and slope.dtype == dtype
    wanted, wanted_slope = expected("class_focal_loss", logits.double(), classes, alpha, 2.0)
    torch.testing.assert_close(total.double(), wanted, rtol=1e-5, atol=0)
    torch.testing.assert_close(slope.double(), wanted_slope, rtol=TOLERANCE[dtype], atol=2 * torch.finfo(dtype).smallest_normal)
