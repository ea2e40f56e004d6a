"""Matching: the fused op against the matrix form, and against rules written out by hand."""

import pytest
import torch

import ops_cuda

RPN = ((0.3, 0.7), (0, -1, 1), True)
ROI = ((0.5,), (0, 1), False)


def boxes(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, 20, (*shape, 2), generator=generator).float()  # a coarse grid: ties are common
    return torch.cat([corner, corner + torch.randint(1, 12, (*shape, 2), generator=generator)], -1)


@pytest.mark.parametrize("rules", [RPN, ROI], ids=["rpn", "roi"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shared", [True, False])
def test_equals_the_matrix_form(rules: tuple, seed: int, shared: bool) -> None:
    truths, anchors = boxes(3, 6, seed=seed), boxes(1 if shared else 3, 150, seed=seed + 50)
    valid = torch.ones(3, 6, dtype=torch.bool)
    valid[1, 3:], valid[2, :] = False, False
    match, label = ops_cuda.match_boxes(anchors, truths, valid, *rules)
    expected_match, expected_label = ops_cuda.match_ious(ops_cuda.box_iou(truths, anchors), valid, *rules)
    assert torch.equal(match, expected_match) and torch.equal(label, expected_label)
    assert label[2].eq(0).all() and match[2].eq(0).all(), "an image without truths has only negatives"


def test_interval_ends_and_low_quality() -> None:
    """IoU exactly on a threshold belongs to the interval above it; the best box of a truth is positive, keeping its own match."""
    truths = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 4, 10], [50, 50, 60, 60]]])
    anchors = torch.tensor([[[0.0, 0, 10, 5], [0, 0, 10, 4.9], [0, 0, 5, 10], [55, 50, 65, 60], [90, 90, 91, 91]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    match, label = ops_cuda.match_boxes(anchors, truths, valid, (0.5,), (0, 1), False)
    assert label.tolist() == [[1, 0, 1, 0, 0]] and match.tolist() == [[0, 0, 1, 2, 0]]
    _, label = ops_cuda.match_boxes(anchors, truths, valid, (0.5,), (0, 1), True)
    assert label.tolist() == [[1, 0, 1, 1, 0]], "the third truth's best anchor has IoU 1/3"


def test_a_truth_outside_makes_every_stranger_positive_but_padding_does_not() -> None:
    truths = torch.tensor([[[0.0, 0, 10, 10], [500, 500, 510, 510]]])
    anchors = torch.tensor([[[0.0, 0, 9, 9], [100, 100, 110, 110]]])
    both, one = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    assert ops_cuda.match_boxes(anchors, truths, both, *RPN)[1].tolist() == [[1, 1]]
    assert ops_cuda.match_boxes(anchors, truths, one, *RPN)[1].tolist() == [[1, 0]]


def test_opcheck() -> None:
    valid = torch.ones(2, 3, dtype=torch.bool)
    arguments = (boxes(1, 9, seed=0), boxes(2, 3, seed=1), valid, [0.3, 0.7], [0, -1, 1], True)
    torch.library.opcheck(torch.ops.detectline.match_boxes.default, arguments)
