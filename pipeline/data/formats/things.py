"""A split as pictures with objects, one after the other: what writers of other formats than COCO's go through."""

import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.data.dataset import Category, Split
from pipeline.data.formats.catalogue import Content, Held
from pipeline.data.formats.yolo_txt import read_frame
from pipeline.errors import DataError

Corners = tuple[float, float, float, float]


@dataclass(slots=True)
class Losses:
    """What a target does not hold: how many of what, and why or what became of them."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, what: str, why: str, count: int = 1) -> None:
        """Note `count` more."""
        if count:
            self.counts[what, why] += count

    def lines(self) -> list[str]:
        """In the order in which they were first noted."""
        return [f"{count} {what}: {why}" for (what, why), count in self.counts.items()]


@dataclass(slots=True)
class Thing:
    """An object of a known class on a picture that there is."""

    name: str
    label: int
    box: Corners | None
    """(x1, y1, x2, y2) in pixels; None where it is absent or not all numbers."""
    polygons: list[NDArray[np.floating]]
    rle: dict[str, Any] | None
    keypoints: list[tuple[float, float, int]]
    rotated: tuple[float, float, float, float, float] | None
    crowd: bool
    extra: dict[str, Any]

    @property
    def ignored(self) -> bool:
        """A crowd, or marked `ignore`: evaluation counts neither a hit nor a miss there."""
        return self.crowd or bool(self.extra.get("ignore"))

    def compare_boxes(self, losses: Losses) -> None:
        """Note a box that is not the one around the polygons, for targets that keep these alone."""
        if self.box is None or not self.polygons:
            return
        points = np.concatenate(self.polygons)
        around = np.concatenate([points.min(axis=0), points.max(axis=0)])
        if np.abs(around - np.array(self.box)).max() > 0.5:
            losses.add("boxes", "differ from the box around their polygons by more than half a pixel; the polygons stay")


@dataclass(slots=True)
class Picture:
    """A picture and its objects."""

    name: str
    """Below the target's folder of pictures; its stem is no other picture's of the split's folder."""
    path: Path
    """Where it is now, if it is there."""
    width: int
    """As stated, else by its header; 0 = unknown."""
    height: int
    labelled: bool
    """False for one that no label file mentions."""
    things: list[Thing]
    orientation: int = 1
    """EXIF's, where a writer asked for it."""

    def copy_to(self, target: Path) -> None:
        """Copy the file, if it is there."""
        copy_picture(self.path, target)


def copy_picture(source: Path, target: Path) -> bool:
    """Whether there was a picture to copy; folders are made."""
    if not source.is_file():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise DataError(source, f"cannot be copied to {target}: {error.strerror}") from error
    return True


@dataclass(slots=True)
class Export:
    """What a writer gets."""

    categories: tuple[Category, ...]
    splits: dict[str, list[Picture]]
    """By name; "all" where the source has none."""
    losses: Losses


def export(categories: tuple[Category, ...], splits: dict[str, Split], holds: Held, flat: bool, losses: Losses) -> Export:
    """The pictures of all splits with what a target `holds`; the rest is counted. `flat`: it has no folders below a split."""
    names = _unique_stems([name for split in splits.values() for name in split.images.file_names], flat)
    changed = sum(old != new for old, new in names.items())
    losses.add("names of pictures", "changed, so that each label file has a name of its own", changed)
    pictures = {name: list(_pictures(split, names, categories, holds, losses)) for name, split in splits.items()}
    missing = sum(not picture.path.is_file() for part in pictures.values() for picture in part)
    losses.add("pictures", "not in the source; their labels are written", missing)
    return Export(categories, pictures, losses)


def _pictures(
    split: Split, names: dict[str, str], categories: Sequence[Category], holds: Held, losses: Losses
) -> Iterator[Picture]:
    table, images = split.annotations, split.images
    losses.add("labels", "of no picture", int((table.image_A < 0).sum()))
    losses.add("labels", "of no class", int(((table.label_A < 0) & (table.image_A >= 0)).sum()))
    for row, name in enumerate(images.file_names):
        path = split.path(row)
        width, height = int(images.widths_I[row]), int(images.heights_I[row])
        if min(width, height) < 1:
            width, height, _ = read_frame(path, upright=False)
        rows = split.rows_of(row)
        found = [_thing(split, one, categories) for one in range(rows.start, rows.stop) if table.label_A[one] >= 0]
        things = [thing for thing in found if _kept(thing, holds, losses)]
        labelled = not images.extra.get(row, {}).get("unlabelled")
        yield Picture(names[name], path, width, height, labelled, things)


def _thing(split: Split, row: int, categories: Sequence[Category]) -> Thing:
    table = split.annotations
    label = int(table.label_A[row])
    box = tuple(table.boxes_A4[row].tolist())
    polygons = table.polygons.polygons_of(row)
    if not np.isfinite(box).all():
        points = np.concatenate([np.zeros((0, 2)), *polygons])
        box = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist()) if len(points) else ()
    turned = () if table.rotated_A5 is None else tuple(table.rotated_A5[row].tolist())
    given = [] if table.keypoints_AK3 is None else table.keypoints_AK3[row].tolist()
    keypoints = [(x, y, int(v)) if np.isfinite((x, y, v)).all() else (0.0, 0.0, 0) for x, y, v in given]
    keypoints = keypoints[: len(categories[label].keypoints) or None] if any(v for _, _, v in keypoints) else []
    return Thing(
        name=categories[label].name,
        label=label,
        box=box if box and np.isfinite(box).all() else None,
        polygons=[polygon for polygon in polygons if len(polygon) >= 3 and np.isfinite(polygon).all()],
        rle=table.rle.get(row),
        keypoints=keypoints,
        rotated=turned if turned and np.isfinite(turned).all() else None,
        crowd=bool(table.crowd_A[row]),
        extra=table.extra.get(row, {}),
    )


def _kept(thing: Thing, holds: Held, losses: Losses) -> bool:
    """Take from the thing what the target does not hold; False when nothing is left."""
    if thing.ignored and Content.CROWD not in holds:
        losses.add("crowds and ignored objects", "left out: the format cannot mark them")
        return False
    if thing.polygons and Content.POLYGONS not in holds:
        losses.add("masks", "polygons cannot be kept; the box stays")
        thing.polygons = []
    if thing.rle and Content.RLE not in holds:
        losses.add("masks", "run lengths cannot be kept; the box stays")
        thing.rle = None
    if thing.keypoints and Content.KEYPOINTS not in holds:
        losses.add("sets of keypoints", "cannot be kept")
        thing.keypoints = []
    if thing.rotated and Content.ROTATED not in holds:
        losses.add("rotated boxes", "cannot be kept; the upright box around stays")
        thing.rotated = None
    if thing.box is None and not (thing.polygons or thing.rle):
        losses.add("labels", "without a box or mask that the format can hold")
        return False
    return True


def _unique_stems(names: list[str], flat: bool) -> dict[str, str]:
    """A name for each, no two with one stem in one folder."""
    taken: set[str] = set()
    found: dict[str, str] = {}
    for name in sorted(set(names)):
        path = PurePosixPath(name.replace("/", "__") if flat else name)
        stem, number = path.stem, 2
        while (key := (path.parent / stem).as_posix().lower()) in taken:
            stem, number = f"{path.stem}-{number}", number + 1
        taken.add(key)
        found[name] = (path.parent / f"{stem}{path.suffix}").as_posix()
    return found
