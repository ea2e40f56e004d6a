"""The matching kernels against the twin, bit for bit."""

import pytest
import torch

from tests.ops.cuda.device import ON_DEVICE, expected, run
from tests.ops.test_match_boxes import RPN, boxes

pytestmark = ON_DEVICE


@pytest.mark.parametrize("rules", [RPN, ((0.5,), (0, 1), False), ((0.1, 0.2, 0.3, 0.4), (3, -2, 0, -1, 7), True)])
@pytest.mark.parametrize("shared", [True, False])
def test_equals_the_twin(rules: tuple, shared: bool) -> None:
    """21 truths and 37 boxes: more than one tile and more than one block in the simulator."""
    truths, anchors = boxes(3, 21, seed=0), boxes(1 if shared else 3, 37, seed=1) * 1.37
    valid = torch.ones(3, 21, dtype=torch.bool)
    valid[0, ::3], valid[1, 4:], valid[2, :] = False, False, False
    given = (anchors, truths, valid, list(rules[0]), list(rules[1]), rules[2])
    for found, wanted in zip(run("match_boxes", *given), expected("match_boxes", *given), strict=True):
        assert torch.equal(found, wanted)


def test_truths_outside_padding_and_nothing() -> None:
    truths = torch.tensor([[[0.0, 0, 10, 10], [500, 500, 510, 510]]])
    anchors = torch.tensor([[[0.0, 0, 9, 9], [100, 100, 110, 110]]])
    for valid in ([[True, True]], [[True, False]], [[False, False]]):
        given = (anchors.half(), truths, torch.tensor(valid), *map(list, RPN[:2]), True)
        for found, wanted in zip(run("match_boxes", *given), expected("match_boxes", *given), strict=True):
            assert torch.equal(found, wanted)
    rules = (*map(list, RPN[:2]), True)
    none = run("match_boxes", anchors[:, :0], truths, torch.ones(1, 2, dtype=torch.bool), *rules)
    assert none[0].shape == (1, 0)
    match, label = run("match_boxes", anchors, truths[:, :0], torch.ones(1, 0, dtype=torch.bool), *rules)
    assert match.tolist() == [[0, 0]] and label.tolist() == [[0, 0]]
