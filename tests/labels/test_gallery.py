"""What the report shows of a finding."""

import numpy as np
import pytest
from PIL import Image

from pipeline.labels.checks import CHECKS, build_checks
from pipeline.labels.gallery import FAULTY, OTHER, OUTSIDE, drawable, pictures_of
from pipeline.predict.preprocess import Pixels
from tests.labels.planted import Planted, settings


def drawn(planted: Planted, code: str, limit: int = 9) -> list[tuple[Pixels, str]]:
    data, cfg = planted.columns(), settings()
    check = build_checks(cfg.severity, cfg.limits)[list(CHECKS).index(code)]
    findings = check.find(data)
    pictures = list(pictures_of(data, findings, limit))
    assert len(pictures) == min(limit, drawable(data, findings))
    return [(picture.pixels_HW3, picture.caption) for picture in pictures]


def coloured(image: Pixels, colour: tuple[int, int, int]) -> int:
    return int((np.abs(image.astype(int) - colour).max(axis=2) < 20).sum())


@pytest.fixture
def white(planted: Planted) -> Planted:
    """The planted pictures, painted white."""
    for name in ("a.png", "b.png", "c.png"):
        Image.new("RGB", (100, 80), "white").save(planted.folder / name)
    return planted


@pytest.mark.parametrize("box", [(30, 30, 30, 30), (99, 79, 99, 79), (0, 0, 0, 40), (60, 60, 20, 20)])
def test_a_box_without_area_is_seen_in_red_and_its_neighbours_in_blue(white: Planted, box: tuple) -> None:
    identity = white.box("train", "b.png", box, 3)
    ((image, caption),) = drawn(white, "box-zero-area")
    assert coloured(image, FAULTY) > 40
    assert coloured(image, OTHER) > 40
    assert caption.startswith(f"train / b.png\nannotation {identity}: ")


@pytest.mark.parametrize("box", [(110, 10, 130, 30), (-500, -500, -400, -400), (10, 1e6, 20, 2e6)])
def test_a_box_outside_is_shown_beside_its_picture(white: Planted, box: tuple) -> None:
    white.box("train", "b.png", box, 3)
    ((image, _),) = drawn(white, "box-outside")
    assert (image == OUTSIDE).all(axis=2).mean() > 0.03
    assert coloured(image, FAULTY) > 10
    assert max(image.shape) == 640


def test_findings_of_one_picture_share_a_picture_and_the_limit_holds(white: Planted) -> None:
    for name in ("a.png", "a.png", "a.png", "a.png", "a.png", "b.png"):
        white.box("train", name, (30, 30, 30, 30), 3)
    pictures = drawn(white, "box-zero-area")
    assert [caption.splitlines()[0] for _, caption in pictures] == ["train / a.png", "train / b.png"]
    assert pictures[0][1].splitlines()[-1] == "+ 2 more"
    assert len(drawn(white, "box-zero-area", limit=1)) == 1


def test_what_cannot_be_drawn_is_left_out(planted: Planted) -> None:
    planted.box("train", None, (10, 10, 20, 20), 3)
    (planted.folder / "a.png").unlink()
    planted.box("train", "a.png", (float("nan"),) * 4, 3)
    planted.box("train", "b.png", (float("nan"),) * 4, 3)
    assert drawn(planted, "annotation-orphan") == drawn(planted, "image-missing") == []
    assert [caption.splitlines()[0] for _, caption in drawn(planted, "box-not-finite")] == ["train / b.png"]
