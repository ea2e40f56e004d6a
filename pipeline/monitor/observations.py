"""What is measured on each picture: its light, a vector of what it shows, and what the detector finds. One table per set."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import DataError
from pipeline.files import write_atomically
from pipeline.labels.looks import look_at
from pipeline.monitor.embedding import FeatureBackend, descriptors
from pipeline.predict.preprocess import Pixels, read_image
from pipeline.predict.session import Detector

LOOKS = ("brightness", "contrast", "sharpness")
"""Columns of `looks_N3`: mean grey level, its deviation, and the logarithm of the sharpest ninth's variance of the Laplacian."""


@dataclass(frozen=True, slots=True)
class Observations:
    """N pictures and the V detections on them, in the order of the pictures."""

    names: tuple[str, ...]
    """Paths relative to the folder of the pictures."""
    looks_N3: NDArray[np.float64]
    embedding_NE: NDArray[np.float32]
    picture_V: NDArray[np.int64]
    """Row of each detection's picture."""
    score_V: NDArray[np.float64]
    label_V: NDArray[np.int64]
    size_V: NDArray[np.float64]
    """Side of a square as large as the box, as a share of that of a square as large as the picture."""

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Observations":
        """The pictures `rows`, in that order; one named twice is there twice."""
        index = np.asarray(rows, np.int64)
        own = [np.flatnonzero(self.picture_V == row) for row in index.tolist()]
        kept = np.concatenate(own) if own else np.zeros(0, np.int64)
        return Observations(
            names=tuple(self.names[row] for row in index.tolist()),
            looks_N3=self.looks_N3[index],
            embedding_NE=self.embedding_NE[index],
            picture_V=np.repeat(np.arange(len(index)), [len(one) for one in own]),
            score_V=self.score_V[kept],
            label_V=self.label_V[kept],
            size_V=self.size_V[kept],
        )

    @classmethod
    def joined(cls, parts: Sequence["Observations"]) -> "Observations":
        """All pictures of `parts`, one part after the other."""
        starts = np.cumsum([0, *(len(part) for part in parts)])
        return cls(
            names=tuple(name for part in parts for name in part.names),
            looks_N3=np.concatenate([part.looks_N3 for part in parts]),
            embedding_NE=np.concatenate([part.embedding_NE for part in parts]),
            picture_V=np.concatenate([part.picture_V + start for part, start in zip(parts, starts[:-1], strict=True)]),
            score_V=np.concatenate([part.score_V for part in parts]),
            label_V=np.concatenate([part.label_V for part in parts]),
            size_V=np.concatenate([part.size_V for part in parts]),
        )

    def write(self, path: Path) -> None:
        """Keep the table as one .npz file, atomically."""
        columns = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "names"}
        buffer = io.BytesIO()
        np.savez(buffer, names=np.array(self.names, np.str_), **columns)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` kept."""
        with np.load(path, allow_pickle=False) as kept:
            columns = {name: kept[name] for name in cls.__dataclass_fields__ if name != "names"}
            return cls(names=tuple(map(str, kept["names"].tolist())), **columns)


def observe(
    detector: Detector, pictures: Sequence[tuple[str, Path]], low_score: float, show: Callable[[int, str], None]
) -> tuple[Observations, list[str]]:
    """Measure each picture (name, path); and what is wrong with those that cannot be read, which are left out.

    `show(done, note)` is told of progress.
    """
    seen: list[Observations] = []
    unreadable: list[str] = []
    for number, (name, path) in enumerate(pictures, 1):
        try:
            seen.append(observed(detector, name, read_image(path), low_score))
        except DataError as error:
            unreadable.append(str(error).splitlines()[0])
        if number % max(1, len(pictures) // 20) == 0 or number == len(pictures):
            show(number, f"{len(unreadable)} unreadable" if unreadable else "")
    return (Observations.joined(seen) if seen else nothing()), unreadable


def observed(detector: Detector, name: str, image_HW3: Pixels, low_score: float) -> Observations:
    """One RGB picture, with detections from `low_score` on."""
    look = look_at(Image.fromarray(image_HW3))
    found = detector.predict(image_HW3, low_score)
    backend = detector.backend
    vector_E = backend.pooled if isinstance(backend, FeatureBackend) else descriptors(image_HW3)
    sides_V2 = (found.boxes_D4[:, 2:] - found.boxes_D4[:, :2]).astype(np.float64)
    return Observations(
        names=(name,),
        looks_N3=np.array([[look.brightness, look.contrast, np.log10(look.sharpness + 1)]]),
        embedding_NE=np.nan_to_num(vector_E, posinf=0, neginf=0)[None],
        picture_V=np.zeros(len(found.scores_D), np.int64),
        score_V=found.scores_D.astype(np.float64),
        label_V=found.labels_D.astype(np.int64),
        size_V=np.sqrt(np.maximum(sides_V2.prod(axis=1), 0) / (found.size[0] * found.size[1])),
    )


def nothing() -> Observations:
    """No picture."""
    empty, rows = np.zeros(0), np.zeros(0, np.int64)
    return Observations((), np.zeros((0, len(LOOKS))), np.zeros((0, 0), np.float32), rows, empty, rows, empty)
