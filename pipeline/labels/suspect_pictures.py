"""Suspects as pictures: the label in red, the detection that contradicts it in green, the other labels in blue."""

from collections.abc import Sequence

import numpy as np

from pipeline.data.dataset import Split
from pipeline.labels.gallery import FAULTY, OTHER, SIDE, STROKE, cut, view
from pipeline.labels.suspects import Found, Labels, Suspect
from pipeline.predict.draw import draw_boxes
from pipeline.predict.preprocess import Pixels, read_image, resize

SEEN = (60, 180, 75)


def suspect_picture(split: Split, names: Sequence[str], labels: Labels, found: Found, suspect: Suspect) -> Pixels:
    """The part of the picture around one suspect, label and detection drawn. DataError where the picture cannot be read."""
    image_HW3 = read_image(split.path(suspect.image))
    own = np.array([] if suspect.label < 0 else [suspect.label], np.int64)
    others = np.setdiff1d(np.flatnonzero(labels.image_A == suspect.image), own)
    seen_14 = found.boxes_D4[[suspect.detection]]
    left, top, right, bottom = view(np.concatenate([labels.boxes_A4[own], seen_14]), *image_HW3.shape[:2])
    image_HW3 = cut(image_HW3, left, top, right, bottom)
    height, width = image_HW3.shape[:2]
    scale = SIDE / max(height, width)
    image_HW3 = resize(image_HW3, max(1, round(height * scale)), max(1, round(width * scale)))
    boxes_B4 = np.concatenate([labels.boxes_A4[others], labels.boxes_A4[own], seen_14]) - [left, top, left, top]
    shown_B = (np.minimum(boxes_B4[:, 2:], [width, height]) > np.maximum(boxes_B4[:, :2], 0)).all(axis=1)
    colours = [OTHER] * len(others) + [FAULTY] * len(own) + [SEEN]
    captions = [""] * len(others) + [f"label: {names[label]}" for label in labels.label_A[own].tolist()]
    captions.append(f"detector: {names[found.label_D[suspect.detection]]} {found.scores_D[suspect.detection]:.2f}")
    rows = np.flatnonzero(shown_B).tolist()
    thick = [row for row in rows if row >= len(others) for _ in STROKE]  # lines around a thin one: together a thick one
    stroke_S4 = np.tile(STROKE, (len(thick) // len(STROKE), 1)).reshape(-1, 4)
    drawn_B4 = np.concatenate([boxes_B4[thick] * scale + stroke_S4, boxes_B4[rows] * scale])
    order = [*thick, *rows]
    texts = [""] * len(thick) + [captions[row] for row in rows]
    return draw_boxes(image_HW3, drawn_B4, texts, [colours[row] for row in order])
