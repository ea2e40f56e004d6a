"""Semantic and panoptic maps on pictures, truth beside what was found: the reader's view of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Split
from pipeline.data.maps import IGNORED
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.pictures import SHOWN_SIDE, beside, detection_panel
from pipeline.evaluation.truth import Truth
from pipeline.predict.draw import class_colour, draw_regions
from pipeline.predict.map_files import decode_classes, decode_segments
from pipeline.predict.preprocess import Pixels, read_image, resize


@dataclass(frozen=True, slots=True)
class MapRating:
    """How one picture's semantic map went."""

    row: int
    """Row in the split's image table."""
    right: float
    """Share of the pixels that count whose class is right; 1 where none counts."""


def rate_maps(truth: Truth, predictions: Predictions) -> list[MapRating]:
    """A rating of every picture, in the split's order."""
    assert truth.maps is not None and predictions.semantic is not None
    ratings = []
    for row, image_id in enumerate(truth.image_ids_I.tolist()):
        wanted_HW, found_HW = truth.maps.classes_of(row), decode_classes(predictions.semantic[image_id])
        counted_HW = wanted_HW != IGNORED
        ratings.append(MapRating(row, float((wanted_HW == found_HW)[counted_HW].mean()) if counted_HW.any() else 1.0))
    return ratings


def worst_and_best_maps(ratings: Sequence[MapRating], count: int) -> tuple[list[MapRating], list[MapRating]]:
    """Up to `count` pictures: the worst half, worst first, and the best half, best first. No picture is in both."""
    ordered = sorted(ratings, key=lambda rating: (rating.right, rating.row))
    worst = ordered[: min((count + 1) // 2, (len(ordered) + 1) // 2)]
    return worst, ordered[::-1][: min(count // 2, len(ordered) - len(worst))]


def truth_beside_maps(split: Split, truth: Truth, predictions: Predictions, rating: MapRating) -> tuple[Pixels, str]:
    """One picture of the sheet: its map in the truth, and as found; with its caption."""
    panels = [truth_map_panel(split, truth, rating.row), found_map_panel(split, truth, predictions, rating.row)]
    return beside(panels), f"{split.images.file_names[rating.row]}\n{rating.right:.0%} of the pixels have the right class"


def found_panel(split: Split, truth: Truth, predictions: Predictions, row: int, score: float) -> Pixels:
    """The picture of image `row` with its map as found, or with the detections that score at least `score`."""
    if predictions.semantic is not None:
        return found_map_panel(split, truth, predictions, row)
    return detection_panel(split, truth, predictions, row, score)


def truth_map_panel(split: Split, truth: Truth, row: int) -> Pixels:
    """The picture of image `row` with its segments, or its semantic classes where there are no segments."""
    assert truth.maps is not None
    maps = truth.maps
    if "panoptic" not in truth.tasks or maps.segments is None:
        return _classes_panel(split, truth, row, maps.classes_of(row))
    own = maps.segments.rows_of(row)
    numbers, categories = maps.segments.number_S[own], maps.segments.category_S[own].tolist()
    ids_HW = maps.segments_of(row)
    return _segments_panel(split, truth, row, np.searchsorted(numbers, ids_HW) + 1, categories, ids_HW > 0)


def found_map_panel(split: Split, truth: Truth, predictions: Predictions, row: int) -> Pixels:
    """The picture of image `row` with the segments, or the semantic classes, that were found."""
    image_id = int(truth.image_ids_I[row])
    if predictions.panoptic is None:
        assert predictions.semantic is not None
        return _classes_panel(split, truth, row, decode_classes(predictions.semantic[image_id]))
    found = predictions.panoptic[image_id]
    ids_HW = decode_segments(found.png)
    return _segments_panel(split, truth, row, ids_HW, list(found.category_ids), ids_HW > 0)


def _classes_panel(split: Split, truth: Truth, row: int, classes_HW: NDArray[np.uint8]) -> Pixels:
    assert truth.maps is not None
    names = truth.maps.class_names
    ids_HW = np.where(classes_HW == IGNORED, 0, classes_HW.astype(np.int32) + 1)
    return _panel(split, row, ids_HW, names, [class_colour(number) for number in range(len(names))])


def _segments_panel(
    split: Split, truth: Truth, row: int, ids_HW: NDArray[np.integer], categories: Sequence[int], there_HW: NDArray[np.bool_]
) -> Pixels:
    assert truth.maps is not None
    listed = truth.maps.categories
    places = {category["id"]: place for place, category in enumerate(listed)}
    names = [listed[places[category]]["name"] for category in categories]
    return _panel(split, row, np.where(there_HW, ids_HW, 0), names, [class_colour(places[category]) for category in categories])


def _panel(
    split: Split, row: int, ids_HW: NDArray[np.integer], names: Sequence[str], colours: Sequence[tuple[int, int, int]]
) -> Pixels:
    image = read_image(split.path(row))
    shrink = min(1.0, SHOWN_SIDE / max(image.shape[:2]))
    height, width = max(1, round(image.shape[0] * shrink)), max(1, round(image.shape[1] * shrink))
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), ids_HW.shape, strict=True))
    return draw_regions(resize(image, height, width), ids_HW[np.ix_(rows, columns)], names, colours)
