"""The ROIAlign kernels against the twin: levels, padding, layouts, dtypes, both ways."""

import pytest
import torch
from torch import Tensor

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, expected, run

pytestmark = ON_DEVICE

SCALES = [1 / 4, 1 / 8, 1 / 16]
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2, torch.float64: 1e-12}


def given(dtype: torch.dtype, channels: int = 5) -> tuple[list[Tensor], Tensor, Tensor, Tensor, list[float]]:
    generator = torch.Generator().manual_seed(0)
    features = [torch.rand(2, channels, side, side + 1, generator=generator).to(dtype) for side in (8, 4, 2)]
    boxes = [[3.0, 2, 21, 30], [-4, 1, 9, 14], [5, 5, 5, 5], [90, 90, 99, 99], [1, 2, 33, 30], [2, 3, 4, 5.5], [7, 9, 7, 20]]
    return features, torch.tensor(boxes), torch.tensor([0, 1, 1, 0, 1, 0, 1]), torch.tensor([0, 0, 1, 0, 2, 1, 0]), SCALES


@pytest.mark.parametrize("dtype", [*HALF_TYPES, torch.float64])
@pytest.mark.parametrize(("ratio", "aligned"), [(0, True), (2, False), (0, False)])
def test_both_ways(dtype: torch.dtype, ratio: int, aligned: bool) -> None:
    features, boxes, image, level, scales = given(dtype)
    level = level.clone()
    level[5] = -1
    exact = [feature.double() for feature in features]
    boxes = boxes.double() if dtype is torch.float64 else boxes
    rule = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
    found = run("roi_align", features, boxes, image, level, scales, 2, 3, ratio, aligned)
    assert found.dtype == dtype and not found[5].any()
    wanted = expected("roi_align", exact, boxes, image, level, scales, 2, 3, ratio, aligned)
    torch.testing.assert_close(found.double(), wanted, **rule)
    upstream = torch.rand(found.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    slopes = run("roi_align_backward", upstream, features, boxes, image, level, scales, ratio, aligned)
    wanted = expected("roi_align_backward", upstream.double(), exact, boxes, image, level, scales, ratio, aligned)
    for slope, target in zip(slopes, wanted, strict=True):
        assert slope.dtype == dtype
        torch.testing.assert_close(slope.double(), target, rtol=10 * TOLERANCE[dtype], atol=10 * TOLERANCE[dtype])


def test_layouts_and_nothing() -> None:
    """Channels last is read as it lies and its gradient has its layout; a mixture is copied."""
    features, *rest = given(torch.float32, channels=4)
    last = [feature.contiguous(memory_format=torch.channels_last) for feature in features]
    wanted = expected("roi_align", features, *rest, 2, 2, 2, True)
    for levels in (last, [features[0], *last[1:]]):
        torch.testing.assert_close(run("roi_align", levels, *rest, 2, 2, 2, True), wanted)
    slopes = run("roi_align_backward", torch.ones_like(wanted), last, *rest, 2, True)
    for slope, target in zip(slopes, expected("roi_align_backward", torch.ones_like(wanted), last, *rest, 2, True), strict=True):
        assert slope.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(slope, target)
    none = torch.zeros(0, dtype=torch.int64)
    assert run("roi_align", features, torch.zeros(0, 4), none, none, SCALES, 7, 7, 0, True).shape == (0, 4, 7, 7)


@pytest.mark.parametrize("aligned", [True, False])
def test_boxes_that_are_not_finite_or_without_end_are_nothing(aligned: bool) -> None:
    features, _, image, _, scales = given(torch.float32, channels=1)
    boxes = torch.tensor([[0.0, 0, torch.inf, 4], [0, 0, torch.nan, 4], [0, -4, 4, 1e9], [0, 0, 4, 4]])
    arguments = (features, boxes, image[:1].expand(4), torch.zeros(4, dtype=torch.int64), scales, 2, 2, 0, aligned)
    found, wanted = run("roi_align", *arguments), expected("roi_align", *arguments)
    assert not wanted[:3].any() and wanted[3].all()
    torch.testing.assert_close(found, wanted)
