"""From the network's frame back to the picture: rescale, clip, drop what became empty. The numpy twin of the detector's."""

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray


class RawDetections(TypedDict):
    """What a backend gives for a batch, in the network's frame; row d of image n is real when d < count[n]."""

    boxes: NDArray[np.float32]
    """[N, D, 4] (x1, y1, x2, y2)."""
    scores: NDArray[np.float32]
    """[N, D], falling."""
    labels: NDArray[np.int64]
    """[N, D] class 0..K-1; -1 in padded rows."""
    count: NDArray[np.int64]
    """[N]."""


def to_picture(
    boxes_D4: NDArray[np.float32], size: tuple[int, int], out_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Boxes of one picture in its own pixels, and the rows of `boxes_D4` that they come from.

    `size` is (height, width) of the picture inside the network's input, `out_size` its own. Arithmetic in float32, as the torch
    twin's; rows without area after clipping are dropped.
    """
    scale = np.array([out_size[1] / size[1], out_size[0] / size[0]] * 2, np.float32)
    limit = np.array([out_size[1], out_size[0]] * 2, np.float32)
    scaled_D4 = np.clip(boxes_D4 * scale, np.float32(0), limit)
    kept = np.flatnonzero((scaled_D4[:, 2] > scaled_D4[:, 0]) & (scaled_D4[:, 3] > scaled_D4[:, 1]))
    return scaled_D4[kept], kept
