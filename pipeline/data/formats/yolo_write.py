"""Pictures with labels as YOLO: data.yaml, images/, labels/. One kind of line per dataset, which the target's name says."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import yaml

from pipeline.data.formats.outline import outlines_of
from pipeline.data.formats.pixel_masks import mask_of
from pipeline.data.formats.quads import corners_of
from pipeline.data.formats.things import Export, Losses, Picture, Thing
from pipeline.data.formats.yolo_txt import read_frame, to_shown

Values = Sequence[float]
Line = Callable[[Picture, Thing, Losses], Values | None]


def write_yolo(kind: str, data: Export, out: Path) -> None:
    """`kind` is a target of the catalogue. A labelled picture without objects gets an empty label file."""
    keypoints = _keypoint_names(data) if kind == "yolo-pose" else ()
    lines: dict[str, Line] = {
        "yolo": _box,
        "yolo-polygons": _polygon,
        "yolo-pose": partial(_pose, len(keypoints)),
        "yolo-oriented": _oriented,
    }
    for split, pictures in data.splits.items():
        folder = "" if split == "all" else split
        for picture in pictures:
            picture.copy_to(out / "images" / folder / picture.name)
            if picture.labelled:
                path = out / "labels" / folder / PurePosixPath(picture.name).with_suffix(".txt")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(_lines(picture, lines[kind], data.losses)))
    content: dict[str, object] = {"path": "."}
    content |= {split: f"images/{split}" for split in data.splits if split != "all"}
    content |= {"names": dict(enumerate(category.name for category in data.categories))}
    if keypoints:
        content |= {
            "kpt_shape": [len(keypoints), 3],
            "kpt_names": {number: list(keypoints) for number in range(len(data.categories))},
        }
    if kind == "yolo-oriented":
        content |= {"task": "obb"}
    (out / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _lines(picture: Picture, line: Line, losses: Losses) -> list[str]:
    if min(picture.width, picture.height) < 1:
        losses.add("labels", "of pictures of unknown size: YOLO holds shares of it", len(picture.things))
        return []
    picture.orientation = read_frame(picture.path, upright=True).orientation
    made = [(thing.label, line(picture, thing, losses)) for thing in picture.things]
    return [f"{label} {' '.join(f'{value:.10g}' for value in values)}\n" for label, values in made if values is not None]


def _box(picture: Picture, thing: Thing, losses: Losses) -> Values | None:
    if thing.box is None:
        losses.add("masks without a box", "left out")
        return None
    x1, y1, x2, y2 = thing.box
    (u1, v1), (u2, v2) = _share(picture, x1, y1), _share(picture, x2, y2)
    turned = picture.orientation != 1  # a negative size stays negative, but a mirror is none
    w, h = (abs(u2 - u1), abs(v2 - v1)) if turned else (u2 - u1, v2 - v1)
    return (u1 + u2) / 2, (v1 + v2) / 2, w, h


def _polygon(picture: Picture, thing: Thing, losses: Losses) -> Values | None:
    parts = [polygon.tolist() for polygon in thing.polygons] or _outlined(picture, thing, losses)
    if not parts and thing.box is not None:
        losses.add("boxes without a mask", "become rectangles")
        x1, y1, x2, y2 = thing.box
        parts = [[(x1, y1), (x2, y1), (x2, y2), (x1, y2)]]
    if len(parts) > 1:
        losses.add("objects of several parts", "become one outline, its parts joined by bridges without width")
    return _shares(picture, _bridged(parts)) if parts else None


def _outlined(picture: Picture, thing: Thing, losses: Losses) -> list[list[tuple[float, float]]]:
    if thing.rle is None:
        return []
    mask = mask_of(thing.rle, f"{picture.name}: an object of class {thing.name}")
    rings, holes = outlines_of(mask)
    losses.add("run-length masks", "become outlines along their pixels' edges")
    losses.add("holes in masks", "filled", holes)
    return [[(float(x), float(y)) for x, y in ring] for ring in rings]


def _bridged(parts: list[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """One outline through all parts: out to each from the first part's first point, around it, and back."""
    first, *others = [part if _is_clockwise(part) else part[::-1] for part in parts] if len(parts) > 1 else parts
    joined = list(first)
    for part in others:
        joined += [first[0], *part, part[0]]
    return joined + ([first[0]] if others else [])


def _is_clockwise(part: list[tuple[float, float]]) -> bool:
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(part, part[1:] + part[:1], strict=True)) >= 0


def _pose(count: int, picture: Picture, thing: Thing, losses: Losses) -> Values | None:
    box = _box(picture, thing, losses)
    if box is None:
        return None
    points = [*thing.keypoints[:count], *[(0.0, 0.0, 0)] * (count - len(thing.keypoints))]
    return [*box, *(value for x, y, v in points for value in (*(_share(picture, x, y) if v else (0.0, 0.0)), v))]


def _oriented(picture: Picture, thing: Thing, losses: Losses) -> Values | None:
    if thing.rotated is None and thing.box is None:
        losses.add("masks without a box", "left out")
        return None
    if thing.rotated is not None:
        return _shares(picture, corners_of(thing.rotated))
    losses.add("upright boxes", "become rotated ones of 0 degrees")
    x1, y1, x2, y2 = thing.box or (0, 0, 0, 0)
    return _shares(picture, [(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def _shares(picture: Picture, points: Sequence[tuple[float, float]]) -> Values:
    return [value for x, y in points for value in _share(picture, x, y)]


def _share(picture: Picture, x: float, y: float) -> tuple[float, float]:
    """In shares of the picture as it is shown: YOLO's own training turns pictures by their EXIF orientation."""
    return to_shown((x / picture.width, y / picture.height), picture.orientation)


def _keypoint_names(data: Export) -> tuple[str, ...]:
    """Of the class with most of them: all classes of a YOLO dataset share them."""
    named = [category.keypoints for category in data.categories if category.keypoints]
    most = max((len(thing.keypoints) for part in data.splits.values() for one in part for thing in one.things), default=0)
    longest = max(named, key=len, default=tuple(f"point {number}" for number in range(1, most + 1)))
    data.losses.add("classes", "get the keypoint names of the class with most", sum(names != longest for names in named))
    return longest
