"""What each task learns from, and the error when labels lack it. No torch."""

from collections.abc import Callable, Collection
from pathlib import Path

from pipeline.data.dataset import Dataset, Split
from pipeline.data.masks import require_masks
from pipeline.errors import DataError
from pipeline.tasks import Task


def _boxes(split: Split, dataset: Dataset, place: Path) -> None:
    """Nothing: a picture without an object teaches too."""


def _masks(split: Split, dataset: Dataset, place: Path) -> None:
    require_masks(split, place)


def _dense_poses(split: Split, dataset: Dataset, place: Path) -> None:
    """Some labels with points; an object without any teaches its box alone, as most of COCO's people do."""
    dense = split.annotations.dense
    if dense is None or not dense.has().any():
        todo = "train a detector of boxes, such as model=faster_rcnn_r50_fpn, or add dp_x, dp_y, dp_I, dp_U, dp_V to the labels"
        raise DataError(place, f"no label of the split {split.name} has points of a dense pose", todo)
    surface = dataset.info.surface
    if surface is None:
        raise DataError(place, "dataset.json does not describe the surface of its dense pose labels", "ingest again")
    highest = int(dense.parts_P.max())
    if highest > len(surface.parts):
        raise DataError(place, f"a dense pose label has part {highest}; the surface has {len(surface.parts)}", "repair the labels")


NEEDS: dict[Task, Callable[[Split, Dataset, Path], None]] = {"bbox": _boxes, "segm": _masks, "proposals": _boxes, "densepose": _dense_poses}


def require_labels(dataset: Dataset, name: str, tasks: Collection[Task], place: Path) -> None:
    """DataError unless the split `name` of the dataset in `place` has what each of the tasks learns from."""
    for task in tasks:
        NEEDS[task](dataset.split(name), dataset, place)
