"""YOLO's label text to the records that COCO would have. Layouts of folders around it are `yolo.py`'s matter.

A line is `class cx cy w h` (a box) or `class x1 y1 x2 y2 x3 y3 ...` (a polygon of three points or more, or the corners of a
rotated box), in shares of the picture's width and height; with keypoints always a box and `x y` or `x y visibility` of each.
Values are kept as they are, out of range or not; only a line that is none of these is an error.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from pipeline.data.formats.coco_json import around
from pipeline.data.formats.quads import box_of
from pipeline.errors import DataError
from pipeline.predict.preprocess import readable_formats

Point = tuple[float, float]

_ORIENTATION = 274
"""EXIF's tag. Its values 1 to 8 say how the stored pixels must be turned before they are shown."""
_TO_STORED: dict[int, Callable[[float, float], Point]] = {
    2: lambda u, v: (1 - u, v),
    3: lambda u, v: (1 - u, 1 - v),
    4: lambda u, v: (u, 1 - v),
    5: lambda u, v: (v, u),
    6: lambda u, v: (v, 1 - u),
    7: lambda u, v: (1 - v, 1 - u),
    8: lambda u, v: (1 - v, u),
}


@dataclass(slots=True)
class YoloObject:
    """One line."""

    category: int
    """The class number as written; it may be none of the dataset's."""
    values: tuple[float, ...]
    """Four for a box (cx, cy, w, h), six or more for a polygon (x, y, x, y ...); in shares of the shown picture's sides."""
    keypoints: tuple[tuple[float, float, float], ...] = ()
    """(x, y, visibility), x and y in shares."""


@dataclass(frozen=True, slots=True)
class LineKind:
    """What the lines of a dataset are."""

    keypoints: int = 0
    """Keypoints behind each box."""
    numbers: int = 3
    """Numbers of a keypoint: 3 with its visibility, 2 without."""
    oriented: bool = False
    """Lines of four points are the corners of rotated boxes."""


class Frame(NamedTuple):
    """What a picture's header says."""

    width: int
    """Of the stored pixels; 0 where the picture is missing or its header cannot be read."""
    height: int
    orientation: int
    """EXIF's, 1 (as stored) to 8."""


def read_labels(path: Path, kind: LineKind) -> list[YoloObject]:
    """All lines of a label file. DataError names the file and the line that is none of its kind."""
    try:
        text = path.read_bytes().decode("utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    lines = enumerate(text.splitlines(), 1)
    return [_object(line.split(), f"{path}: line {number}", kind) for number, line in lines if line.strip()]


def read_frame(path: Path, upright: bool) -> Frame:
    """Size and orientation from the header of a picture; no pixel is decoded. `upright=False` leaves the orientation unread."""
    try:
        with Image.open(path, formats=readable_formats()) as picture:
            orientation = picture.getexif().get(_ORIENTATION, 1) if upright else 1
            return Frame(*picture.size, orientation if orientation in _TO_STORED else 1)
    except Exception:  # Pillow raises nearly anything for a damaged file; finding those is the label checks' job
        return Frame(0, 0, 1)


def record(thing: YoloObject, frame: Frame, kind: LineKind) -> dict[str, Any]:
    """The annotation's fields: box, polygon and area in stored pixels; without a known size the numbers as written."""
    if not frame.width:
        return {"category_id": thing.category, "normalized": [*thing.values, *(v for point in thing.keypoints for v in point)]}
    if len(thing.values) == 4:
        return {"category_id": thing.category} | _box_fields(thing.values, frame) | _keypoint_fields(thing, frame)
    if kind.oriented and len(thing.values) == 8:
        return {"category_id": thing.category} | _rotated_fields(thing.values, frame)
    points = [_pixel((u, v), frame) for u, v in zip(thing.values[::2], thing.values[1::2], strict=True)]
    xs, ys = [x for x, _ in points], [y for _, y in points]
    box = [_least(xs), _least(ys), _least(xs, -1) - _least(xs), _least(ys, -1) - _least(ys)]
    polygon = [value for point in points for value in point]
    return {"category_id": thing.category, "bbox": box, "area": _polygon_area(points), "segmentation": [polygon]}


def to_shown(point: Point, orientation: int) -> Point:
    """A point in shares of the stored picture's sides, in shares of the shown one's: the way back of reading."""
    back = {6: 8, 8: 6}.get(orientation, orientation)
    return point if back == 1 else _TO_STORED[back](*point)


# -- one line --


def _object(words: list[str], place: str, kind: LineKind) -> YoloObject:
    values = tuple(_real(word, place) for word in words)
    expected = 5 + kind.keypoints * kind.numbers
    if kind.keypoints and len(values) != expected:
        wrong = f"has {len(values)} numbers: a box with {kind.keypoints} keypoints of {kind.numbers} has {expected}"
        raise DataError(place, wrong, "kpt_shape in data.yaml says so; repair it, or the line")
    if (not kind.keypoints and len(values) < 5) or (not kind.keypoints and len(values) % 2 == 0):
        wrong = f"has {len(values)} numbers: a box is `class cx cy w h`, a polygon `class x y x y x y ...`"
        todo = "a sixth number is often a score: leave it out" if len(values) == 6 else "repair or remove the line"
        raise DataError(place, wrong, todo)
    if not values[0].is_integer() or abs(values[0]) >= 2**31:
        raise DataError(place, f"the class must be a whole number, is {words[0][:40]!r}", "repair or remove the line")
    keypoints = tuple(_keypoint(values[at : at + kind.numbers]) for at in range(5, expected, kind.numbers))
    return YoloObject(int(values[0]), values[1:5] if kind.keypoints else values[1:], keypoints)


def _keypoint(values: tuple[float, ...]) -> tuple[float, float, float]:
    """With a visibility where the format has none: a point at (0, 0) or outside on the left or top is not labelled."""
    x, y = values[:2]
    return x, y, values[2] if len(values) > 2 else 2.0 * (min(x, y) >= 0 and max(x, y) > 0)


def _real(word: str, place: str) -> float:
    try:
        if "_" in word:  # Python's float would read 1_0 as 10
            raise ValueError
        return float(word)
    except ValueError as error:
        raise DataError(place, f"{word[:40]!r} is not a number", "repair or remove the line") from error


# -- geometry --


def _pixel(point: Point, frame: Frame) -> Point:
    """A point of the shown picture, in shares of its sides, as continuous coordinates of the stored pixels."""
    u, v = _TO_STORED[frame.orientation](*point) if frame.orientation != 1 else point
    return u * frame.width, v * frame.height


def _box_fields(values: tuple[float, ...], frame: Frame) -> dict[str, Any]:
    cx, cy, w, h = values
    x, y = _pixel((cx, cy), frame)
    w, h = (h, w) if frame.orientation >= 5 else (w, h)
    width, height = w * frame.width, h * frame.height  # a negative size stays negative: the label checks find it
    return {"bbox": [x - width / 2, y - height / 2, width, height], "area": max(0.0, width) * max(0.0, height)}


def _keypoint_fields(thing: YoloObject, frame: Frame) -> dict[str, Any]:
    flat: list[float] = []
    for x, y, visibility in thing.keypoints:
        flat += (0.0, 0.0, 0.0) if visibility == 0 else (*_pixel((x, y), frame), visibility)
    return {"keypoints": flat} if flat else {}


def _rotated_fields(values: tuple[float, ...], frame: Frame) -> dict[str, Any]:
    points = [_pixel((u, v), frame) for u, v in zip(values[::2], values[1::2], strict=True)]
    if not all(map(math.isfinite, (value for point in points for value in point))):
        return {"normalized": list(values)}
    box = box_of(points)
    return {"rbox": list(box), "bbox": around(list(box)), "area": box[2] * box[3]}


def _least(values: list[float], sign: int = 1) -> float:
    """The smallest value, the greatest with `sign` -1; NaN when one of them is."""
    return math.nan if any(map(math.isnan, values)) else sign * min(sign * value for value in values)


def _polygon_area(points: list[Point]) -> float:
    """Of a simple polygon, by the shoelace formula."""
    pairs = zip(points, points[1:] + points[:1], strict=True)
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs)) / 2
