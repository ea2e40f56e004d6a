"""The pictures that say most about a detector: rated one by one, drawn with truth beside detections."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from pipeline.data.dataset import Split
from pipeline.evaluation.dense_pictures import dot_points, tint_parts
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.rotated import overlaps as rotated_overlaps
from pipeline.evaluation.truth import Truth
from pipeline.predict.draw import class_colour, draw_boxes, draw_rotated, tint_masks
from pipeline.predict.postprocess import Rle
from pipeline.predict.preprocess import Pixels, read_image, resize
from pipeline.predict.skeletons import draw_skeletons

SHOWN_SIDE = 640
"""Longer side of a picture on the sheet, in pixels; larger ones are shrunk to it."""
COCO_HALF = np.array([0.5, 0.5, 0], np.float32)
"""From COCO's pixel indices of keypoints to continuous pixels."""
GAP = 8
"""White pixels between truth and detections."""


@dataclass(frozen=True, slots=True)
class Rating:
    """How one picture went, at IoU 0.5 and one score threshold: a reader's figure, not COCO's."""

    row: int
    """Row in the split's image table."""
    found: int
    missed: int
    false: int

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall; 1 for a picture that has nothing and got nothing."""
        wrong = self.missed + self.false
        return 2 * self.found / (2 * self.found + wrong) if self.found or wrong else 1.0


def rate_pictures(truth: Truth, predictions: Predictions, score: float) -> list[Rating]:
    """A rating of every picture, in the split's order, from detections whose score is at least `score`.

    Within a class the best-scored detection takes the free truth that it overlaps most (IoU >= 0.5). Crowds are neither found nor
    missed, and excuse detections that lie in them by half.
    """
    return [_rate(row, image_id, truth, predictions, score) for row, image_id in enumerate(truth.image_ids_I.tolist())]


def worst_and_best(ratings: Sequence[Rating], count: int) -> tuple[list[Rating], list[Rating]]:
    """Up to `count` pictures: the worst half, worst first, and the best half, best first. No picture is in both.

    Among equal F1 the picture with more mistakes is worse, and the one with more found is better.
    """
    ordered = sorted(ratings, key=lambda rating: (rating.f1, -rating.missed - rating.false, rating.found, rating.row))
    worst = ordered[: min((count + 1) // 2, (len(ordered) + 1) // 2)]
    best = ordered[::-1][: min(count // 2, len(ordered) - len(worst))]
    return worst, best


def truth_beside_detections(
    split: Split, truth: Truth, predictions: Predictions, rating: Rating, score: float
) -> tuple[Pixels, str]:
    """One picture of the sheet, truth on the left and detections on the right, with its caption."""
    panels = [truth_panel(split, truth, rating.row), detection_panel(split, truth, predictions, rating.row, score)]
    name = split.images.file_names[rating.row]
    caption = f"{name}\nF1 {rating.f1:.2f}: {rating.found} found, {rating.missed} missed, {rating.false} false"
    return beside(panels), caption


def truth_panel(split: Split, truth: Truth, row: int) -> Pixels:
    """The picture of image `row` with its labels."""
    labels = np.flatnonzero(truth.image_ids_A == truth.image_ids_I[row])
    notes = [" (crowd)" if crowd else "" for crowd in truth.crowd_A[labels].tolist()]
    masks = None if truth.masks_A is None else [truth.masks_A[label] for label in labels.tolist()]
    rotated = None if truth.rotated_A5 is None else truth.rotated_A5[labels]
    points = None if truth.keypoints_AK3 is None else truth.keypoints_AK3[labels] + COCO_HALF
    image = read_image(split.path(row))
    if truth.dense_A is not None:
        image = dot_points(image, truth.dense_A.take(labels), truth.boxes_A4[labels])
    return _panel(image, truth, truth.boxes_A4[labels], truth.category_ids_A[labels], notes, masks, rotated, points)


def detection_panel(split: Split, truth: Truth, predictions: Predictions, row: int, score: float) -> Pixels:
    """The picture of image `row` with the detections that score at least `score`."""
    found = predictions.of(int(truth.image_ids_I[row]))
    shown = found.scores_D >= score
    notes = [f" {value:.2f}" for value in found.scores_D[shown].tolist()]
    masks = None if found.masks_D is None else [found.masks_D[place] for place in np.flatnonzero(shown).tolist()]
    rotated = None if found.rotated_D5 is None else found.rotated_D5[shown]
    points = None if found.keypoints_DK3 is None else found.keypoints_DK3[shown]
    image = read_image(split.path(row))
    if found.dense_D is not None:
        image = tint_parts(image, [found.dense_D[place] for place in np.flatnonzero(shown).tolist()])
    return _panel(image, truth, found.boxes_D4[shown], found.category_ids_D[shown], notes, masks, rotated, points)


def beside(panels: Sequence[Pixels]) -> Pixels:
    """Panels of one picture in a row, white between them."""
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (gap, panel)][1:], axis=1)


def _panel(
    image: Pixels,
    truth: Truth,
    boxes_B4: NDArray[np.float64],
    category_ids_B: NDArray[np.int64],
    notes: Sequence[str],
    masks_B: Sequence[Rle] | None,
    rotated_B5: NDArray[np.float64] | None,
    keypoints_BK3: NDArray[np.float32] | None,
) -> Pixels:
    places = np.searchsorted(truth.category_ids_K, category_ids_B).tolist()
    colours = [class_colour(place) for place in places]
    image = tint_masks(image, (coco_mask.decode(rle).astype(bool) for rle in masks_B or ()), colours)
    shrink = min(1.0, SHOWN_SIDE / max(image.shape[:2]))
    small = resize(image, max(1, round(image.shape[0] * shrink)), max(1, round(image.shape[1] * shrink)))
    captions = [truth.names[place] + note for place, note in zip(places, notes, strict=True)]
    if rotated_B5 is not None:
        return draw_rotated(small, rotated_B5 * np.array([shrink] * 4 + [1]), captions, colours)
    drawn = draw_boxes(small, boxes_B4 * shrink, captions, colours)
    if keypoints_BK3 is None or not truth.skeletons:
        return drawn
    points = [own_K3[: len(truth.keypoint_names[place])] for own_K3, place in zip(keypoints_BK3, places, strict=True)]
    return draw_skeletons(drawn, drawn.shape[0] / image.shape[0], points, [truth.skeletons[place] for place in places], colours)


def _rate(row: int, image_id: int, truth: Truth, predictions: Predictions, score: float) -> Rating:
    labels = np.flatnonzero(truth.image_ids_A == image_id)
    detections = predictions.of(image_id)
    kept = np.flatnonzero(detections.scores_D >= score)
    kept = kept[np.argsort(-detections.scores_D[kept], kind="stable")]
    free_A = ~truth.crowd_A[labels]
    if truth.rotated_A5 is not None and detections.rotated_D5 is not None:
        found_D5, truth_A5 = detections.rotated_D5[kept], truth.rotated_A5[labels]
        iou_DA = rotated_overlaps(found_D5, truth_A5, np.zeros(len(labels), bool))
        area_D = found_D5[:, 2] * found_D5[:, 3]
        inter_DA = rotated_overlaps(found_D5, truth_A5, np.ones(len(labels), bool)) * area_D[:, None]
    else:
        inter_DA, iou_DA = _overlaps(detections.boxes_D4[kept], truth.boxes_A4[labels])
        area_D = np.prod(detections.boxes_D4[kept, 2:] - detections.boxes_D4[kept, :2], axis=1)
    same_DA = detections.category_ids_D[kept][:, None] == truth.category_ids_A[labels][None, :]
    crowded_DA = same_DA & truth.crowd_A[labels][None, :] & (inter_DA >= 0.5 * area_D[:, None])
    found = false = 0
    for d in range(len(kept)):
        iou_A = np.where(same_DA[d] & free_A, iou_DA[d], 0.0)
        if len(iou_A) and iou_A.max() >= 0.5:
            free_A[iou_A.argmax()] = False
            found += 1
        elif not crowded_DA[d].any():
            false += 1
    return Rating(row, found, int((~truth.crowd_A[labels]).sum()) - found, false)


def _overlaps(boxes_D4: NDArray[np.float64], boxes_A4: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersections and IoU [D, A]; 0 where both boxes are empty."""
    corner_DA2 = np.maximum(boxes_D4[:, None, :2], boxes_A4[None, :, :2])
    inter_DA = np.clip(np.minimum(boxes_D4[:, None, 2:], boxes_A4[None, :, 2:]) - corner_DA2, 0, None).prod(axis=2)
    area_D, area_A = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (boxes_D4, boxes_A4))
    union_DA = area_D[:, None] + area_A[None, :] - inter_DA
    return inter_DA, np.divide(inter_DA, union_DA, out=np.zeros_like(inter_DA), where=union_DA > 0)
