"""Sampling, losses, selection and postprocessing, against brute force and by hand."""

import pytest
import torch

from pipeline.detector.backbones import FixedSameConv2d, fix_same_padding
from pipeline.detector.box_coding import BoxCoder, clip_boxes
from pipeline.detector.losses import BoxLoss
from pipeline.detector.postprocess import postprocess
from pipeline.detector.sampling import Sampler
from pipeline.detector.select import Selection
from pipeline.structures import Detections


@pytest.mark.parametrize("order", ["first", "random"])
@pytest.mark.parametrize(("count", "share"), [(8, 0.5), (8, 0.25), (200, 0.5), (3, 0.1), (1, 1.0)])
def test_sample_has_the_right_rows(order: str, count: int, share: float) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(-1, 2, (6, 60), generator=generator).to(torch.int8)
    labels[1], labels[2], labels[3] = 0, 1, -1
    labels[4, 2:] = -1
    drawn = Sampler(count, share, order)(labels, generator)  # type: ignore[arg-type]
    for n in range(6):
        positives, negatives = (labels[n] == 1).nonzero().flatten().tolist(), (labels[n] == 0).nonzero().flatten().tolist()
        wanted_positives = min(len(positives), int(count * share))
        wanted_negatives = min(len(negatives), count - wanted_positives)
        rows, real = drawn.index_NS[n], drawn.valid_NS[n]
        chosen_positive, chosen = rows[drawn.positive_NS[n]].tolist(), rows[real].tolist()
        assert len(chosen) == len(set(chosen)) == wanted_positives + wanted_negatives
        assert len(chosen_positive) == wanted_positives and set(chosen_positive) <= set(positives)
        assert set(chosen[wanted_positives:]) <= set(negatives)
        assert real[: len(chosen)].all() and not real[len(chosen) :].any(), "positives, negatives, padding"
        if order == "first":
            assert chosen == positives[:wanted_positives] + negatives[:wanted_negatives]


def test_random_sample_is_uniform() -> None:
    labels = torch.zeros(4000, 10, dtype=torch.int8)
    drawn = Sampler(3, 0.5, "random")(labels, torch.Generator().manual_seed(0))
    share = torch.bincount(drawn.index_NS.flatten(), minlength=10) / 12000
    assert (share - 0.1).abs().max() < 0.01


@pytest.mark.parametrize("kind", ["smooth_l1", "giou", "diou", "ciou"])
def test_uncounted_rows_are_inert_even_when_broken(kind: str) -> None:
    source = torch.tensor([[0.0, 0, 10, 10], [5, 5, 5, 5], [0, 0, 4, 4]])
    target = torch.tensor([[1.0, 1, 9, 12], [0, 0, 0, 0], [float("nan")] * 4])
    deltas = torch.tensor([[0.1, 0.2, 0.3, -0.4], [9, 9, 9, 9], [float("inf")] * 4]).requires_grad_()
    loss = BoxLoss(kind, 0.1, 2.0)(  # type: ignore[arg-type]
        BoxCoder((10, 10, 5, 5)), deltas, source, target, torch.tensor([True, False, False])
    )
    loss.backward()
    assert torch.isfinite(loss) and loss > 0
    assert deltas.grad is not None and deltas.grad[0].any() and not deltas.grad[1:].any()


def test_coding_round_trip_and_clamp() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 50, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + torch.rand(2, 50, 2, generator=generator) * 40 + 1], -1)
    coder = BoxCoder((10, 10, 5, 5))
    torch.testing.assert_close(coder.decode(coder.encode(boxes[0], boxes[1]), boxes[0]), boxes[1], atol=1e-4, rtol=1e-5)
    huge = coder.decode(torch.tensor([[0.0, 0, 1e3, 1e3]]), torch.tensor([[0.0, 0, 16, 16]]))
    torch.testing.assert_close(huge[0, 2:] - huge[0, :2], torch.full((2,), 1000.0))


def test_clip() -> None:
    boxes = torch.tensor([[[-5.0, -5, 50, 50]], [[1, 2, 3, 4]]])
    assert clip_boxes(boxes, torch.tensor([[20, 30], [9, 9]])).tolist() == [[[0, 0, 30, 20]], [[1, 2, 3, 4]]]


def test_selection_takes_the_best_of_all_classes_strictly_above_the_score() -> None:
    boxes = torch.tensor([[[[0.0, 0, 10, 10], [0, 0, 10, 10]], [[0, 0, 10, 9], [40, 40, 50, 50]]]])
    scores = torch.tensor([[[0.9, 0.5], [0.8, 0.05]]])
    usable, finite = torch.tensor([[True, True]]), torch.tensor([True])
    found = Selection(0.05, 0.5, 3).per_class(boxes, scores, usable, finite)
    # class 0: 0.8 falls to 0.9 (IoU 0.9); class 1: 0.05 is not above 0.05
    assert found.count_N.tolist() == [2] and found.labels_ND.tolist() == [[0, 1, -1]]
    torch.testing.assert_close(found.scores_ND, torch.tensor([[0.9, 0.5, 0.0]]))
    assert Selection(0.05, 0.95, 3).per_class(boxes, scores, usable, finite).labels_ND.tolist() == [[0, 0, 1]]
    unusable = Selection(0.05, 0.5, 3).per_class(boxes, scores, torch.tensor([[False, True]]), finite)
    assert unusable.labels_ND.tolist() == [[0, -1, -1]]


def test_grouped_selection_equals_per_class() -> None:
    """The same candidates through both forms."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(2, 40, 1, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 20], -1)
    scores = torch.rand(2, 40, 3, generator=generator)
    finite = torch.tensor([True, True])
    selection = Selection(0.3, 0.5, 30)
    first = selection.per_class(boxes, scores, torch.ones(2, 40, dtype=torch.bool), finite)
    labels = torch.arange(3).expand(2, 40, 3).flatten(1)
    second = selection.grouped(boxes.expand(-1, -1, 3, -1).flatten(1, 2), scores.flatten(1), labels, 3, finite)
    for a, b in ((first.boxes_ND4, second.boxes_ND4), (first.scores_ND, second.scores_ND), (first.labels_ND, second.labels_ND)):
        assert torch.equal(a, b)


def test_postprocess_scales_clips_and_closes_gaps() -> None:
    found = Detections(
        boxes_ND4=torch.tensor([[[10.0, 10, 20, 20], [200, 10, 220, 20], [-9, 5, 400, 20], [1, 1, 9, 9]]]),
        scores_ND=torch.tensor([[0.9, 0.8, 0.7, 0.0]]),
        labels_ND=torch.tensor([[1, 2, 0, -1]]),
        count_N=torch.tensor([3]),
        finite_N=torch.tensor([True]),
    )
    final = postprocess(found, torch.tensor([[50, 100]]), torch.tensor([[100, 50]]))
    # x halves, y doubles; the second box lies right of the picture; the fourth is padding
    assert final.boxes_ND4.tolist() == [[[5, 20, 10, 40], [0, 10, 50, 40], [0, 0, 0, 0], [0, 0, 0, 0]]]
    assert final.count_N.tolist() == [2] and final.labels_ND.tolist() == [[1, 0, -1, -1]]


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("dilation", [1, 2])
def test_fixed_same_padding_is_timms_where_sides_are_multiples_of_the_stride(kernel: int, stride: int, dilation: int) -> None:
    from timm.layers import Conv2dSame

    parent = torch.nn.Sequential(Conv2dSame(4, 6, kernel, stride, dilation=dilation, groups=2, bias=kernel > 1))
    original = parent[0]
    fix_same_padding(parent)
    assert isinstance(parent[0], FixedSameConv2d) and parent[0].weight is original.weight
    for height, width in ((16, 24), (32, 8)):
        x_NCHW = torch.randn(2, 4, height, width)
        torch.testing.assert_close(parent(x_NCHW), original(x_NCHW), rtol=0, atol=0)
