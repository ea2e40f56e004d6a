"""An exported detector on the validation pictures, as the rules of promotion look at it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.dataset import Category, Dataset, Split
from pipeline.deploy.latency import milliseconds
from pipeline.errors import DataError, UserError
from pipeline.evaluation.coco import CocoMetrics, measure
from pipeline.evaluation.comparison import Matches
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.inference import predict_split
from pipeline.evaluation.truth import Truth
from pipeline.files import read_json
from pipeline.predict.preprocess import read_image
from pipeline.predict.session import Detector
from pipeline.progress import Progress
from pipeline.tasks import Task

COMPARED: tuple[Task, ...] = ("bbox", "segm")
"""Tasks with COCO's matching, which the bootstrap resamples."""
LIGHT = ("dark", "middling", "bright")
MOST_SOURCES = 20
"""More folders than this are no sources but one per film or day: too few labels each."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One detector's figures."""

    name: str
    """`champion 3`, `challenger 4`."""
    metrics: CocoMetrics
    matches: Matches
    milliseconds: float
    """Per picture, float file, on this machine."""
    deploy: Mapping[str, Any]
    """Its deploy.json."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of the validation pictures."""

    name: str
    pictures_I: NDArray[np.bool_]


def measure_file(name: str, folder: Path, dataset: Dataset, split: Split, task: Task, threads: int, batch: int) -> Measured:
    """The float ONNX file in `folder` on the pictures of `split`.

    A class is known by its name: one that the dataset no longer has is left out, one that the detector does not know is never
    found. DataError for a file that is missing or not the one that was tested, UserError for one that needs proposals.
    """
    detector = Detector.open(folder, "onnx", threads)
    if detector.backend.takes_proposals:
        raise UserError("retrain: a detector that is given proposals cannot be compared; train one that makes its own")
    deploy = read_json(folder / "deploy.json")
    if not isinstance(deploy, dict):
        raise DataError(folder / "deploy.json", "is no description of an exported detector")
    with Progress(f"compare: {name}", len(split.images)) as progress:
        found = predict_split(
            detector.backend,
            split,
            detector.input,
            detector.divisor,
            batch,
            detector.category_ids,
            lambda done, _: progress.show(done, ""),
            merging=detector.merging,
        )
    found = renamed(found, dict(zip(detector.category_ids, detector.classes, strict=True)), dataset.info.categories)
    truth = Truth.of(split, dataset.info.categories, (task,))
    picture = read_image(split.path(0))
    return Measured(
        name=name,
        metrics=measure(truth, found, "hotcoco", task=task),
        matches=Matches.of(truth, found, task),
        milliseconds=milliseconds(lambda: detector.predict(picture)),
        deploy=deploy,
    )


def renamed(found: Predictions, classes: Mapping[int, str], categories: Sequence[Category]) -> Predictions:
    """Detections with the dataset's category ids in place of the detector's, by the classes' names; strangers go."""
    id_of = {category.name: category.id for category in categories}
    target = {old: id_of[name] for old, name in classes.items() if name in id_of}
    known = np.isin(found.category_ids_D, list(target))
    kept = found.take(np.flatnonzero(known))
    kept.category_ids_D = np.array([target[old] for old in kept.category_ids_D.tolist()], np.int64)
    return kept


def task_of(deploy: Mapping[str, Any]) -> Task:
    """What is compared: the first of boxes and masks that the export measured. UserError where it measured neither."""
    known = deploy.get("parity", {}).get("onnx", {})
    for task in COMPARED:
        if f"{task}/AP" in known:
            return task
    raise UserError("retrain: compares boxes or masks of classes, and this detector finds neither")


def slices_of(split: Split) -> list[Slice]:
    """Pictures by brightness, in thirds, and by the folder that they are from, where there are a few folders."""
    brightness_I = np.array([brightness(split.path(row)) for row in range(len(split.images))])
    borders = np.quantile(brightness_I, [1 / 3, 2 / 3]) if len(brightness_I) else np.zeros(2)
    third_I = np.searchsorted(borders, brightness_I, side="left")
    slices = [Slice(f"{name} pictures", third_I == place) for place, name in enumerate(LIGHT)]
    folder_I = np.array([name.rpartition("/")[0] for name in split.images.file_names])
    folders = sorted(set(folder_I.tolist()))
    if 1 < len(folders) <= MOST_SOURCES:
        slices += [Slice(f"source {folder or '.'}", folder_I == folder) for folder in folders]
    return slices


def brightness(path: Path) -> float:
    """Mean grey level, 0 to 255."""
    grey_HW = np.asarray(Image.fromarray(read_image(path)).convert("L").resize((64, 64), Image.Resampling.BOX))
    return float(grey_HW.mean())
