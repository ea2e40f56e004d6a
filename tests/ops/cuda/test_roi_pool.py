"""The kernels of max-pooling regions against the twin, bit for bit."""

import pytest
import torch

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, expected, run
from tests.ops.test_roi_pool import SCALES, given

pytestmark = ON_DEVICE


@pytest.mark.parametrize("dtype", [*HALF_TYPES, torch.float64])
def test_forward_and_backward(dtype: torch.dtype) -> None:
    """A maximum is one of the features, whatever their type: nothing is rounded, except where gradients meet."""
    features, boxes, image, level = given(torch.float64)
    features, real = [feature.to(dtype) for feature in features], torch.float64 if dtype is torch.float64 else torch.float32
    wide = [feature.to(real) for feature in features]
    rows = boxes.to(real), image, level
    regions, places = run("roi_pool", features, *rows, SCALES, 3, 2)
    wanted, wanted_places = expected("roi_pool", wide, *rows, SCALES, 3, 2)
    assert regions.dtype == dtype and torch.equal(regions.to(real), wanted) and torch.equal(places, wanted_places)
    upstream = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = run("roi_pool_backward", upstream, features, *rows, places, SCALES)
    slopes = expected("roi_pool_backward", upstream.to(real), wide, *rows, places, SCALES)
    limit = {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 1e-6)
    for slope, wanted in zip(found, slopes, strict=True):
        assert slope.dtype == dtype
        torch.testing.assert_close(slope.to(real), wanted, rtol=limit, atol=limit)


def test_features_that_are_no_numbers_and_no_boxes() -> None:
    features, boxes, image, level = given()
    features[0][0, 0], features[1][1, 1, 2] = float("nan"), -float("inf")
    for found, wanted in zip(
        run("roi_pool", features, boxes, image, level, SCALES, 3, 3),
        expected("roi_pool", features, boxes, image, level, SCALES, 3, 3),
        strict=True,
    ):
        assert torch.equal(found, wanted)
    none = run("roi_pool", features, boxes[:0], image[:0], level[:0], SCALES, 3, 3)
    assert none[0].shape == (0, 3, 3, 3)
