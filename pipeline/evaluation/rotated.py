"""Rotated AP: COCO's protocol with the IoU of rotated boxes, counted by pycocotools.

Matching and tables are its own; it is given our overlaps in place of its upright ones. hotcoco takes none from outside, so that
`evaluate.engine` makes no difference here. Small, medium and large go by a label's own area and a detection's width x height.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.found import Predictions
from pipeline.evaluation.truth import Floats, Truth


def rotated_evaluation(labels: Any, results: Any, truth: Truth, predictions: Predictions) -> Any:
    """A COCOeval over records whose ids are the rows of truth and predictions, counted from 1."""
    from pycocotools.cocoeval import COCOeval

    class RotatedEval(COCOeval):  # type: ignore[misc]  # pycocotools has no types
        def computeIoU(self, image_id: int, category_id: int) -> Any:
            """IoU [detections, truths], detections in falling score order; over the detection's area where a truth is a crowd."""
            found, wanted = self._dts[image_id, category_id], self._gts[image_id, category_id]
            if not found or not wanted:
                return []
            order = np.argsort([-row["score"] for row in found], kind="mergesort")[: self.params.maxDets[-1]]
            rows_D = np.array([found[place]["id"] - 1 for place in order])
            rows_A = np.array([row["id"] - 1 for row in wanted])
            assert predictions.rotated_D5 is not None and truth.rotated_A5 is not None
            return overlaps(predictions.rotated_D5[rows_D], truth.rotated_A5[rows_A], truth.crowd_A[rows_A])

    return RotatedEval(labels, results, "bbox")


def overlaps(found_D5: Floats, truth_A5: Floats, crowd_A: NDArray[np.bool_]) -> Floats:
    """IoU [D, A] of rotated boxes; with a crowd the intersection over the detection's own area."""
    import torch

    from ops_cuda import rotated_box_iou

    iou_DA: Floats = rotated_box_iou(torch.from_numpy(found_D5), torch.from_numpy(truth_A5)).numpy()
    area_D, area_A = found_D5[:, 2] * found_D5[:, 3], truth_A5[:, 2] * truth_A5[:, 3]
    inter_DA = iou_DA / (1 + iou_DA) * (area_D[:, None] + area_A)
    within_DA = np.divide(inter_DA, area_D[:, None], out=np.zeros_like(inter_DA), where=area_D[:, None] > 0)
    return np.where(crowd_A, within_DA, iou_DA)
