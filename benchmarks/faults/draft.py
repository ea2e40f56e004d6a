"""A real dataset to plant faults in: a copy whose label files are plain dicts, and whose pictures are links until changed."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from pipeline.data.dataset import Dataset, open_dataset
from pipeline.labels.columns import Columns
from pipeline.labels.pictures import Inspection, inspect_map, inspect_picture

Record = dict[str, Any]
Spoil = Callable[[Record, Record], str | None]
"""Spoils a label (its picture's record is the second argument) and says how, in a few words; None where it left it alone."""


class Place(NamedTuple):
    """A planted fault, and what a finding about it must name."""

    kind: str
    """What was done, in a few words."""
    split: str | None = None
    image: str | None = None
    annotation: int | None = None
    says: str = ""
    """Of a fault of the dataset as a whole: what the finding's reason must hold."""
    twins: tuple[str | int, ...] = ()
    """Pictures or labels that a finding may name as well: the other one of a pair."""


@dataclass(frozen=True)
class Real:
    """A real dataset as `ingest` would have written it, unspoiled."""

    name: str
    folder: Path
    max_pixels: int
    inspections: dict[str, Inspection] = field(default_factory=dict)
    """By file name, what looking at each picture and its map showed."""

    def columns(self) -> Columns:
        """What the checks see."""
        return _columns(open_dataset(self.folder), self, set())


class Draft:
    """A copy of a real dataset, to be spoiled. Label files are written when it is opened."""

    def __init__(self, real: Real, folder: Path, rng: np.random.Generator) -> None:
        self.real, self.folder, self.rng = real, folder, rng
        self.info: Record = json.loads((real.folder / "dataset.json").read_text())
        self.splits = list(self.info["splits"])
        self.labels = {name: json.loads((real.folder / f"{name}.json").read_text()) for name in self.splits}
        """COCO's form by split: images, annotations."""
        self.segments = {
            name: json.loads(path.read_text())
            for name in self.splits
            if (path := real.folder / f"panoptic_{name}.json").is_file()
        }
        """COCO's panoptic form by split, where the data has it."""
        self.changed: set[str] = set()
        """Pictures to be looked at anew."""
        self.opened: Dataset | None = None
        """Set by planters that spoil the source and ingest it themselves."""
        for place in ("images", "panoptic"):
            for path in sorted((real.folder / place).rglob("*")) if (real.folder / place).is_dir() else ():
                link = folder / path.relative_to(real.folder)
                if path.is_file():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(path)

    def images(self) -> list[tuple[str, Record]]:
        """All (split, image record)."""
        return [(split, image) for split in self.splits for image in self.labels[split]["images"]]

    def own(self, split: str, image: Record) -> list[Record]:
        """The labels of a picture."""
        return [label for label in self.labels[split]["annotations"] if label["image_id"] == image["id"]]

    def some_images(
        self, count: int, where: Callable[[str, Record], bool] = lambda split, image: True
    ) -> list[tuple[str, Record]]:
        """Up to `count` pictures, drawn at random."""
        fit = [(split, image) for split, image in self.images() if where(split, image)]
        return [fit[place] for place in self.rng.permutation(len(fit))[:count].tolist()]

    def spoil_labels(self, spoil: Spoil, where: Callable[[Record], bool] = lambda label: True, most: int = 60) -> list[Place]:
        """Spoil labels drawn at random: at most `most`, and a tenth of those that fit, so that most of the data stays sound."""
        image_of = {(split, image["id"]): image for split, image in self.images()}
        fit = [(split, label) for split in self.splits for label in self.labels[split]["annotations"] if where(label)]
        wanted, places = min(most, max(5, len(fit) // 10)), []
        for place in self.rng.permutation(len(fit)).tolist():
            if len(places) == wanted:
                break
            split, label = fit[place]
            image = image_of[split, label["image_id"]]
            if (kind := spoil(label, image)) is not None:
                places.append(Place(kind, split, image["file_name"], label["id"]))
        return places

    def add_label(self, split: str, like: Record, **changes: Any) -> Record:
        """A new label like another one, with an id of its own."""
        labels = self.labels[split]["annotations"]
        identity = max(label["id"] for label in labels) + 1
        new = {key: value for key, value in like.items() if key != "source_id"} | {"id": identity} | changes
        labels.append(new)
        return new

    def picture(self, image: Record) -> Path:
        """The picture's file: from now on a copy, which may be changed."""
        path = self.folder / "images" / image["file_name"]
        self.changed.add(image["file_name"])
        _unlink(path)
        return path

    def add_picture(self, split: str, like: Record, name: str, labels: list[Record]) -> tuple[Record, Path]:
        """A new picture in `split` with copies of `labels`, and the path of its file, which is not there yet."""
        images = self.labels[split]["images"]
        image = like | {"file_name": name, "id": max(one["id"] for one in images) + 1}
        images.append(image)
        self.changed.add(name)
        for label in labels:
            self.add_label(split, label, image_id=image["id"])
        return image, self.folder / "images" / name

    def map_file(self, image: Record) -> Path:
        """The file of the picture's panoptic map: from now on a copy."""
        path = self.folder / "panoptic" / f"{image['file_name'].rpartition('.')[0]}.png"
        self.changed.add(image["file_name"])
        _unlink(path)
        return path

    def columns(self) -> Columns:
        """What the checks see of the spoiled dataset."""
        if self.opened is None:
            for name, content in self.labels.items():
                (self.folder / f"{name}.json").write_text(json.dumps(content))
            for name, content in self.segments.items():
                (self.folder / f"panoptic_{name}.json").write_text(json.dumps(content))
            (self.folder / "dataset.json").write_text(json.dumps(self.info))
        return _columns(self.opened or open_dataset(self.folder), self.real, self.changed)


@contextmanager
def drafted(real: Real, rng: np.random.Generator) -> Iterator[Draft]:
    """A draft in a folder that goes with it."""
    with TemporaryDirectory() as folder:
        yield Draft(real, Path(folder), rng)


def _unlink(path: Path) -> None:
    if path.is_symlink():
        real = Path(os.readlink(path))
        path.unlink()
        shutil.copyfile(real, path)


def _columns(dataset: Dataset, real: Real, changed: set[str]) -> Columns:
    """The dataset's columns; pictures are looked at once, and again where they were changed."""
    inspections: dict[str, list[Inspection]] = {}
    for split in dataset.splits.values():
        inspections[split.name] = rows = []
        for row, name in enumerate(split.images.file_names):
            seen = real.inspections.get(name)
            if seen is None or name in changed:
                with warnings.catch_warnings():  # Pillow's, of bombs: the checks judge them
                    warnings.simplefilter("ignore")
                    seen = inspect_picture(split.path(row), real.max_pixels)._replace(drawn=inspect_map(split, row))
            if name not in changed:
                real.inspections[name] = seen
            rows.append(seen)
    return Columns(dataset, inspections)
