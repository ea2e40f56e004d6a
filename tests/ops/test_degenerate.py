"""Any boxes on a coarse grid, with and without area, in any number: what Hypothesis can make of ties, copies and empty inputs."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ops_cuda
from tests.ops.test_nms import plain

SIDE = st.integers(0, 4).map(float)
BOX = st.tuples(SIDE, SIDE, SIDE, SIDE).map(lambda b: [min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])])


def boxes(least: int, most: int) -> st.SearchStrategy[Tensor]:
    return st.lists(BOX, min_size=least, max_size=most).map(lambda rows: torch.tensor(rows, dtype=torch.float32).view(1, -1, 4))


@given(boxes(0, 12), st.data())
@settings(max_examples=80, deadline=None)
def test_nms_is_the_plain_loop(boxes_1K4: Tensor, data: st.DataObject) -> None:
    count = boxes_1K4.shape[1]
    rows = st.lists(st.integers(-1, 1), min_size=count, max_size=count)
    groups = torch.tensor(data.draw(rows), dtype=torch.int64).view(1, count)
    scores = torch.tensor(data.draw(rows), dtype=torch.float32).view(1, count)  # three values: ties are the rule
    threshold, limit = data.draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])), data.draw(st.integers(1, 14))
    index, number = ops_cuda.nms(boxes_1K4, scores, groups, 2, threshold, limit)
    wanted = plain(boxes_1K4[0], scores[0], groups[0], threshold, limit)
    assert index[0].tolist() == wanted + [-1] * (limit - len(wanted)) and int(number) == len(wanted)


@given(boxes(1, 8), boxes(0, 5), st.data())
@settings(max_examples=80, deadline=None)
def test_matching_is_the_matrix_form(anchors: Tensor, truths: Tensor, data: st.DataObject) -> None:
    count = truths.shape[1]
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool).view(1, count)
    rules = data.draw(st.sampled_from([((0.5,), (0, 1), False), ((0.3, 0.7), (0, -1, 1), True), ((0.25, 0.25), (0, 2, 3), True)]))
    match, label = ops_cuda.match_boxes(anchors, truths, valid, *rules)
    if count == 0:
        assert not match.any() and not label.any()
        return
    wanted_match, wanted_label = ops_cuda.match_ious(ops_cuda.box_iou(truths, anchors), valid, *rules)
    assert torch.equal(match, wanted_match) and torch.equal(label, wanted_label)


@given(boxes(1, 6), boxes(1, 6))
@settings(max_examples=80, deadline=None)
def test_overlaps_stay_in_their_range(a: Tensor, b: Tensor) -> None:
    exact = ops_cuda.box_iou(a.double(), b.double())
    torch.testing.assert_close(ops_cuda.box_iou(a, b).double(), exact, rtol=1e-6, atol=0)
    assert ((exact >= 0) & (exact <= 1)).all()
    for kind in ("giou", "diou"):
        value = ops_cuda.box_iou(a, b, kind)  # type: ignore[arg-type]
        assert value.isfinite().all() and (value >= -1 - 1e-6).all() and (value <= 1 + 1e-6).all()
    assert torch.equal(ops_cuda.box_iou(a, b), ops_cuda.box_iou(b, a).mT)
