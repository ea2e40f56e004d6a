"""The rotated kernels, in float32: overlaps near the twin's, and the same NMS where none is near the threshold."""

import pytest
import torch

from tests.ops.cuda.device import ON_DEVICE, expected, run
from tests.ops.test_rotated_boxes import random_boxes

pytestmark = ON_DEVICE


def crowd(seed: int, *shape: int) -> torch.Tensor:
    boxes = random_boxes(seed, *shape, spread=40)
    boxes[..., ::11, 2] = 0  # without area
    boxes[..., 1, :] = boxes[..., 2, :]  # the same twice
    boxes[..., 3, :4], boxes[..., 3, 4] = boxes[..., 4, :4], boxes[..., 4, 4] + 360
    boxes[..., 5, 4] = 90
    return boxes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_iou_is_near_the_twins(dtype: torch.dtype) -> None:
    for a, b in ((crowd(0, 2, 8), crowd(1, 1, 7)), (crowd(2, 1, 6), crowd(3, 3, 6)), (crowd(4, 1, 9), crowd(4, 1, 9))):
        found = run("rotated_box_iou", a.to(dtype), b.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected("rotated_box_iou", a.double(), b.double()), rtol=0, atol=1e-5)
    assert run("rotated_box_iou", a[:, :0], b).shape == (1, 0, 9)


@pytest.mark.parametrize(("groups", "limit"), [(1, 30), (3, 4)])
def test_nms_equals_the_twin(groups: int, limit: int) -> None:
    generator = torch.Generator().manual_seed(0)
    boxes, scores = crowd(5, 2, 24), torch.randint(-20, 20, (2, 24), generator=generator) / 10
    group = torch.randint(-1, groups, (2, 24), generator=generator)
    iou = expected("rotated_box_iou", boxes.double(), boxes.double())
    assert (iou - 0.3).abs().min() > 1e-4, "no overlap of this batch is decided by rounding"
    for found, wanted in zip(
        run("nms_rotated", boxes, scores, group, groups, 0.3, limit),
        expected("nms_rotated", boxes, scores, group, groups, 0.3, limit),
        strict=True,
    ):
        assert torch.equal(found, wanted)
