"""IoU and NMS of rotated boxes against plain float64 clipping, upright boxes, and what must not change them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ops_cuda
from pipeline.predict.raw_heads import nms_rotated as host_nms
from pipeline.predict.rotated import rotated_iou as host_iou
from tests.ops.rotated import iou

SIDES = st.one_of(st.just(0.0), st.floats(2**-10, 200), st.sampled_from([1e-6, 1.0, 32.0]))
ANGLES = st.one_of(st.floats(-720, 720), st.sampled_from([-180.0, -90.0, -45.0, 0.0, 45.0, 90.0, 180.0, 360.0]))
PLACES = st.one_of(st.floats(-100, 100), st.sampled_from([0.0, 16.0]))
BOXES = st.tuples(PLACES, PLACES, SIDES, SIDES, ANGLES).map(list)


def exact(values: list) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def random_boxes(seed: int, *shape: int, spread: float = 60) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(*shape, 5, generator=generator)
    return torch.cat([u[..., :2] * spread, u[..., 2:4] * 40 + 1, u[..., 4:] * 720 - 360], dim=-1)


@given(BOXES, BOXES)
@settings(max_examples=300, deadline=None)
def test_iou_equals_clipping(a: list[float], b: list[float]) -> None:
    found = ops_cuda.rotated_box_iou(exact([a]), exact([b]))
    assert 0 <= float(found) <= 1
    thin = min(*a[2:4], *b[2:4]) < 2**-10  # a sliver's area is below the rounding of its corners
    assert float(found) == pytest.approx(iou(a, b), abs=1e-3 if thin else 1e-9)
    assert host_iou(np.array(a), np.array([b]))[0] == pytest.approx(float(found), abs=1e-3 if thin else 1e-9)


@given(BOXES, BOXES, st.floats(-180, 180), PLACES, PLACES)
@settings(max_examples=100, deadline=None)
def test_iou_is_symmetric_and_turns_with_the_picture(a: list[float], b: list[float], turn: float, x: float, y: float) -> None:
    if min(*a[2:4], *b[2:4]) < 2**-10:
        return
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    moved = [[c * p[0] + s * p[1] + x, -s * p[0] + c * p[1] + y, p[2], p[3], p[4] + turn] for p in (a, b)]
    pairs = [
        torch.tensor([[a], [b]]).double(),
        torch.tensor([[b], [a]]).double(),
        torch.tensor([[moved[0]], [moved[1]]]).double(),
    ]
    values = [float(ops_cuda.rotated_box_iou(first, second)) for first, second in pairs]
    assert values == pytest.approx([values[0]] * 3, abs=1e-6)


def test_upright_boxes_have_their_upright_iou() -> None:
    boxes = random_boxes(0, 40)
    boxes[:, 4] = torch.tensor([0.0, 90, 180, -90]).repeat(10)
    size = torch.where((boxes[:, 4:].abs() == 90), boxes[:, [3, 2]], boxes[:, 2:4])
    upright = torch.cat([boxes[:, :2] - size / 2, boxes[:, :2] + size / 2], dim=1)
    torch.testing.assert_close(ops_cuda.rotated_box_iou(boxes, boxes), ops_cuda.box_iou(upright, upright), atol=2e-6, rtol=0)
    assert (ops_cuda.rotated_box_iou(boxes, boxes).diagonal() == 1).all()


def test_a_batch_shares_boxes_without_a_batch() -> None:
    a, b = random_boxes(1, 3, 7), random_boxes(2, 1, 5)
    found = ops_cuda.rotated_box_iou(a, b)
    assert found.shape == (3, 7, 5)
    for n in range(3):
        assert torch.equal(found[n], ops_cuda.rotated_box_iou(a[n], b[0]))
    assert torch.equal(ops_cuda.rotated_box_iou(b, a), ops_cuda.rotated_box_iou(b.expand(3, -1, -1), a))
    assert ops_cuda.rotated_box_iou(a[:, :0], b).shape == (3, 0, 5)


def plain_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float, limit: int) -> list[int]:
    rows, kept = boxes.double().tolist(), []
    for i in torch.argsort(scores, descending=True, stable=True).tolist():
        if groups[i] >= 0 and all(groups[i] != groups[j] or iou(rows[i], rows[j]) <= threshold for j in kept):
            kept.append(i)
    return kept[:limit]


@pytest.mark.parametrize("limit", [1, 20, 100])
def test_nms_equals_a_plain_loop(limit: int) -> None:
    boxes = random_boxes(3, 2, 80)
    boxes[:, ::17, 2] = 0
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-20, 20, (2, 80), generator=generator) / 10  # ties
    groups = torch.randint(-1, 3, (2, 80), generator=generator)
    index, count = ops_cuda.nms_rotated(boxes, scores, groups, 3, 0.3, limit)
    for n in range(2):
        expected = plain_nms(boxes[n], scores[n], groups[n], 0.3, limit)
        assert index[n].tolist() == expected + [-1] * (limit - len(expected)) and int(count[n]) == len(expected)
        assert host_nms(boxes[n].numpy(), scores[n].numpy(), groups[n].numpy(), 0.3, limit).tolist() == expected


def test_all_padding_and_no_rows() -> None:
    empty = ops_cuda.nms_rotated(torch.zeros(2, 0, 5), torch.zeros(2, 0), torch.zeros(2, 0, dtype=torch.int64), 1, 0.5, 3)
    padded = ops_cuda.nms_rotated(torch.full((2, 5, 5), torch.nan), torch.zeros(2, 5), torch.full((2, 5), -1), 1, 0.5, 3)
    for index, count in (empty, padded):
        assert index.tolist() == [[-1] * 3] * 2 and count.tolist() == [0, 0]


def test_opcheck() -> None:
    boxes = random_boxes(4, 2, 6)
    torch.library.opcheck(torch.ops.detectline.rotated_box_iou.default, (boxes, boxes[:1]))
    groups = torch.zeros(2, 6, dtype=torch.int64)
    torch.library.opcheck(torch.ops.detectline.nms_rotated.default, (boxes, torch.rand(2, 6), groups, 1, 0.5, 4))
