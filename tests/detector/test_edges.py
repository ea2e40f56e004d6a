"""No proposals at all: every architecture that has some gives finite losses, a gradient on every parameter, and finds nothing."""

from dataclasses import replace

import pytest
import torch

from tests.detector.models import batch, lively, read_config
from tests.detector.test_family import CLASSES, NAMES, train_step


@pytest.mark.parametrize("truths", [0, 2])
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(("retinanet", "tensormask"))])
def test_no_proposals(name: str, truths: int) -> None:
    """Pictures without area clip every proposal away; Fast R-CNN's pictures may bring none."""
    model = lively(read_config(name), CLASSES)
    images, targets = batch(model, [(64, 64), (40, 60)], truths=truths, classes=CLASSES)
    images = replace(images, sizes_N2=torch.zeros_like(images.sizes_N2), proposals_NP4=torch.zeros(2, 1, 4))
    losses = train_step(model, images, targets)
    assert losses.finite_N.all() and all(torch.isfinite(term) for term in losses.terms.values())
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), parameter_name
    with torch.no_grad():
        found = model.eval().detect(images)
    assert found.finite_N.all()
    if "boxes" in found.named():  # a turned box is not clipped: pictures without area keep some
        assert not found.named()["count"].any()
