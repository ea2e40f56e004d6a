"""The kernels of Soft-NMS and Matrix NMS against the twins."""

import pytest
import torch

from ops_cuda import Decay
from tests.ops.cuda.device import ON_DEVICE, expected, run
from tests.ops.test_soft_nms import batch

pytestmark = ON_DEVICE


@pytest.mark.parametrize("decay", list(Decay))
def test_equals_the_twin(decay: Decay) -> None:
    boxes, scores, groups = (values[:, :36] for values in batch(0))
    boxes[0, 3] = boxes[0, 7]
    given = (boxes, scores, groups, 3, int(decay), 0.4, 0.05, 10)
    found, wanted = run("soft_nms", *given), expected("soft_nms", *given)
    assert torch.equal(found[0], wanted[0]) and torch.equal(found[2], wanted[2])
    torch.testing.assert_close(found[1], wanted[1], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("decay", list(Decay))
def test_ties_and_nothing(decay: Decay) -> None:
    boxes = torch.tensor([[[0.0, 0, 9, 9]] * 3 + [[50, 50, 60, 60]]])
    for scores in (torch.full((1, 4), 0.5), torch.zeros(1, 4)):
        given = (boxes, scores, torch.tensor([[0, 0, -1, 0]]), 1, int(decay), 0.5, 0.0, 6)
        for found, wanted in zip(run("soft_nms", *given), expected("soft_nms", *given), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    # Rows 1 and 3 end with one score, and one place is left for them: the first row has it, whichever was found first.
    boxes = torch.tensor([[[0.0, 0, 9, 9], [0, 0, 9, 9], [50, 50, 60, 60], [90, 90, 99, 99]]])
    scores = torch.tensor([[0.9, 0.5, 0.8, 0.5]])
    for floor in (0.0, 0.3, 0.1):  # 0.1 lies between two float32
        given = (boxes, scores, torch.zeros(1, 4, dtype=torch.int64), 1, int(decay), 2.0, floor, 3)
        for found, wanted in zip(run("soft_nms", *given), expected("soft_nms", *given), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-7)
    none = (torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64))
    empty = run("soft_nms", *none, 1, int(decay), 0.5, 0.0, 3)
    assert empty[0].tolist() == [[-1] * 3] * 2
