"""The pairwise overlap's kernel against the twin."""

import pytest
import torch

from tests.ops.cuda.device import HALF_TYPES, ON_DEVICE, SIMULATED, expected, run
from tests.ops.test_losses import boxes

pytestmark = ON_DEVICE

TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}


@pytest.mark.parametrize("dtype", HALF_TYPES)
@pytest.mark.parametrize("kind", ["iou", "ioa", "giou", "diou", "ciou"])
def test_equals_the_twin(dtype: torch.dtype, kind: str) -> None:
    a, b = boxes(10, 0).view(2, 5, 4).to(dtype), boxes(6, 1).view(1, 6, 4).to(dtype)
    a[0, 1] = torch.tensor([3.0, 3, 3, 9])  # without area
    b[0, 2] = a[1, 3]
    aligned = (a[0].unsqueeze(1), b[0, :5].unsqueeze(1))
    for first, second in ((a, b), (b, a), (a[:, :0], b), (a[:0], b), aligned):
        found = run("box_iou_pairs", first, second, kind)
        wanted = expected("box_iou_pairs", first.double(), second.double(), kind)
        assert found.dtype == dtype and found.shape == wanted.shape
        torch.testing.assert_close(found.double(), wanted, rtol=TOLERANCE[dtype], atol=2 * TOLERANCE[dtype], equal_nan=True)


@pytest.mark.skipif(SIMULATED, reason="the public function takes the kernel's way on CUDA tensors only")
def test_the_public_function_broadcasts() -> None:
    import ops_cuda

    a, b = boxes(24, 0).view(2, 3, 4, 4), boxes(10, 1).view(2, 1, 5, 4)
    for first, second in ((a, b), (a[0, 0], b[0, 0]), (a, b[0, 0]), (a[0, 0], b)):
        torch.testing.assert_close(ops_cuda.box_iou(first.cuda(), second.cuda()).cpu(), ops_cuda.box_iou(first, second))
    found = ops_cuda.aligned_box_iou(a.cuda(), b[..., :4, :].cuda(), "giou").cpu()
    torch.testing.assert_close(found, ops_cuda.aligned_box_iou(a, b[..., :4, :], "giou"))
