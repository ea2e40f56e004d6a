"""What each task learns from, and the error when labels lack it. No torch."""

from collections.abc import Callable, Collection
from pathlib import Path

from pipeline.data.dataset import Dataset, Split
from pipeline.data.masks import require_masks
from pipeline.data.rotated import require_rotated
from pipeline.tasks import Task


def _boxes(split: Split, dataset: Dataset, place: Path) -> None:
    """Nothing: a picture without an object teaches too."""


def _masks(split: Split, dataset: Dataset, place: Path) -> None:
    require_masks(split, place)


def _rotated_boxes(split: Split, dataset: Dataset, place: Path) -> None:
    require_rotated(split, place)


NEEDS: dict[Task, Callable[[Split, Dataset, Path], None]] = {
    "bbox": _boxes,
    "segm": _masks,
    "rotated": _rotated_boxes,
}


def require_labels(dataset: Dataset, name: str, tasks: Collection[Task], place: Path) -> None:
    """DataError unless the split `name` of the dataset in `place` has what each of the tasks learns from."""
    for task in tasks:
        NEEDS[task](dataset.split(name), dataset, place)
