"""Semantic maps: intersection over union of each class, counted over all pixels of a split.

Source: Pascal VOC's segmentation measure (Everingham et al. 2010) and its companions in Long et al. 2015, counted by hotcoco.
Pixels of 255 in the truth do not count. A class that is neither in the truth nor in the maps is left out of the mean; one that is
in the maps alone counts as 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pipeline.errors import DataError
from pipeline.evaluation.coco import Engine
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.metrics import Metrics, Table, defined
from pipeline.evaluation.truth import Truth
from pipeline.predict.map_files import decode_classes
from pipeline.tasks import Task

FIGURES = {"mIoU": "mIoU", "fwIoU": "fwIoU", "mACC": "mAcc", "pACC": "aAcc"}
"""Our names -> hotcoco's."""


@dataclass(frozen=True, slots=True)
class SemanticMetrics(Metrics):
    """What one evaluation says about semantic maps; -1 where there is nothing to measure."""

    numbers: Mapping[str, float]
    """semantic/mIoU; fwIoU, weighted by the classes' pixels; mACC, mean share of a class's pixels found; pACC, of all pixels."""
    classes: tuple[tuple[str, float, float, int], ...]
    """Per class: name, IoU, share of its pixels found, pixels in the truth."""

    task: ClassVar[Task] = "semantic"  # type: ignore[misc]
    shown: ClassVar[tuple[str, ...]] = ("mIoU", "pACC", "fwIoU")

    @property
    def per_class(self) -> dict[str, float]:
        return {name: iou for name, iou, _, pixels in self.classes if pixels}

    def tables(self) -> list[Table]:
        """All figures, and the classes."""
        row = {name.removeprefix("semantic/"): defined(value) for name, value in self.numbers.items()}
        classes = [(name, pixels, defined(iou), defined(found)) for name, iou, found, pixels in self.classes]
        note = "fwIoU: weighted by pixels; ACC: share of the pixels that are found, mean over classes (m) and of all (p)."
        return [
            Table("Semantic maps", tuple(row), [tuple(row.values())], note),
            Table("Semantic maps by class", ("class", "pixels", "IoU", "ACC"), classes),
        ]


def measure_semantic(truth: Truth, predictions: Predictions, engine: Engine, max_detections: int) -> SemanticMetrics:
    """Figures of the semantic maps, whatever `engine` counts boxes. DataError names a map of another size than its truth's."""
    from hotcoco.semantic import SemanticEval

    maps = truth.maps
    if maps is None or maps.semantic is None or predictions.semantic is None:
        raise ValueError("semantic maps can be measured only where truth and predictions have them")
    counted = SemanticEval(list(maps.class_names), ignore_index=255)
    for row, image_id in enumerate(truth.image_ids_I.tolist()):
        wanted_HW, found_HW = maps.classes_of(row), decode_classes(predictions.semantic[image_id])
        if wanted_HW.shape != found_HW.shape:
            wrong = (
                f"is {wanted_HW.shape[0]} x {wanted_HW.shape[1]} pixels, its picture {found_HW.shape[0]} x {found_HW.shape[1]}"
            )
            raise DataError(maps.semantic / maps.names[row], wrong, "was the picture resized? bring back either of them")
        counted.update(wanted_HW, found_HW)
    results: dict[str, Any] = counted.results()
    return SemanticMetrics(
        {f"semantic/{name}": float(results[theirs]) for name, theirs in FIGURES.items()},
        tuple((one["name"], float(one["IoU"]), float(one["Acc"]), int(one["gt_area"])) for one in results["per_class"]),
    )
