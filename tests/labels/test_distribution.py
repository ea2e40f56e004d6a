"""Checks of the dataset as a whole: a planted skew is found, its clean twin is quiet."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.labels.planted import Planted


@pytest.fixture
def bare(tmp_path: Path) -> Planted:
    """A picture in each of two splits, without labels."""
    planted = Planted(tmp_path / "images", {"train": [], "val": []})
    planted.picture("train", "a.png")
    planted.picture("val", "c.png")
    return planted


def boxes(planted: Planted, split: str, category: int, count: int, side: float = 20.0, **more: object) -> None:
    for number in range(count):
        length = side * (0.8 + 0.4 * number / max(count - 1, 1))
        planted.box(split, {"train": "a.png", "val": "c.png"}[split], (5, 5, 5 + length, 5 + length), category, **more)


def test_imbalance(bare: Planted) -> None:
    boxes(bare, "train", 3, 40)
    boxes(bare, "train", 7, 2)
    boxes(bare, "train", 7, 40, crowd=True)  # nothing is learnt from crowds
    assert [f.reason for f in bare.found("class-imbalance", imbalance=19)] == ["train has 40 labels of cat and 2 of dog: 1 to 20"]
    assert not bare.found("class-imbalance", imbalance=20)


def test_rare_class(bare: Planted) -> None:
    boxes(bare, "train", 3, 10)
    boxes(bare, "train", 7, 9)
    assert [f.reason for f in bare.found("class-rare")] == ["class dog has 9 training labels"]


def test_class_that_cannot_be_measured(bare: Planted) -> None:
    boxes(bare, "train", 3, 2)
    boxes(bare, "train", 7, 2)
    assert not bare.found("class-absent-from-split")  # val has no label at all: another check's matter
    boxes(bare, "val", 3, 2)
    assert [(f.split, f.reason) for f in bare.found("class-absent-from-split")] == [("val", "class dog is in train, not in val")]


def test_drift_of_classes(bare: Planted) -> None:
    boxes(bare, "train", 3, 150)
    boxes(bare, "train", 7, 50)
    boxes(bare, "val", 3, 75)
    boxes(bare, "val", 7, 35)
    assert not bare.found("split-drift")
    boxes(bare, "val", 7, 80)
    (found,) = bare.found("split-drift")
    assert (found.split, found.reason) == (
        "val",
        "val against train: classes differ by 36% (total variation), most cat 75% and 39%",
    )


def test_drift_of_sizes(bare: Planted) -> None:
    boxes(bare, "train", 3, 150, side=20)
    boxes(bare, "val", 3, 150, side=20.5)
    assert not bare.found("split-drift")
    boxes(bare, "val", 3, 150, side=40)
    (found,) = bare.found("split-drift")
    assert found.reason.startswith("val against train: object sizes differ by 0.5")


def test_drift_of_light(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = {}
    for brighter in (0, 60):
        planted = Planted(tmp_path / str(brighter), {"train": [], "val": []})
        for number in range(200):
            split = "train" if number % 2 else "val"
            path = planted.folder / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            level = int(rng.integers(60, 120)) + (brighter if split == "val" else 0)
            Image.fromarray(np.full((8, 10), level, np.uint8)).save(path)
            planted.images[split].append({"name": path.name, "size": (10, 8), "extra": {}})
        found[brighter] = [f.reason for f in planted.found("split-drift")]
    assert found[0] == []
    assert len(found[60]) == 1 and found[60][0].startswith("val against train: brightness of the pictures differ by ")


def test_crowded_picture(bare: Planted) -> None:
    boxes(bare, "train", 3, 100)
    boxes(bare, "train", 3, 5, crowd=True)
    assert not bare.found("image-crowded")
    boxes(bare, "train", 7, 1)
    assert [(f.split, f.image, f.reason) for f in bare.found("image-crowded")] == [("train", "a.png", "101 objects")]


def test_sizes_that_a_split_hardly_has(bare: Planted) -> None:
    for side, count in ((20, 60), (50, 40), (100, 10)):
        boxes(bare, "train", 3, count, side=side, area=side**2)
        boxes(bare, "val", 3, count - (side == 100), side=side, area=side**2)
    assert [(f.split, f.reason) for f in bare.found("size-range-empty")] == [
        ("val", "val has 9 large of 109 objects (55% small, 37% medium, 8% large)")
    ]


def test_class_that_the_light_gives_away(tmp_path: Path) -> None:
    found = {}
    for apart in (0, 100):
        planted = Planted(tmp_path / str(apart), {"train": []})
        for number in range(24):
            level = 60 + number * 2 + (apart if number % 2 else 0)
            path = planted.picture("train", f"{number}.png")
            noise = np.random.default_rng(number).integers(0, 40, (80, 100, 3)) + level
            Image.fromarray(noise.astype(np.uint8)).save(path)
            planted.box("train", f"{number}.png", (10, 10, 40, 40), 3 if number % 2 else 7)
        found[apart] = [f.reason for f in planted.found("class-follows-picture")]
    assert found[0] == []
    assert found[100] == [
        f"brightness tells pictures with {name} from the others in 100% of the pairs" for name in ("cat", "dog")
    ]


def test_class_whose_objects_are_smaller_than_a_cell_at_the_models_input(planted: Planted) -> None:
    """Boxes of 100 x 80 pictures at an input of 40: half as large. The cats are 30 and 7.9 px, of dogs nothing is lost."""
    for number in range(9):
        planted.box("train", "a.png", (5 * number, 1, 5 * number + 20, 1 + (7.9 if number < 2 else 8)), 3)
        planted.box("val", "c.png", (5 * number, 1, 5 * number + 20, 9), 7)
    assert not planted.found("class-below-cell")  # no model is chosen
    planted.network = (40, 1000)
    reasons = [f.reason for f in planted.found("class-below-cell")]
    assert reasons == ["2 of 12 objects of cat are below 4 px at model.input.short_side=40; their median is 4.0 px"]
    assert not planted.found("class-below-cell", lost_share=0.2) and not planted.found("class-below-cell", cell_px=3.9)
    planted.network = (80, 1000)
    assert not planted.found("class-below-cell")
