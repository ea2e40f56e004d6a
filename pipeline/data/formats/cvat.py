"""CVAT XML 1.1, "for images" and "for video". Reader; `cvat_write` is the way back.

Coordinates are continuous pixels; a box's `rotation` is in degrees clockwise about its centre. Polygons of one `group_id` and
label are the parts of one object; a skeleton and another shape of one group are one object. In tracks the frames that are
`outside`, where the object is not on the picture, are left out. A mask's `rle` runs along the rows of its region, outside first.
Source: docs.cvat.ai/docs/manual/advanced/xml_format/.
"""

import math
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

import numpy as np

from pipeline.data.config import CvatDataset
from pipeline.data.dataset import Category
from pipeline.data.formats.coco_json import COLUMNS, around
from pipeline.data.formats.labelled import Labelled, Record, assemble, box_fields, polygon_fields
from pipeline.data.formats.pictures import find_pictures, stated_name, with_suffixes
from pipeline.data.formats.pixel_masks import LARGEST, mask_fields
from pipeline.data.formats.xml_file import parse_xml, real
from pipeline.data.sources import SourceData, SourceFiles, list_files
from pipeline.data.splits import WORDS, split_named
from pipeline.errors import DataError

ELLIPSE = 64
"""Points of the polygon that an ellipse becomes."""
_SHAPES = {"box", "polygon", "polyline", "points", "mask", "skeleton", "ellipse", "cuboid"}


def read_cvat(cfg: CvatDataset, source: Path) -> SourceData:
    """All splits (subsets) of a CVAT source. DataError names the XML file, and the image or track and its shape."""
    files = list_files(source)
    roots = {path: parse_xml(files.folder / path) for path in files.with_suffix(".xml")}
    roots = {path: root for path, root in roots.items() if root.tag == "annotations"}
    if not roots:
        raise DataError(files.folder, "has no CVAT file (.xml with <annotations>)", "for Pascal VOC use dataset=voc")
    classes: dict[str, tuple[str, ...]] = {}
    entries: list[Labelled] = []
    for path, root in roots.items():
        classes |= {name: points for name, points in _labels(root).items() if points or name not in classes}
        entries += _entries(files, path, root, classes, only=len(roots) == 1)
    categories = [Category(number, name, keypoints=points) for number, (name, points) in enumerate(classes.items(), 1)]
    return assemble(files, entries, categories, used=roots)


def _labels(root: Element) -> dict[str, tuple[str, ...]]:
    """Classes in their order, with the names of a skeleton's points."""
    found: dict[str, list[str]] = {}
    for label in root.iterfind("./meta//labels/label"):
        name, parent = (label.findtext("name") or "").strip(), (label.findtext("parent") or "").strip()
        if parent:
            found.setdefault(parent, []).append(name)
        elif name:
            found.setdefault(name, [])
    return {name: tuple(dict.fromkeys(points)) for name, points in found.items()}


def _entries(
    files: SourceFiles, path: PurePosixPath, root: Element, classes: dict[str, tuple[str, ...]], only: bool
) -> list[Labelled]:
    place = str(files.folder / path)
    pictures = [*root.iterfind("image")]
    found: list[tuple[str, Labelled]] = []
    for number, image in enumerate(pictures, 1):
        where = f"{place}: image {number}"
        name = stated_name((image.get("name") or "").strip(), where)
        if name in (".", ""):
            raise DataError(where, "has no name", "repair or remove it")
        things = [(shape, f"{where}: {shape.tag} {k}") for k, shape in enumerate(image, 1) if shape.tag in _SHAPES]
        width, height = (max(0, _side(image.get(key), where, key)) for key in ("width", "height"))
        subset = (image.get("subset") or "").strip().lower()
        entry = Labelled(PurePosixPath(name), path, _objects(things, width, height, classes), width, height)
        entry.split = WORDS.get(subset) or split_named(subset)
        tags = [tag.get("label") or "" for tag in image.iterfind("tag")]
        entry.extra = {"tags": tags} if tags else {}
        found.append((name, entry))
    found += _frames(root, path, place, classes)
    _find(files, path, found, only)
    return [entry for _, entry in found]


def _frames(root: Element, path: PurePosixPath, place: str, classes: dict[str, tuple[str, ...]]) -> list[tuple[str, Labelled]]:
    """The pictures of a video: `frame_000010` has the shapes of all tracks at frame 10 that are not outside."""
    frames: dict[int, list[tuple[Element, str]]] = {}
    size = root.find("./meta//original_size")
    stated = (None if size is None else size.findtext(key) for key in ("width", "height"))
    width, height = (max(0, _side(text, f"{place}: original_size", "width, height")) for text in stated)
    for number, track in enumerate(root.iterfind("track"), 1):
        for k, shape in enumerate(track, 1):
            where = f"{place}: track {number}: {shape.tag} {k}"
            if shape.tag in _SHAPES:
                frame = _side(shape.get("frame"), where, "frame")
                things = frames.setdefault(frame, [])
                if shape.get("outside") != "1":
                    shape.set("label", track.get("label") or "")
                    things.append((shape, where))
    found = []
    for frame, things in sorted(frames.items()):
        name = f"frame_{frame:06d}"
        found.append((name, Labelled(PurePosixPath(name), path, _objects(things, width, height, classes), width, height)))
    return found


def _find(files: SourceFiles, path: PurePosixPath, found: list[tuple[str, Labelled]], only: bool) -> None:
    """Set the entries' pictures: those of each subset for themselves, since subsets may have equal names."""
    for split in {entry.split for _, entry in found}:
        members = [(name, entry) for name, entry in found if entry.split == split]
        named = split or split_named(path.stem) or "all"
        stated = with_suffixes([name for name, _ in members], files.pictures)
        single = only and len(members) == len(found)
        for (_, entry), picture in zip(members, find_pictures(stated, named, path, files.pictures, single), strict=True):
            entry.picture, entry.split = PurePosixPath(picture), split or split_named(path.stem)


def _objects(shapes: list[tuple[Element, str]], width: int, height: int, classes: dict[str, tuple[str, ...]]) -> list[Record]:
    records: list[Record] = []
    parts: dict[tuple[str, str], tuple[Record, list[list[float]]]] = {}
    skeletons: list[tuple[str, Record]] = []
    groups: dict[tuple[str, str], list[Record]] = {}
    for shape, where in shapes:
        label, group = (shape.get("label") or "").strip(), shape.get("group_id") or ""
        group = "" if group == "0" else group
        record: Record = {"class": label} | _region(shape, where, width, height, classes) | _marks(shape)
        if shape.tag == "skeleton":
            skeletons.append((group, record))
            continue
        if shape.tag == "polygon" and group:
            earlier, polygons = parts.setdefault((group, label), (record, []))
            polygons += record["segmentation"]
            if earlier is not record:
                earlier |= polygon_fields(polygons)
                continue
        groups.setdefault((group, label), []).append(record)
        records.append(record)
    for group, record in skeletons:
        owners = groups.get((group, record["class"]), []) if group else []
        if len(owners) == 1:
            owners[0]["keypoints"] = record["keypoints"]
        else:
            records.append(record)
    return records


def _region(shape: Element, where: str, width: int, height: int, classes: dict[str, tuple[str, ...]]) -> Record:
    def number(key: str) -> float:
        value = real(shape.get(key), where, key)
        return math.nan if value is None else value

    if shape.tag == "box":
        corners = number("xtl"), number("ytl"), number("xbr"), number("ybr")
        return _turned(*corners, real(shape.get("rotation"), where, "rotation") or 0.0)
    if shape.tag == "skeleton":
        return _skeleton(shape, where, classes.get((shape.get("label") or "").strip(), ()))
    if shape.tag == "mask":
        return _mask(shape, where, width, height)
    if shape.tag == "ellipse":
        rotation = real(shape.get("rotation"), where, "rotation") or 0.0
        return polygon_fields([_ellipse(number("cx"), number("cy"), number("rx"), number("ry"), rotation)]) | {"shape": "ellipse"}
    if shape.tag == "cuboid":
        xs, ys = ([number(key) for key in shape.attrib if key[0] == axis and key[1:2] in ("t", "b")] for axis in "xy")
        return (box_fields(min(xs), min(ys), max(xs), max(ys)) if xs and ys else {}) | {"shape": "cuboid"}
    flat = _points(shape, where)
    if shape.tag == "polygon":
        return polygon_fields([flat])
    whole = polygon_fields([flat])
    box = {key: whole[key] for key in ("bbox",) if key in whole and shape.tag == "polyline"}
    return box | {"shape": shape.tag, "points": flat}


def _points(shape: Element, where: str) -> list[float]:
    """`x,y;x,y;...` laid flat."""
    words = (shape.get("points") or "").replace(";", ",").split(",")
    return [value for word in words if (value := real(word, where, "points")) is not None]


def _turned(x1: float, y1: float, x2: float, y2: float, clockwise: float) -> Record:
    if clockwise == 0:
        return box_fields(x1, y1, x2, y2)
    degrees = -math.remainder(clockwise, 360) if math.isfinite(clockwise) else math.nan
    box = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, degrees]
    return {"rbox": box, "bbox": around(box), "area": max(0.0, x2 - x1) * max(0.0, y2 - y1)}


def _ellipse(x: float, y: float, rx: float, ry: float, clockwise: float) -> list[float]:
    turn = math.radians(clockwise) if math.isfinite(clockwise) else math.nan
    cosine, sine = math.cos(turn), math.sin(turn)
    flat: list[float] = []
    for number in range(ELLIPSE):
        along, across = rx * math.cos(2 * math.pi * number / ELLIPSE), ry * math.sin(2 * math.pi * number / ELLIPSE)
        flat += (x + along * cosine - across * sine, y + along * sine + across * cosine)
    return flat


def _skeleton(shape: Element, where: str, names: tuple[str, ...]) -> Record:
    """Keypoints in the order of the label's points; the box around those that are on the picture."""
    found: dict[str, tuple[float, float, int]] = {}
    for k, point in enumerate(shape.iterfind("points"), 1):
        flat = _points(point, f"{where}: points {k}")
        if point.get("outside") != "1" and len(flat) == 2:
            found[(point.get("label") or "").strip()] = (flat[0], flat[1], 1 if point.get("occluded") == "1" else 2)
    order = names or tuple(found)
    keypoints = [value for name in order for value in found.get(name, (0.0, 0.0, 0))]
    box = polygon_fields([[value for x, y, _ in found.values() for value in (x, y)]]).get("bbox")
    return {"keypoints": keypoints} | ({"bbox": box} if box else {})


def _mask(shape: Element, where: str, width: int, height: int) -> Record:
    """Run lengths as COCO's; those that do not fill the mask's region are kept as text beside its box."""
    left, top, w, h = (_side(shape.get(key), where, key) for key in ("left", "top", "width", "height"))
    text = shape.get("rle") or ""
    runs = [_side(word, where, "rle") for word in text.split(",") if word.strip()]
    if min([*runs, w, h, width, height], default=0) < 0 or sum(runs) != w * h or w * h > LARGEST or not w * h:
        return {"bbox": [left, top, w, h], "mask_rle": text}
    drawn = np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, np.int64)).reshape(h, w)
    return mask_fields(drawn, left, top, height, width)


def _marks(shape: Element) -> Record:
    """Attributes as extra fields; `iscrowd` as COCO's."""
    record: Record = {"occluded": 1} if shape.get("occluded") == "1" else {}
    for attribute in shape.iterfind("attribute"):
        name, text = (attribute.get("name") or "").strip(), (attribute.text or "").strip()
        if name.lower() in ("iscrowd", "is_crowd"):
            record["iscrowd"] = int(text.lower() in ("true", "1"))
        elif name and text and name not in COLUMNS and name not in ("class", "points", "shape"):
            record[name] = text
    return record


def _side(text: str | None, where: str, key: str) -> int:
    value = real(text, where, key)
    if value is None:
        return 0
    if not abs(value) < 2**31:
        raise DataError(where, f"{key}: {value:g} is no number of pixels", "repair the file")
    return int(value)
