"""The rotated ROIAlign kernels against the twin, whose positions are in float64."""

import pytest
import torch
from torch import Tensor

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, expected, run

pytestmark = ON_DEVICE

TOLERANCE = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float64: 1e-12}


def given(dtype: torch.dtype) -> tuple[list[Tensor], Tensor, Tensor, Tensor, list[float]]:
    generator = torch.Generator().manual_seed(0)
    features = [torch.rand(2, 5, side, side + 1, generator=generator).to(dtype) for side in (8, 4)]
    boxes = torch.tensor([[12.0, 16, 18, 9, 30], [2, 3, 14, 10, -90], [9, 9, 0, 0, 45], [99, 9, 5, 5, 10], [16, 15, 30, 22, 400]])
    return features, boxes, torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 0, 1, -1, 1]), [1 / 4, 1 / 8]


@pytest.mark.parametrize("dtype", [*HALF_TYPES, torch.float64])
@pytest.mark.parametrize("ratio", [0, 2])
def test_both_ways(dtype: torch.dtype, ratio: int) -> None:
    features, boxes, *rest = given(dtype)
    exact = [feature.double() for feature in features]
    boxes = boxes.double() if dtype is torch.float64 else boxes
    rule = {"rtol": TOLERANCE[dtype], "atol": 3 * TOLERANCE[dtype]}
    found = run("roi_align_rotated", features, boxes, *rest, 2, 3, ratio)
    assert found.dtype == dtype and not found[3].any()
    torch.testing.assert_close(found.double(), expected("roi_align_rotated", exact, boxes, *rest, 2, 3, ratio), **rule)
    upstream = torch.rand(found.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    slopes = run("roi_align_rotated_backward", upstream, features, boxes, *rest, ratio)
    wanted = expected("roi_align_rotated_backward", upstream.double(), exact, boxes, *rest, ratio)
    for slope, target in zip(slopes, wanted, strict=True):
        assert slope.dtype == dtype
        torch.testing.assert_close(slope.double(), target, rtol=10 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


def test_channels_last_and_nothing() -> None:
    features, *rest = given(torch.float32)
    last = [feature.contiguous(memory_format=torch.channels_last) for feature in features]
    wanted = expected("roi_align_rotated", features, *rest, 2, 2, 2)
    torch.testing.assert_close(run("roi_align_rotated", last, *rest, 2, 2, 2), wanted, rtol=2e-5, atol=5e-5)
    none = torch.zeros(0, dtype=torch.int64)
    assert run("roi_align_rotated", features, torch.zeros(0, 5), none, none, rest[3], 7, 7, 0).shape == (0, 5, 7, 7)
