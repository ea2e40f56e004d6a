"""NMS against torchvision per group and against a plain loop: ties, padding, limits."""

import numpy as np
import pytest
import torch
from torch import Tensor

import ops_cuda


def random_batch(seed: int, images: int = 3, boxes: int = 200, groups: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """Crowded boxes; scores from few values, so that ties are common; a tenth of the rows padded."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, boxes, 2, generator=generator) * 60
    side = torch.rand(images, boxes, 2, generator=generator) * 40
    side[:, ::17] = 0  # boxes without area
    scores = torch.randint(-20, 20, (images, boxes), generator=generator) / 10
    group = torch.randint(-1 if groups > 1 else 0, groups, (images, boxes), generator=generator)
    group[:, ::10] = -1
    return torch.cat([corner, corner + side], -1), scores, group


def plain(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, limit: int) -> list[int]:
    """Greedy NMS as in the paper, in float32 numpy: nothing shared with the op."""
    b, kept = boxes.numpy(), []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if groups[i] < 0:
            continue
        for j in kept:
            if groups[i] != groups[j]:
                continue
            w = max(np.float32(0), min(b[i][2], b[j][2]) - max(b[i][0], b[j][0]))
            h = max(np.float32(0), min(b[i][3], b[j][3]) - max(b[i][1], b[j][1]))
            union = (b[i][2] - b[i][0]) * (b[i][3] - b[i][1]) + (b[j][2] - b[j][0]) * (b[j][3] - b[j][1]) - w * h
            if union > 0 and w * h / union > threshold:
                break
        else:
            kept.append(i)
    return kept[:limit]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [1, 20, 300])
def test_equals_a_plain_loop(seed: int, limit: int) -> None:
    boxes, scores, groups = random_batch(seed)
    index, count = ops_cuda.nms(boxes, scores, groups, 4, 0.4, limit)
    for n in range(len(boxes)):
        expected = plain(boxes[n], scores[n], groups[n], 0.4, limit)
        assert index[n].tolist() == expected + [-1] * (limit - len(expected))
        assert int(count[n]) == len(expected)


@pytest.mark.parametrize("seed", range(3))
def test_equals_torchvision(seed: int) -> None:
    from torchvision.ops import nms

    boxes, scores, groups = random_batch(seed, images=1, boxes=1000, groups=1)
    real = (groups[0] >= 0).nonzero().squeeze(1)
    expected = real[nms(boxes[0, real], scores[0, real], 0.5)]
    index, count = ops_cuda.nms(boxes, scores, groups, 1, 0.5, 1000)
    assert index[0, : int(count)].tolist() == expected.tolist()


def test_groups_do_not_touch_and_far_boxes_do_not_alias() -> None:
    """The coordinate-offset trick loses precision here: same boxes far away, groups far apart in number."""
    boxes = torch.tensor([[[1e6, 1e6, 1e6 + 4, 1e6 + 4]] * 3])
    index, _ = ops_cuda.nms(boxes, torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([[0, 79, 0]]), 80, 0.5, 3)
    assert index.tolist() == [[1, 2, -1]]


def test_all_padding_and_no_rows() -> None:
    empty = ops_cuda.nms(torch.zeros(2, 0, 4), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64), 1, 0.5, 3)
    padded = ops_cuda.nms(torch.zeros(2, 5, 4), torch.zeros(2, 5), torch.full((2, 5), -1), 1, 0.5, 3)
    for index, count in (empty, padded):
        assert index.tolist() == [[-1] * 3] * 2 and count.tolist() == [0, 0]


def test_non_contiguous_and_half_inputs() -> None:
    boxes, scores, groups = random_batch(0)
    expected = ops_cuda.nms(boxes, scores, groups, 4, 0.4, 20)[0]
    strided = ops_cuda.nms(
        boxes.transpose(0, 1).contiguous().transpose(0, 1), scores.T.contiguous().T, groups.T.contiguous().T, 4, 0.4, 20
    )
    assert torch.equal(strided[0], expected)
    halves = ops_cuda.nms(boxes.round().half(), scores.half(), groups, 4, 0.4, 20)[0]
    assert torch.equal(halves, ops_cuda.nms(boxes.round(), scores.half().float(), groups, 4, 0.4, 20)[0])


def test_opcheck() -> None:
    boxes, scores, groups = random_batch(0, boxes=20)
    torch.library.opcheck(torch.ops.detectline.nms.default, (boxes, scores, groups, 4, 0.4, 7))
