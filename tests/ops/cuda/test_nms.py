"""The NMS kernels against the twins: upright boxes index by index, rotated ones where no overlap is at the threshold."""

import pytest
import torch

from tests.ops.cuda.device import ON_DEVICE, expected, run
from tests.ops.test_nms import random_batch

pytestmark = ON_DEVICE


@pytest.mark.parametrize(("groups", "limit"), [(1, 100), (3, 5), (4, 40)])
@pytest.mark.parametrize("threshold", [0.4, 0.7])
def test_equals_the_twin(groups: int, limit: int, threshold: float) -> None:
    """Crowded boxes, ties, padding, boxes without area; several chunks per group in the simulator."""
    given = (*random_batch(groups, images=2, boxes=50, groups=groups), groups, threshold, limit)
    for found, wanted in zip(run("nms", *given), expected("nms", *given), strict=True):
        assert torch.equal(found, wanted)


def test_a_threshold_that_float32_rounds_up() -> None:
    """IoU is float32(0.7) exactly, which is below 0.7 in float64 and must not exceed it; just above does."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 7]]])
    given = (boxes, torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2, dtype=torch.int64), 1)
    for threshold in (0.7, 0.6999999, 0.7000001):
        assert torch.equal(run("nms", *given, threshold, 2)[0], expected("nms", *given, threshold, 2)[0])


def test_half_strided_and_nothing() -> None:
    boxes, scores, groups = random_batch(0, images=2, boxes=30)
    given = (boxes.round().half().transpose(0, 1).contiguous().transpose(0, 1), scores.T.contiguous().T, groups, 4, 0.4, 9)
    assert torch.equal(run("nms", *given)[0], expected("nms", *given)[0])
    empty = run("nms", torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64), 1, 0.5, 3)
    padded = run("nms", torch.zeros(2, 5, 4), torch.zeros(2, 5), torch.full((2, 5), -1), 1, 0.5, 3)
    for index, count in (empty, padded):
        assert index.tolist() == [[-1] * 3] * 2 and count.tolist() == [0, 0]
