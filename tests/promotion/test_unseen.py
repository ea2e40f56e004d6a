"""Pictures that a detector was trained on do not judge it, under whatever name and in whatever split they are."""

from pathlib import Path

import pytest

from pipeline.data.dataset import Dataset
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.promotion.unseen import unseen
from pipeline.training.lineage import PICTURES, learnt_by, save_pictures
from tests.data.simple import simple_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return simple_dataset(tmp_path_factory.mktemp("made"), pictures=6, side=16)


def folder(place: Path, name: str) -> Path:
    (place / name).mkdir()
    return place / name


def test_training_pictures_that_moved_into_validation_are_left_out(dataset: Dataset, tmp_path: Path) -> None:
    val, champion, challenger = dataset.split("val"), folder(tmp_path, "champion"), folder(tmp_path, "challenger")
    save_pictures(champion, val.take_images([1, 4]), None)  # they were in its training split
    save_pictures(challenger, dataset.split("train"), None)
    left = unseen(val, {"challenger 2": challenger, "champion 1": champion})
    names = val.images.file_names
    assert left.split.images.file_names == [names[row] for row in (0, 2, 3, 5)] and left.left_out == 2
    assert len(left.split.annotations) == 8 and left.untold == ()
    assert unseen(val, {"challenger 2": challenger}).split is val
    rule = left.rule(8, 8)
    assert rule.holds and "8 labels on 4 pictures; 2 that" in rule.figure and not left.rule(7, 8).holds


def test_what_the_weights_had_seen_counts_too(dataset: Dataset, tmp_path: Path) -> None:
    """A challenger that began with the champion's weights has learnt from the champion's pictures."""
    first, second = folder(tmp_path, "first"), folder(tmp_path, "second")
    save_pictures(first, dataset.split("val").take_images([0]), None)
    save_pictures(second, dataset.split("train"), str(first / "weights.safetensors"))
    assert unseen(dataset.split("val"), {"second": second}).left_out == 1
    assert learnt_by(second) == learnt_by(first) | {*learnt_by(second)} and len(learnt_by(second)) == 7


def test_no_picture_left_and_a_detector_that_does_not_say(dataset: Dataset, tmp_path: Path) -> None:
    one = folder(tmp_path, "one")
    left = unseen(dataset.split("val"), {"champion 3": one})
    assert left.untold == ("champion 3",) and "champion 3 was registered before" in left.rule(12, 1).figure
    save_pictures(one, dataset.split("val"), None)
    with pytest.raises(UserError, match="no picture of val is left to compare champion 3 on"):
        unseen(dataset.split("val"), {"champion 3": one})
    write_json(one / PICTURES, {"not": "a list"})
    with pytest.raises(UserError, match="no list of digests"):
        learnt_by(one)
