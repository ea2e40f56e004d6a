"""Every architecture in conf/model, in its tiny form: what must hold for all of them, whatever they find.

A new architecture is here as soon as conf/model/<name>_tiny.yaml is.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from pipeline.detector.detector import Detector
from pipeline.detector.losses import Losses
from pipeline.structures import Images, Targets
from tests.detector.models import CONF, batch, lively, made, read_config, taught

NAMES = sorted(path.stem for path in CONF.glob("*_tiny.yaml"))
CLASSES = 3
every = pytest.mark.parametrize("name", NAMES)

SIZES = [(64, 64), (40, 60)]


def crowded(images: Images, targets: Targets) -> tuple[Images, Targets]:
    """The batch as it is: it was made with 500 objects."""
    return images, targets


def specks(images: Images, targets: Targets) -> tuple[Images, Targets]:
    """All boxes are one pixel or less."""
    boxes = targets.boxes_NG4.clone()
    boxes[..., 2:] = boxes[..., :2] + torch.tensor([1.0, 0.01])
    boxes = torch.where((targets.labels_NG >= 0).unsqueeze(-1), boxes, targets.boxes_NG4)
    return images, taught(boxes, targets.labels_NG, *images.pixels_N3HW.shape[2:])


def void(images: Images, targets: Targets) -> tuple[Images, Targets]:
    """Pictures without area: whatever is proposed is clipped away."""
    return replace(images, sizes_N2=torch.zeros_like(images.sizes_N2)), targets


CASES: dict[str, tuple[int, Callable[[Images, Targets], tuple[Images, Targets]]]] = {
    "no object in the batch": (0, crowded),
    "no object in one picture": (1, crowded),
    "boxes of one pixel": (4, specks),
    "500 objects": (500, crowded),
    "no object and no proposal": (0, void),
}


@pytest.fixture(scope="module")
def model(name: str) -> Detector:
    return lively(read_config(name), CLASSES)


def train_step(model: Any, images: Images, targets: Targets) -> Losses:
    model.train().zero_grad()
    losses: Losses = model.losses(images, targets, torch.Generator().manual_seed(0))
    losses.total().backward()
    return losses


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES, scope="module")
def test_losses_are_finite_and_every_parameter_gets_a_gradient(model: Detector, case: str) -> None:
    """Else a rank without objects would leave DistributedDataParallel waiting."""
    truths, change = CASES[case]
    images, targets = change(*batch(model, SIZES, truths=truths, classes=CLASSES))
    losses = train_step(model, images, targets)
    assert losses.finite_N.all() and all(torch.isfinite(term) for term in losses.terms.values()), losses.terms
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert torch.isfinite(parameter.grad).all(), f"{name} has a gradient that is not finite"


@every
def test_nothing_waits_for_the_device(name: str) -> None:
    """FakeTensorMode refuses .item() and nonzero, which a GPU would have to wait for."""
    cfg = read_config(name)
    real = batch(lively(cfg, CLASSES), SIZES, classes=CLASSES)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        fake = made(cfg, CLASSES)
        images, targets = (_faked(part, mode) for part in real)
        losses = fake.losses(images, targets)
        losses.total().backward()
        assert losses.finite_N.shape == (2,)
        found = fake.eval().detect(images)
        assert found.named()


@pytest.mark.parametrize("name", NAMES, scope="module")
def test_pixels_outside_the_picture_do_not_matter(model: Detector) -> None:
    images, _ = batch(model, [(64, 64), (37, 50)])
    noisy = images.pixels_N3HW.clone()
    noisy[1, :, 37:], noisy[1, :, :, 50:] = 255, 255
    model.eval()
    with torch.no_grad():
        clean, dirty = model.detect(images), model.detect(replace(images, pixels_N3HW=noisy))
    for name, values in clean.named().items():
        torch.testing.assert_close(values, dirty.named()[name], rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


@every
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    runs = []
    for _ in range(2):
        model = lively(read_config(name), CLASSES)
        losses = train_step(model, *batch(model, SIZES, classes=CLASSES))
        gradients = [p.grad.numpy().tobytes() for p in model.parameters() if p.grad is not None]
        runs.append([*gradients, losses.total().detach().numpy().tobytes()])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", NAMES, scope="module")
def test_a_broken_picture_is_flagged_and_the_others_are_not(model: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    images, targets = batch(model, [(64, 64), (64, 64)], classes=CLASSES)
    features = model.features

    def broken(pictures: Images) -> dict[str, torch.Tensor]:
        return {level: torch.cat([x[:1], torch.full_like(x[1:], float("nan"))]) for level, x in features(pictures).items()}

    monkeypatch.setattr(model, "features", broken)
    model.eval()
    with torch.no_grad():
        assert model.detect(images).finite_N.tolist() == [True, False]
    model.train()
    assert model.losses(images, targets, torch.Generator().manual_seed(0)).finite_N.tolist() == [True, False]


def _faked(part: Any, mode: FakeTensorMode) -> Any:
    """Images or targets as fake tensors, pools included."""

    def fake(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return mode.from_tensor(value)
        return value if value is None else _faked(value, mode)

    return replace(part, **{f.name: fake(getattr(part, f.name)) for f in fields(part)})
