"""Pictures with labels as CVAT XML 1.1 for images: annotations.xml, and images/ with a folder per subset."""

from itertools import count
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from pipeline.data.formats.pixel_masks import cropped, mask_of
from pipeline.data.formats.quads import Rotated
from pipeline.data.formats.things import Export, Losses, Picture, Thing
from pipeline.data.formats.xml_file import child, decimal, write_xml


def write_cvat(data: Export, out: Path) -> None:
    """An <image> per labelled picture; several shapes of one object share a `group_id`."""
    root = Element("annotations")
    child(root, "version", "1.1")
    labels = child(child(child(root, "meta"), "task"), "labels")
    for category in data.categories:
        _label(labels, category.name, "skeleton" if category.keypoints else "any", "")
        for name in category.keypoints:
            _label(labels, name, "points", category.name)
    numbers, groups = count(), count(1)
    for split, pictures in data.splits.items():
        for picture in pictures:
            picture.copy_to(out / "images" / ("" if split == "all" else split) / picture.name)
            if not picture.labelled:
                continue
            image = child(root, "image", id=next(numbers), name=picture.name, width=picture.width, height=picture.height)
            if split != "all":
                image.set("subset", split)
            for number, thing in enumerate(picture.things, 1):
                _thing(image, thing, next(groups), f"{picture.name}: object {number}", picture, data)
    write_xml(out / "annotations.xml", root)


def _label(labels: Element, name: str, kind: str, parent: str) -> None:
    label = child(labels, "label")
    child(label, "name", name)
    child(label, "type", kind)
    child(label, "attributes")
    if parent:
        child(label, "parent", parent)


def _thing(image: Element, thing: Thing, group: int, place: str, picture: Picture, data: Export) -> None:
    shapes = _regions(image, thing, place, data.losses)
    names = data.categories[thing.label].keypoints
    if thing.keypoints:
        shapes.append(_skeleton(image, thing, names))
    for shape in shapes:
        shape.set("label", thing.name)
        shape.set("source", "manual")
        shape.set("occluded", str(int(thing.extra.get("occluded") in (1, "1", True))))
        shape.set("z_order", "0")
        if len(shapes) > 1:
            shape.set("group_id", str(group))
        if thing.crowd:
            child(shape, "attribute", "true", name="iscrowd")
        for name, value in thing.extra.items():
            if isinstance(value, str | int | float) and name != "occluded":
                child(shape, "attribute", value, name=name)


def _regions(image: Element, thing: Thing, place: str, losses: Losses) -> list[Element]:
    if thing.polygons:
        thing.compare_boxes(losses)
        return [child(image, "polygon", points=_points(polygon.tolist())) for polygon in thing.polygons]
    if thing.rle is not None:
        left, top, mask = cropped(mask_of(thing.rle, place))
        if not mask.size:
            losses.add("masks", "without a pixel are left out")
            return []
        rows = mask.reshape(-1)
        edges = np.flatnonzero(np.diff(rows.astype(np.int8), prepend=0, append=int(rows[-1]))).tolist()
        runs = np.diff([0, *edges, len(rows)]).tolist()
        sides = {"left": left, "top": top, "width": mask.shape[1], "height": mask.shape[0]}
        return [child(image, "mask", rle=", ".join(map(str, runs)), **sides)]
    if thing.rotated is not None:
        return [_rotated(image, thing.rotated)]
    x1, y1, x2, y2 = map(decimal, thing.box or (0.0, 0.0, 0.0, 0.0))
    return [child(image, "box", xtl=x1, ytl=y1, xbr=x2, ybr=y2)]


def _rotated(image: Element, box: Rotated) -> Element:
    x, y, w, h, degrees = box
    corners = {"xtl": x - w / 2, "ytl": y - h / 2, "xbr": x + w / 2, "ybr": y + h / 2, "rotation": -degrees % 360}
    return child(image, "box", **{name: decimal(value) for name, value in corners.items()})


def _skeleton(image: Element, thing: Thing, names: tuple[str, ...]) -> Element:
    skeleton = child(image, "skeleton")
    for place, (x, y, visibility) in enumerate(thing.keypoints):
        name = names[place] if place < len(names) else f"point {place + 1}"
        hidden, outside = int(visibility == 1), int(visibility == 0)
        child(skeleton, "points", label=name, occluded=hidden, outside=outside, points=_points([(x, y)]))
    return skeleton


def _points(points: list[tuple[float, float]]) -> str:
    return ";".join(f"{decimal(x)},{decimal(y)}" for x, y in points)
