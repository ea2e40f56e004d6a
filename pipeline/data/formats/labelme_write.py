"""Pictures with labels as labelme JSON, one beside each picture."""

import base64
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from pipeline.data.formats.pixel_masks import cropped, encode_png, mask_of
from pipeline.data.formats.things import Export, Losses, Picture, Thing

Shape = dict[str, Any]
EXTRA = frozenset({"description", "difficult", "occluded", "truncated", "ignore"})
"""Extra fields that it keeps, as a flag or the description."""


def write_labelme(data: Export, out: Path) -> None:
    """A folder per split. Parts of one object, and its keypoints, share a `group_id`."""
    for split, pictures in data.splits.items():
        folder = out if split == "all" else out / split
        for picture in pictures:
            target = folder / picture.name
            picture.copy_to(target)
            if picture.labelled:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.with_suffix(".json").write_bytes(orjson.dumps(_file(picture, data), option=orjson.OPT_INDENT_2))


def _file(picture: Picture, data: Export) -> dict[str, Any]:
    shapes: list[Shape] = []
    for number, thing in enumerate(picture.things, 1):
        regions = _regions(thing, number, f"{picture.name}: object {number}", data.losses)
        shapes += [*regions, *_points(thing, number, data.categories[thing.label].keypoints)]
    return {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": PurePosixPath(picture.name).name,
        "imageData": None,
        "imageHeight": picture.height,
        "imageWidth": picture.width,
    }


def _regions(thing: Thing, number: int, place: str, losses: Losses) -> list[Shape]:
    flags = {name: True for name, value in thing.extra.items() if value is True or value == 1}
    common = {
        "label": thing.name,
        "group_id": number if len(thing.polygons) > 1 or thing.keypoints else None,
        "description": str(thing.extra.get("description", "")),
        "flags": flags | ({"iscrowd": True} if thing.crowd else {}),
    }
    if thing.polygons:
        thing.compare_boxes(losses)
        return [common | {"points": polygon.tolist(), "shape_type": "polygon"} for polygon in thing.polygons]
    if thing.rle is not None:
        left, top, mask = cropped(mask_of(thing.rle, place))
        if not mask.size:
            losses.add("masks", "without a pixel are left out")
            return []
        corners = [[left, top], [left + mask.shape[1] - 1, top + mask.shape[0] - 1]]
        return [common | {"points": corners, "shape_type": "mask", "mask": base64.b64encode(encode_png(mask)).decode()}]
    x1, y1, x2, y2 = thing.box or (0.0, 0.0, 0.0, 0.0)
    return [common | {"points": [[x1, y1], [x2, y2]], "shape_type": "rectangle"}]


def _points(thing: Thing, number: int, names: tuple[str, ...]) -> list[Shape]:
    shapes = []
    for place, (x, y, visibility) in enumerate(thing.keypoints):
        if visibility:
            name = names[place] if place < len(names) else f"point {place + 1}"
            flags = {"hidden": True} if visibility == 1 else {}
            shapes.append({"label": name, "points": [[x, y]], "group_id": number, "shape_type": "point", "flags": flags})
    return shapes
