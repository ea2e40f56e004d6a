"""Pictures with boxes as Pascal VOC: Annotations/, JPEGImages/ and ImageSets/Main/."""

from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from pipeline.data.formats.things import Export, Picture, Thing
from pipeline.data.formats.xml_file import child, decimal, write_xml

EXTRA = frozenset({"truncated", "difficult", "occluded", "pose", "ignore"})
"""Extra fields that its XML has a place for."""


def write_voc(data: Export, out: Path) -> None:
    """One XML per labelled picture, corners in continuous coordinates (`one_based: false` reads them); a list per split."""
    for split, pictures in data.splits.items():
        for picture in pictures:
            picture.copy_to(out / "JPEGImages" / picture.name)
            if picture.labelled:
                write_xml(out / "Annotations" / f"{PurePosixPath(picture.name).stem}.xml", _annotation(picture, data))
        if split != "all":
            lists = out / "ImageSets/Main"
            lists.mkdir(parents=True, exist_ok=True)
            (lists / f"{split}.txt").write_text("".join(f"{PurePosixPath(picture.name).stem}\n" for picture in pictures))


def _annotation(picture: Picture, data: Export) -> Element:
    root = Element("annotation")
    child(root, "folder", "JPEGImages")
    child(root, "filename", picture.name)
    size = child(root, "size")
    for name, side in (("width", picture.width), ("height", picture.height), ("depth", 3)):
        child(size, name, side)
    child(root, "segmented", 0)
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
