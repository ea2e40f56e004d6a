"""Semantic and panoptic maps of the generated dataset: what is seen of each shape, and the grounds by their texture."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Category, panoptic_categories
from pipeline.data.maps import THINGS, Segments, SplitMaps, map_name
from pipeline.predict.map_files import encode_classes, encode_segments

GROUNDS = ("striped ground", "checked ground", "dotted ground", "graded ground", "clouded ground")
"""Class of a ground by the number of its texture."""
SEMANTIC = (THINGS, *GROUNDS)
"""Classes of the semantic maps."""


def stuff_categories(things: int) -> tuple[Category, ...]:
    """The grounds as panoptic classes; their ids go on after those of `things` classes of objects."""
    return tuple(Category(things + 1 + number, name, "ground") for number, name in enumerate(GROUNDS))


@dataclass(slots=True)
class MapWriter:
    """Writes the maps of a split's pictures, one after the other, below `folder`."""

    folder: Path
    things: tuple[Category, ...]
    """Classes of objects."""
    rows: list[tuple[int, int, int, int, bool, int, list[int]]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def add(
        self,
        file_name: str,
        ground_HW: NDArray[np.uint8],
        covers: Sequence[NDArray[np.float64]],
        categories: Sequence[int],
        annotations: Sequence[int],
    ) -> None:
        """The next picture: the texture of the ground at each pixel, and for each shape in drawing order the share of each pixel
        that it covers, its category and the id of its label."""
        ids_HW, classes_HW = visible(ground_HW, covers)
        stuff = stuff_categories(len(self.things))
        image, self.names = len(self.names), [*self.names, map_name(file_name)]
        owners = dict(zip(range(1, len(covers) + 1), zip(categories, annotations, strict=True), strict=True))
        grounds = (np.unique(classes_HW[classes_HW > 0]) - 1).tolist()
        owners |= {len(covers) + 1 + place: (stuff[number].id, 0) for place, number in enumerate(grounds)}
        for place, number in enumerate(grounds):
            ids_HW[classes_HW == number + 1] = len(covers) + 1 + place
        for number in np.unique(ids_HW).tolist():
            category, annotation = owners[number]
            ys, xs = np.nonzero(ids_HW == number)
            box = [int(xs.min()), int(ys.min()), int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1]
            self.rows.append((image, number, category, annotation, False, len(xs), box))
        for kind, data in (("semantic", encode_classes(classes_HW)), ("panoptic", encode_segments(ids_HW))):
            (self.folder / kind).mkdir(parents=True, exist_ok=True)
            (self.folder / kind / self.names[-1]).write_bytes(data)

    def maps(self) -> SplitMaps:
        """Of all pictures added."""
        listed = panoptic_categories(self.things, stuff_categories(len(self.things)))
        folders = self.folder / "semantic", self.folder / "panoptic"
        return SplitMaps(self.names, folders[0], SEMANTIC, folders[1], Segments.of(self.rows), listed)


def visible(ground_HW: NDArray[np.uint8], covers: Sequence[NDArray[np.float64]]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Number of the shape that is seen at each pixel (from 1, 0 = none), and the semantic classes."""
    ids_HW = np.zeros(ground_HW.shape, np.int32)
    for number, cover_HW in enumerate(covers, 1):
        ids_HW[cover_HW >= 0.5] = number
    return ids_HW, np.where(ids_HW > 0, 0, ground_HW + 1).astype(np.uint8)
