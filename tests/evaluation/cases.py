"""COCO dictionaries as this project's columns, and pycocotools' own answer to the same dictionaries."""

import contextlib
import copy
import io
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from pipeline.evaluation.found import Predictions
from pipeline.evaluation.truth import Truth

Records = list[dict[str, Any]]


def truth_of(gt: dict[str, Any]) -> Truth:
    """The labels of a COCO dictionary, through no code of the data room."""
    rows = gt["annotations"]
    categories = sorted(gt["categories"], key=lambda category: category["id"])
    return Truth(
        image_ids_I=np.array([image["id"] for image in gt["images"]], np.int64),
        image_ids_A=np.array([row["image_id"] for row in rows], np.int64),
        category_ids_A=np.array([row["category_id"] for row in rows], np.int64),
        boxes_A4=_xyxy(rows),
        area_A=np.array([row["area"] for row in rows], np.float64),
        crowd_A=np.array([row.get("iscrowd", 0) for row in rows], bool),
        category_ids_K=np.array([category["id"] for category in categories], np.int64),
        names=tuple(category["name"] for category in categories),
        masks_A=packed(rows, gt),
    )


def predictions_of(dt: Records) -> Predictions:
    """Results in COCO's format as columns, in the same order."""
    return Predictions(
        image_ids_D=np.array([row["image_id"] for row in dt], np.int64),
        boxes_D4=_xyxy(dt),
        scores_D=np.array([row["score"] for row in dt], np.float64),
        category_ids_D=np.array([row["category_id"] for row in dt], np.int64),
        masks_D=packed(dt, {}),
    )


def packed(rows: Records, gt: dict[str, Any]) -> list[Any] | None:
    """Packed run lengths of every row, by pycocotools; None where a row has no mask."""
    if any("segmentation" not in row for row in rows):
        return None
    sides = {image["id"]: (image.get("height"), image.get("width")) for image in gt.get("images", [])}
    found = []
    for row in rows:
        mask = row["segmentation"]
        if isinstance(mask, list):
            mask = coco_mask.merge(coco_mask.frPyObjects(mask, *sides[row["image_id"]]))
        elif isinstance(mask["counts"], list):
            mask = coco_mask.frPyObjects(mask, *mask["size"])
        counts = mask["counts"]
        found.append({"size": mask["size"], "counts": counts.encode() if isinstance(counts, str) else counts})
    return found


def judge(gt: dict[str, Any], dt: Records, task: str = "bbox") -> Any:
    """pycocotools used as its own demo uses it, on the dictionaries as they are; returns its COCOeval."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        labels, results = COCO(), COCO()
        labels.dataset = copy.deepcopy(gt)
        labels.createIndex()
        if dt:
            results = labels.loadRes(copy.deepcopy(dt))
        else:  # loadRes cannot read an empty list
            results.dataset = {"images": gt["images"], "categories": gt["categories"], "annotations": []}
            results.createIndex()
        evaluation = COCOeval(labels, results, task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def _xyxy(rows: Records) -> np.ndarray:
    xywh_A4 = np.array([row.get("bbox", [0] * 4) for row in rows], np.float64).reshape(-1, 4)
    return np.concatenate([xywh_A4[:, :2], xywh_A4[:, :2] + xywh_A4[:, 2:]], axis=1)
