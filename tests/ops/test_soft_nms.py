"""Soft-NMS and Matrix NMS against loops written from the papers, in float64 and nothing shared with the op."""

import math

import pytest
import torch
from torch import Tensor

import ops_cuda
from ops_cuda import Decay
from tests.ops.test_nms import random_batch


def iou(a: list[float], b: list[float]) -> float:
    inter = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter) if inter else 0.0


def plain_soft(boxes: list, scores: list[float], gaussian: bool, width: float, floor: float) -> dict[int, float]:
    left, taken = dict(enumerate(scores)), {}
    while left:
        best = max(left, key=lambda i: left[i])
        if left[best] < floor:
            break
        taken[best] = left.pop(best)
        for i in left:
            overlap = iou(boxes[best], boxes[i])
            left[i] *= math.exp(-(overlap**2) / width) if gaussian else 1 - overlap if overlap > width else 1
    return taken


def plain_matrix(boxes: list, scores: list[float], gaussian: bool, width: float, floor: float) -> dict[int, float]:
    order, lowered = sorted(range(len(scores)), key=lambda i: -scores[i]), {}
    for place, j in enumerate(order):
        decays = [1.0]
        for before, i in enumerate(order[:place]):
            own = max((iou(boxes[k], boxes[i]) for k in order[:before]), default=0.0)
            overlap = iou(boxes[i], boxes[j])
            if gaussian:
                decays.append(math.exp(-(overlap**2) / width) / math.exp(-(own**2) / width))
            elif own < 1:
                decays.append((1 - overlap) / (1 - own))
        if scores[j] * min(decays) >= floor:
            lowered[j] = scores[j] * min(decays)
    return lowered


def batch(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Crowded boxes in groups and padding; distinct scores, so that rounding decides no order."""
    boxes, _, groups = random_batch(seed, images=2, boxes=60, groups=3)
    scores = torch.rand(2, 60, generator=torch.Generator().manual_seed(seed))
    return boxes, scores, groups


@pytest.mark.parametrize("decay", list(Decay))
@pytest.mark.parametrize("limit", [5, 80])
def test_equals_plain_loops(decay: Decay, limit: int) -> None:
    boxes, scores, groups = batch(0)
    index, score, count = ops_cuda.soft_nms(boxes, scores, groups, 3, decay, 0.4, 0.05, limit)
    plain = plain_matrix if decay.name.startswith("MATRIX") else plain_soft
    for n in range(2):
        wanted: dict[int, float] = {}
        for group in range(3):
            rows = (groups[n] == group).nonzero().squeeze(1).tolist()
            given = (boxes[n, rows].tolist(), scores[n, rows].tolist(), "GAUSS" in decay.name, 0.4, 0.05)
            wanted |= {rows[i]: value for i, value in plain(*given).items()}
        best = sorted(wanted, key=lambda row: -wanted[row])[:limit]
        assert int(count[n]) == len(best) and index[n].tolist() == best + [-1] * (limit - len(best))
        padded = [wanted[row] for row in best] + [0.0] * (limit - len(best))
        torch.testing.assert_close(score[n], torch.tensor(padded), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("decay", list(Decay))
def test_duplicates_ties_and_nothing(decay: Decay) -> None:
    """Three copies of a box and one apart, all equally good: rows keep their order, copies lose."""
    boxes = torch.tensor([[[0.0, 0, 9, 9]] * 3 + [[50, 50, 60, 60]]])
    one_group = torch.zeros(1, 4, dtype=torch.int64)
    index, score, count = ops_cuda.soft_nms(boxes, torch.full((1, 4), 0.5), one_group, 1, decay, 0.5, 0.0, 9)
    assert index[0, :2].tolist() == [0, 3] and score[0, :2].tolist() == [0.5, 0.5] and int(count) == 4
    assert (score[0, 2:4] < 0.1).all() and score.isfinite().all() and index[0, 4:].eq(-1).all()
    for rows in (0, 3):
        padded = torch.full((2, rows), -1)
        index, score, count = ops_cuda.soft_nms(torch.zeros(2, rows, 4), torch.zeros(2, rows), padded, 1, decay, 0.5, 0.0, 4)
        assert index.tolist() == [[-1] * 4] * 2 and not score.any() and not count.any()


def test_opcheck() -> None:
    boxes, scores, groups = batch(1)
    torch.library.opcheck(torch.ops.detectline.soft_nms.default, (boxes, scores, groups, 3, 1, 0.5, 0.05, 7))
