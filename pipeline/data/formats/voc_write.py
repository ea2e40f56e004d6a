"""Pictures as Pascal VOC: Annotations/, JPEGImages/, ImageSets/Main/, for masks SegmentationClass/ and SegmentationObject/."""

from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np
from PIL import Image

from pipeline.data.formats.painting import NO_MASK, painted
from pipeline.data.formats.things import Export, Picture, Thing
from pipeline.data.formats.voc_masks import CLASSES, OBJECTS, palette
from pipeline.data.formats.xml_file import child, decimal, write_xml
from pipeline.data.maps import IGNORED
from pipeline.errors import DataError

EXTRA = frozenset({"truncated", "difficult", "occluded", "pose", "ignore"})
"""Extra fields that its XML has a place for."""


def write_voc(data: Export, out: Path) -> None:
    """One XML per labelled picture, corners in continuous coordinates (`one_based: false` reads them); a list per split."""
    masked: set[str] = set()
    for split, pictures in data.splits.items():
        for picture in pictures:
            if picture.labelled and any(thing.rle or thing.polygons for thing in picture.things):
                _write_masks(picture, data, out)
                masked.add(picture.name)
            picture.copy_to(out / "JPEGImages" / picture.name)
            if picture.labelled:
                write_xml(out / "Annotations" / f"{PurePosixPath(picture.name).stem}.xml", _annotation(picture, data))
        if split != "all":
            _write_list(out / f"ImageSets/Main/{split}.txt", pictures)
            if masked:
                _write_list(out / f"ImageSets/Segmentation/{split}.txt", [one for one in pictures if one.name in masked])
    if masked:
        colours = zip(("background", *(one.name for one in data.categories)), palette(), strict=False)
        lines = [f"{name.replace(':', '_')}:{red},{green},{blue}::" for name, (red, green, blue) in colours]
        (out / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *lines, ""]))


def _write_list(path: Path, pictures: list[Picture]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{PurePosixPath(picture.name).stem}\n" for picture in pictures))


def _write_masks(picture: Picture, data: Export, out: Path) -> None:
    """Both PNG files of the picture, in the devkit's palette. Objects without a mask are background there."""
    if min(picture.width, picture.height) < 1:
        raise DataError(picture.path, "has no known size: its masks cannot be drawn", "add the picture to the source")
    numbers_HW, lost = painted(picture.things, picture.width, picture.height, picture.path)
    del lost[NO_MASK]  # their boxes stay in the XML
    for why, count in lost.items():
        data.losses.add("objects", why, count)
    classes = np.array([0, *(thing.label + 1 for thing in picture.things)])
    if max(classes.max(), numbers_HW.max()) >= IGNORED:
        todo = f"VOC's PNG files hold {IGNORED - 1} classes, and as many objects of a picture"
        raise DataError(picture.path, f"has {numbers_HW.max()} masks, of class {classes.max()}", todo)
    flat = [value for colour in palette() for value in colour]
    for folder, values_HW in ((OBJECTS, numbers_HW), (CLASSES, classes[numbers_HW])):
        image = Image.fromarray(values_HW.astype(np.uint8))
        image.putpalette(flat)
        path = out / folder / f"{PurePosixPath(picture.name).stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, "PNG")


def _annotation(picture: Picture, data: Export) -> Element:
    root = Element("annotation")
    child(root, "folder", "JPEGImages")
    child(root, "filename", picture.name)
    size = child(root, "size")
    for name, side in (("width", picture.width), ("height", picture.height), ("depth", 3)):
        child(size, name, side)
    child(root, "segmented", int(any(thing.rle or thing.polygons for thing in picture.things)))
    for thing in picture.things:
        if thing.box is None:
            data.losses.add("masks without a box", "left out: VOC holds boxes")
        else:
            _object(root, thing, thing.box)
            if thing.crowd:
                data.losses.add("crowds", "become ordinary objects marked difficult")
    return root


def _object(root: Element, thing: Thing, box: tuple[float, float, float, float]) -> None:
    element = child(root, "object")
    child(element, "name", thing.name)
    child(element, "pose", thing.extra.get("pose") or "Unspecified")
    child(element, "truncated", int(bool(thing.extra.get("truncated"))))
    child(element, "difficult", int(thing.ignored or bool(thing.extra.get("difficult"))))
    child(element, "occluded", int(bool(thing.extra.get("occluded"))))
    corners = child(element, "bndbox")
    for name, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True):
        child(corners, name, decimal(value))
