"""What a step is timed on: every architecture learns from it, from each of its tasks."""

import pytest
import torch

from benchmarks.synthetic import synthetic_batch
from tests.detector.models import SEMANTIC, made, read_config
from tests.detector.test_family import NAMES

CLASSES = 3


@pytest.mark.parametrize("name", NAMES)
def test_every_loss_of_every_architecture_has_something_to_learn(name: str) -> None:
    """A task without truths would have a loss of 0, and cost less than it does."""
    cfg = read_config(name)
    torch.manual_seed(0)
    model = made(cfg, CLASSES).train()
    images, targets = synthetic_batch(cfg, CLASSES, SEMANTIC, 64, 90, model.divisor, 2)
    losses = model.losses(images, targets, torch.Generator().manual_seed(0))
    assert losses.finite_N.all() and all(term > 0 for term in losses.terms.values()), losses.terms


@pytest.mark.parametrize("name", NAMES)
def test_truths_lie_in_the_picture(name: str) -> None:
    images, targets = synthetic_batch(read_config(name), CLASSES, SEMANTIC, 64, 90, 32, 2)
    assert images.pixels_N3HW.shape == (2, 3, 64, 96) and images.sizes_N2.tolist() == [[64, 90]] * 2
    boxes = targets.boxes_NG4
    assert (boxes[..., :2] >= 0).all() and (boxes[..., 2:] <= torch.tensor([90, 64])).all()
    assert (boxes[..., 2:] - boxes[..., :2] >= 4).all()
