"""Class losses of LVIS heads against plain descriptions: sums over loops, and draws without replacement one after the other."""

from itertools import permutations

import pytest
import torch
from torch.nn import functional

from pipeline.detector.classification import SigmoidLoss, SoftmaxLoss, tell_frequencies
from pipeline.detector.part import WHOLE, Part

LOGITS = torch.tensor([[1.0, -2.0, 0.5, 3.0, 0.1], [0.2, 0.3, -1.0, 2.0, 1.0], [9.0, 9.0, 9.0, 9.0, 9.0]])
CLASSES, VALID = torch.tensor([2, 4, 1]), torch.tensor([True, True, False])


def test_sigmoids_count_every_class_of_every_region_and_the_background_is_none() -> None:
    loss = SigmoidLoss(4).losses(LOGITS, CLASSES, VALID, None, WHOLE)
    expected = [
        sum(
            float(functional.binary_cross_entropy_with_logits(LOGITS[row, k], torch.tensor(float(k == CLASSES[row]))))
            for k in range(4)
        )
        for row in range(2)
    ]
    torch.testing.assert_close(loss, torch.tensor([*expected, 0.0]))
    torch.testing.assert_close(SigmoidLoss(4).probabilities(LOGITS), LOGITS[:, :4].sigmoid())
    assert SoftmaxLoss().probabilities(LOGITS).shape == (3, 4)


def test_federated_loss_counts_the_regions_classes_and_as_many_others_as_are_missing() -> None:
    generator = torch.Generator().manual_seed(0)
    loss = SigmoidLoss(4, drawn_classes=3)
    for _ in range(20):
        counted = loss.draw(CLASSES, VALID, generator, WHOLE)
        # class 2 and the background are there, so one more is drawn; class 1's region does not count
        assert counted[2] and int(counted.sum()) == 2
    one = SigmoidLoss(4, drawn_classes=2)  # the two that are there fill the number
    assert one.draw(CLASSES, VALID, generator, WHOLE).tolist() == [False, False, True, False]
    values = one.losses(LOGITS, CLASSES, VALID, generator, WHOLE)
    wanted = functional.binary_cross_entropy_with_logits(LOGITS[:2, 2], torch.tensor([1.0, 0.0]), reduction="none")
    torch.testing.assert_close(values, torch.tensor([*wanted.tolist(), 0.0]))


def test_more_classes_than_the_number_all_count() -> None:
    rows = torch.arange(4)
    loss = SigmoidLoss(4, drawn_classes=2)
    assert loss.draw(rows, torch.ones(4, dtype=torch.bool), None, WHOLE).all()


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_draws_follow_the_frequencies_without_replacement(power: float) -> None:
    """Two draws among four classes: how often each is among them, against all ordered draws by hand."""
    pictures = torch.tensor([100.0, 9.0, 25.0, 0.0, 49.0])
    loss = SigmoidLoss(5, drawn_classes=3, power=power)
    tell_frequencies(loss, pictures)
    weight = [float(count) ** power if count else 0.0 for count in pictures]
    background = torch.tensor([5]), torch.tensor([True])
    chance = [0.0] * 5
    for first, second in permutations(range(5), 2):
        left = sum(weight) - weight[first]
        together = weight[first] / sum(weight) * weight[second] / left
        chance[first] += together
        chance[second] += together
    generator, times = torch.Generator().manual_seed(1), 4000
    drawn = torch.stack([loss.draw(*background, generator, WHOLE) for _ in range(times)]).float().mean(0)
    torch.testing.assert_close(drawn, torch.tensor(chance), rtol=0, atol=0.03)
    assert drawn[3] == 0


def test_all_processes_draw_the_same_classes() -> None:
    loss, seen = SigmoidLoss(50, drawn_classes=20), []
    both = torch.zeros(51)
    both[[3, 7]] = 1
    for own in (3, 7):  # each rank sees another class; the sum over ranks tells of both
        part = Part(first=own, pictures=8, processes=2, sum=lambda count: both.to(count))
        seen.append(loss.draw(torch.tensor([own]), torch.tensor([True]), torch.Generator().manual_seed(4), part))
    assert torch.equal(*seen) and seen[0][3] and seen[0][7] and int(seen[0].sum()) == 20
