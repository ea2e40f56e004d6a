"""Panoptic maps: panoptic quality of all classes, of things, of stuff, and of each class.

PQ = SQ x RQ: mean IoU of the matched segments (IoU above 0.5), and the share of segments that are matched. Source: Kirillov et
al. 2019, "Panoptic Segmentation", counted by hotcoco after COCO's panopticapi; crowds and pixels without a segment are left out.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.data.maps import coco_panoptic
from pipeline.evaluation.coco import Engine
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.metrics import Metrics, Table, defined
from pipeline.evaluation.truth import Truth
from pipeline.files import write_json
from pipeline.predict.map_files import decode_segments
from pipeline.tasks import Task

GROUPS = {"": "All", "_things": "Things", "_stuff": "Stuff"}
"""End of a figure's name -> hotcoco's group."""
QUALITIES = {"PQ": "pq", "SQ": "sq", "RQ": "rq"}


@dataclass(frozen=True, slots=True)
class ClassQuality:
    """One class; -1 stands for undefined: no segment in the truth or in the maps."""

    name: str
    thing: bool
    truths: int
    """Segments that count."""
    pq: float
    sq: float
    rq: float


@dataclass(frozen=True, slots=True)
class PanopticMetrics(Metrics):
    """What one evaluation says about panoptic maps; -1 where there is nothing to measure."""

    numbers: Mapping[str, float]
    """panoptic/PQ, SQ, RQ, and those of things (PQ_things ...) and stuff (PQ_stuff ...)."""
    classes: tuple[ClassQuality, ...]

    task: ClassVar[Task] = "panoptic"  # type: ignore[misc]
    shown: ClassVar[tuple[str, ...]] = ("PQ", "SQ", "RQ", "PQ_things", "PQ_stuff")

    @property
    def per_class(self) -> dict[str, float]:
        return {one.name: one.pq for one in self.classes if one.truths}

    def tables(self) -> list[Table]:
        """Quality of all classes, of things and of stuff, and of each class."""
        groups = [(of.lower(), *(self.figure(f"{quality}{end}") for quality in QUALITIES)) for end, of in GROUPS.items()]
        classes = [
            (one.name, "thing" if one.thing else "stuff", one.truths, defined(one.pq), defined(one.sq), defined(one.rq))
            for one in self.classes
        ]
        note = "PQ = SQ x RQ: mean IoU of the matched segments, and the share of segments that are matched."
        return [
            Table("Panoptic quality", ("classes", *QUALITIES), groups, note),
            Table("Panoptic quality by class", ("class", "kind", "segments", *QUALITIES), classes),
        ]


def measure_panoptic(truth: Truth, predictions: Predictions, engine: Engine, max_detections: int) -> PanopticMetrics:
    """Quality of the panoptic maps, whatever `engine` counts boxes."""
    from hotcoco.panoptic import PanopticEval

    maps, images, found = truth.maps, truth.images, predictions.panoptic
    if maps is None or images is None or maps.segments is None or maps.panoptic is None or found is None:
        raise ValueError("panoptic maps can be measured only where truth and predictions have them")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        header = coco_panoptic(images, maps.names, maps.segments, maps.categories)
        write_json(folder / "truth.json", header)
        annotations = []
        for image_id, file_name in zip(images.ids_I.tolist(), maps.names, strict=True):
            (folder / "found" / file_name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "found" / file_name).write_bytes(found[image_id].png)
            areas_S = np.bincount(decode_segments(found[image_id].png).ravel(), minlength=len(found[image_id].category_ids) + 1)
            infos = [
                {"id": number, "category_id": category, "area": int(areas_S[number]), "iscrowd": 0}
                for number, category in enumerate(found[image_id].category_ids, 1)
                if areas_S[number]
            ]
            annotations.append({"image_id": image_id, "file_name": file_name, "segments_info": infos})
        write_json(folder / "found.json", header | {"annotations": annotations})
        counted = PanopticEval(
            str(folder / "truth.json"),
            str(folder / "found.json"),
            gt_folder=str(maps.panoptic),
            pred_folder=str(folder / "found"),
        )
        counted.evaluate()
        results: dict[str, Any] = counted.results()
    return _read_off(truth, results)


def _read_off(truth: Truth, results: dict[str, Any]) -> PanopticMetrics:
    assert truth.maps is not None and truth.maps.segments is not None
    segments = truth.maps.segments
    numbers = {f"panoptic/{name}{end}": _value(results[of], key) for end, of in GROUPS.items() for name, key in QUALITIES.items()}
    classes = []
    for category in truth.maps.categories:
        own = results["per_class"].get(category["id"], results["per_class"].get(str(category["id"]), {}))
        count = int(((segments.category_S == category["id"]) & ~segments.crowd_S).sum())
        quality = (_value(own, key) for key in QUALITIES.values())
        classes.append(ClassQuality(category["name"], bool(category["isthing"]), count, *quality))
    return PanopticMetrics(numbers, tuple(classes))


def _value(group: Mapping[str, Any], key: str) -> float:
    """-1 where no class of the group has a segment."""
    return float(group[key]) if group and group.get("n", 1) else -1.0
