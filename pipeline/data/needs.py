"""What each task learns from, and the error when labels lack it. No torch."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np

from pipeline.data.dataset import Dataset, Split
from pipeline.data.keypoints import require_keypoints
from pipeline.data.maps import THINGS
from pipeline.data.masks import require_masks
from pipeline.data.proposals import MAKE
from pipeline.data.rotated import require_rotated
from pipeline.errors import DataError
from pipeline.tasks import Task


def _boxes(split: Split, dataset: Dataset, place: Path) -> None:
    """Nothing: a picture without an object teaches too."""


def _masks(split: Split, dataset: Dataset, place: Path) -> None:
    require_masks(split, place)


def _keypoints(split: Split, dataset: Dataset, place: Path) -> None:
    require_keypoints(split, dataset, place)


def _semantic(split: Split, dataset: Dataset, place: Path) -> None:
    """A map of classes for every picture."""
    maps = split.maps
    if maps is None or maps.semantic is None:
        raise DataError(place, "has no semantic maps to learn from", f"ingest a dataset that has some, or {BOXES_INSTEAD}")
    _require_files(split, maps.semantic, maps.names, "semantic")


def _panoptic(split: Split, dataset: Dataset, place: Path) -> None:
    """A map of segments for every picture, and semantic classes that say which of them are things."""
    maps, info = split.maps, dataset.info
    if maps is None or maps.panoptic is None:
        raise DataError(place, "has no panoptic maps to learn from", f"ingest a dataset that has some, or {BOXES_INSTEAD}")
    wanted = (THINGS, *(category.name for category in info.stuff))
    if info.semantic != wanted:
        wrong = f"its semantic classes are {', '.join(info.semantic) or 'none'}"
        raise DataError(place, wrong, f"beside panoptic maps they must be {', '.join(wanted)}, in this order")
    _require_files(split, maps.panoptic, maps.names, "panoptic")


def _require_files(split: Split, folder: Path, names: Sequence[str], kind: str) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        wrong = f"{len(missing)} of {len(names)} pictures of the split {split.name} have no {kind} map: {', '.join(missing[:10])}"
        raise DataError(folder, wrong, "add the maps, or take the pictures out")


def _rotated_boxes(split: Split, dataset: Dataset, place: Path) -> None:
    require_rotated(split, place)


def _dense_poses(split: Split, dataset: Dataset, place: Path) -> None:
    """Some labels with points; an object without any teaches its box alone, as most of COCO's people do."""
    dense = split.annotations.dense
    if dense is None or not dense.has().any():
        todo = f"{BOXES_INSTEAD}, or add dp_x, dp_y, dp_I, dp_U, dp_V to the labels"
        raise DataError(place, f"no label of the split {split.name} has points of a dense pose", todo)
    surface = dataset.info.surface
    if surface is None:
        raise DataError(place, "dataset.json does not describe the surface of its dense pose labels", "ingest again")
    odd = dense.parts_P[(dense.parts_P < 0) | (dense.parts_P > len(surface.parts))]
    if len(odd):
        raise DataError(
            place, f"a dense pose label has part {odd[0]}; the surface has 1 to {len(surface.parts)}", "repair the labels"
        )
    bare = np.flatnonzero(dense.has() & (np.diff(dense.mask_starts) == 0))
    if len(bare):
        wrong = (
            f"annotation {split.annotations.ids_A[bare[0]]} of the split {split.name} has points of a dense pose but no dp_masks"
        )
        raise DataError(place, wrong, "add the masks, or drop its points")


BOXES_INSTEAD = "train a detector of boxes, such as model=faster_rcnn_r50_fpn"
NEEDS: dict[Task, Callable[[Split, Dataset, Path], None]] = {
    "bbox": _boxes,
    "segm": _masks,
    "keypoints": _keypoints,
    "semantic": _semantic,
    "panoptic": _panoptic,
    "proposals": _boxes,
    "rotated": _rotated_boxes,
    "densepose": _dense_poses,
}


def require_proposals(dataset: Dataset, name: str, place: Path) -> None:
    """DataError unless the split `name` of the dataset in `place` brings proposals."""
    if dataset.split(name).proposals is None:
        raise DataError(place, f"the split {name} has no proposals, which this model looks at", MAKE)


def require_labels(dataset: Dataset, name: str, tasks: Collection[Task], place: Path) -> None:
    """DataError unless the split `name` of the dataset in `place` has what each of the tasks learns from."""
    for task in tasks:
        NEEDS[task](dataset.split(name), dataset, place)
