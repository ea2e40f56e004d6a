"""Masks, boxes and captions on a picture; boxes by supervision (imported inside: it takes a second)."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.predict.preprocess import Pixels
from pipeline.predict.rotated import corners

READABLE_SIDE = 640
"""Pictures whose longer side is below this, in pixels, are enlarged by a whole factor first, so that captions can be read."""
CAPTION_HEIGHT = 14
"""Pixels that a caption takes above its box."""
TINT = 0.45
"""Share of a mask's colour in its pixels."""
PALETTE = [
    (230, 25, 75),
    (0, 130, 200),
    (60, 180, 75),
    (245, 130, 48),
    (145, 30, 180),
    (0, 160, 160),
    (240, 50, 230),
    (128, 96, 0),
]
"""RGB, dark enough for white captions; classes take them in turn."""


def class_colour(label: int) -> tuple[int, int, int]:
    """RGB colour of class `label`; the same in every picture and report."""
    return PALETTE[label % len(PALETTE)]


def draw_boxes(
    image_HW3: Pixels,
    boxes_D4: NDArray[np.floating],
    captions: Sequence[str],
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> Pixels:
    """A copy of the RGB picture with thin boxes (x1, y1, x2, y2) and a caption each; an empty caption draws the box alone.

    `colours` is one RGB triple per box; None gives all the first class's colour. Small pictures come back enlarged by a whole
    factor. Rows that are not finite are left out; the rest are clipped, so a box outside the picture shows as a line at its edge.
    """
    factor = _enlargement(*image_HW3.shape[:2])
    height, width = image_HW3.shape[0] * factor, image_HW3.shape[1] * factor
    image = np.array(Image.fromarray(image_HW3).resize((width, height), Image.Resampling.BICUBIC))
    boxes_D4 = np.asarray(boxes_D4, np.float64).reshape(-1, 4)
    rows = np.flatnonzero(np.isfinite(boxes_D4).all(axis=1)).tolist()
    if not len(rows):
        return image
    chosen = [class_colour(0)] * len(boxes_D4) if colours is None else list(colours)
    scaled_D4 = np.sort(boxes_D4[rows].reshape(-1, 2, 2), axis=1).reshape(-1, 4) * factor
    scaled_D4 = np.clip(scaled_D4, 0, [width - 1, height - 1] * 2)
    return _annotate(image, scaled_D4, [captions[row] for row in rows], [chosen[row] for row in rows])


def draw_rotated(
    image_HW3: Pixels,
    boxes_D5: NDArray[np.floating],
    captions: Sequence[str],
    colours: Sequence[tuple[int, int, int]] | None = None,
) -> Pixels:
    """`draw_boxes` of rotated boxes (cx, cy, w, h, degrees): the turned outlines, a caption above each one's highest corner."""
    import cv2

    boxes_D5 = np.asarray(boxes_D5, np.float64).reshape(-1, 5)
    rows = np.flatnonzero(np.isfinite(boxes_D5).all(axis=1)).tolist()
    chosen = [class_colour(0)] * len(boxes_D5) if colours is None else list(colours)
    factor = _enlargement(*image_HW3.shape[:2])
    image = draw_boxes(image_HW3, np.zeros((0, 4)), [])
    corners_D42 = corners(boxes_D5[rows]) * factor
    for outline_42, row in zip(corners_D42, rows, strict=True):
        cv2.polylines(image, [np.rint(outline_42 * 16).astype(np.int32)], True, chosen[row], 1, cv2.LINE_AA, 4)
    highest_D2 = np.array([outline_42[outline_42[:, 1].argmin()] for outline_42 in corners_D42]).reshape(-1, 2)
    return _captioned(image, highest_D2, [captions[row] for row in rows], [chosen[row] for row in rows])


def tint_masks(image_HW3: Pixels, masks: Iterable[NDArray[np.bool_]], colours: Iterable[tuple[int, int, int]]) -> Pixels:
    """A copy of the RGB picture with each mask [H, W] tinted in its colour, its edge in full colour; one mask after the other."""
    tinted = image_HW3.copy()
    for mask_HW, colour in zip(masks, colours, strict=False):  # more colours than masks where a detector finds none
        tinted[mask_HW] = np.round(tinted[mask_HW] * (1 - TINT) + np.array(colour) * TINT)
        outside = np.pad(mask_HW, 1)  # beyond the picture lies nothing: an object that it cuts off has an edge there
        inner_HW = outside[:-2, 1:-1] & outside[2:, 1:-1] & outside[1:-1, :-2] & outside[1:-1, 2:]
        tinted[mask_HW & ~inner_HW] = colour
    return tinted


def draw_regions(
    image_HW3: Pixels,
    ids_HW: NDArray[np.integer],
    captions: Sequence[str],
    colours: Sequence[tuple[int, int, int]],
) -> Pixels:
    """A copy of the RGB picture with its regions tinted and named: region s of `ids` (0 = none) has captions[s - 1].

    Small pictures come back enlarged by a whole factor, as from `draw_boxes`. An empty caption only tints.
    """
    there = [number for number in np.unique(ids_HW).tolist() if number > 0]
    tinted = tint_masks(image_HW3, (ids_HW == number for number in there), [colours[number - 1] for number in there])
    factor = _enlargement(*image_HW3.shape[:2])
    height, width = image_HW3.shape[0] * factor, image_HW3.shape[1] * factor
    image = np.array(Image.fromarray(tinted).resize((width, height), Image.Resampling.NEAREST))
    named = [number for number in there if captions[number - 1]]
    points = [_middle(ids_HW == number) for number in named]
    boxes_D4 = np.array([[x, y, x + 1, y + 1] for x, y in points], np.float64).reshape(-1, 4) * factor
    texts, shades = [captions[number - 1] for number in named], [colours[number - 1] for number in named]
    return _caption(image, boxes_D4, texts, shades) if named else image


def _middle(mask_HW: NDArray[np.bool_]) -> tuple[int, int]:
    """(x, y) of a pixel of the mask, near its middle row and in the middle of that row's longest run."""
    rows = np.flatnonzero(mask_HW.any(axis=1))
    y = int(rows[len(rows) // 2])
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask_HW[y].astype(np.int8), [0]])))
    longest = int(np.argmax(edges[1::2] - edges[::2]))
    return int(edges[2 * longest] + edges[2 * longest + 1] - 1) // 2, y


def _caption(image: Pixels, boxes_D4: NDArray[np.float64], texts: list[str], colours: list[tuple[int, int, int]]) -> Pixels:
    import supervision as sv

    distinct = sorted(set(colours))
    palette = sv.ColorPalette([sv.Color(*colour) for colour in distinct])
    text = sv.LabelAnnotator(
        color=palette,
        text_color=sv.Color.WHITE,
        text_scale=0.4,
        text_thickness=1,
        text_padding=2,
        text_position=sv.Position.CENTER,
    )
    canvas = np.ascontiguousarray(image[:, :, ::-1])  # supervision draws with OpenCV, whose colours are BGR
    lookup = np.array([distinct.index(colour) for colour in colours])
    labelled = sv.Detections(xyxy=boxes_D4.astype(np.float32))
    canvas = text.annotate(canvas, labelled, labels=texts, custom_color_lookup=lookup)
    return np.ascontiguousarray(canvas[:, :, ::-1])


def _enlargement(height: int, width: int) -> int:
    return min(8, max(1, -(-READABLE_SIDE // max(height, width)))) if max(height, width) < READABLE_SIDE else 1


def _annotate(
    image: Pixels,
    boxes_D4: NDArray[np.float64],
    captions: list[str],
    colours: list[tuple[int, int, int]],
) -> Pixels:
    import supervision as sv

    distinct = sorted(set(colours))
    palette = sv.ColorPalette([sv.Color(*colour) for colour in distinct])
    lookup = np.array([distinct.index(colour) for colour in colours])
    detections = sv.Detections(xyxy=boxes_D4.astype(np.float32))
    canvas = np.ascontiguousarray(image[:, :, ::-1])  # supervision draws with OpenCV, whose colours are BGR
    canvas = sv.BoxAnnotator(color=palette, thickness=1).annotate(canvas, detections, custom_color_lookup=lookup)
    named = np.flatnonzero([bool(caption) for caption in captions])
    if len(named):
        text = sv.LabelAnnotator(color=palette, text_color=sv.Color.WHITE, text_scale=0.4, text_thickness=1, text_padding=2)
        anchors_D4 = detections.xyxy[named]
        anchors_D4[:, 1] = np.maximum(anchors_D4[:, 1], CAPTION_HEIGHT)  # a caption above the upper edge would be cut off
        labelled, shown = sv.Detections(xyxy=anchors_D4), [captions[row] for row in named]
        canvas = text.annotate(canvas, labelled, labels=shown, custom_color_lookup=lookup[named])
    return np.ascontiguousarray(canvas[:, :, ::-1])


def _captioned(image: Pixels, places_D2: NDArray[np.float64], captions: list[str], colours: list[tuple[int, int, int]]) -> Pixels:
    """The picture with a caption above each place that has one."""
    import supervision as sv

    named = [row for row, caption in enumerate(captions) if caption]
    if not named:
        return image
    distinct = sorted(set(colours))
    palette = sv.ColorPalette([sv.Color(*colour) for colour in distinct])
    inside_D2 = np.clip(places_D2[named], [0, CAPTION_HEIGHT], [image.shape[1] - 1, image.shape[0] - 1])
    text = sv.LabelAnnotator(color=palette, text_color=sv.Color.WHITE, text_scale=0.4, text_thickness=1, text_padding=2)
    canvas = text.annotate(
        np.ascontiguousarray(image[:, :, ::-1]),  # supervision draws with OpenCV, whose colours are BGR
        sv.Detections(xyxy=np.concatenate([inside_D2, inside_D2 + 1], axis=1).astype(np.float32)),
        labels=[captions[row] for row in named],
        custom_color_lookup=np.array([distinct.index(colours[row]) for row in named]),
    )
    return np.ascontiguousarray(canvas[:, :, ::-1])
