"""Keypoints on a picture, joined as their class says."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipeline.predict.preprocess import Pixels

RADIUS = 3
"""Pixels of a keypoint's dot."""
EDGE = (255, 255, 255)


def draw_skeletons(
    image_HW3: Pixels,
    scale: float,
    keypoints: Sequence[NDArray[np.floating]],
    skeletons: Sequence[Sequence[tuple[int, int]]],
    colours: Sequence[tuple[int, int, int]],
) -> Pixels:
    """A copy of the RGB picture with each object's keypoints [K, 3] as dots in its colour, joined by its class's skeleton.

    The third column is a visibility or a score: a keypoint where it is 0 is not drawn, nor a line to it. `scale` is how many of
    the picture's pixels one of the keypoints' is wide; pairs of skeletons count from 0.
    """
    canvas = Image.fromarray(image_HW3)
    draw = ImageDraw.Draw(canvas)
    for points_K3, skeleton, colour in zip(keypoints, skeletons, colours, strict=True):
        places = [(float(x) * scale, float(y) * scale) if value > 0 else None for x, y, value in points_K3.tolist()]
        for first, second in skeleton:
            ends = [places[end] for end in (first, second) if end < len(places)]
            if len(ends) == 2 and all(end is not None for end in ends):
                draw.line([end for end in ends if end is not None], fill=colour, width=2)
        for place in places:
            if place is not None:
                x, y = place
                draw.ellipse((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill=colour, outline=EDGE)
    return np.asarray(canvas)
