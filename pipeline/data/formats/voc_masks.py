"""Pascal VOC's PNG files beside the XML: SegmentationClass (a class per pixel) and SegmentationObject (an object's number).

Numbers are palette indices, 0 background, 255 void. Files of colours are read by the devkit's palette, or by the colours of a
`labelmap.txt` (`name:red,green,blue:parts:actions`), which also names the classes; without one they are `dataset.classes`, else
the devkit's twenty. Source: the VOC2012 development kit, sections 3.3 and 4 and its VOCcolormap.
"""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.data.formats.pixel_masks import LARGEST, cropped, rle_at
from pipeline.data.maps import IGNORED, SplitMaps
from pipeline.data.sources import SourceFiles
from pipeline.errors import DataError
from pipeline.predict.map_files import encode_classes

TWENTY = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse"),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The devkit's classes by number, from 1."""
BACKGROUND = "background"
CLASSES, OBJECTS = "SegmentationClass", "SegmentationObject"
LEAST_OVERLAP = 0.5
"""IoU of the boxes from which a mask is that of an object in the XML."""


def palette() -> list[tuple[int, int, int]]:
    """The devkit's 256 colours: the bits of a number dealt to red, green and blue in turn, highest first."""
    found = []
    for number in range(256):
        colour = [0, 0, 0]
        for bit in range(8):
            colour[bit % 3] |= (number >> bit & 1) << 7 - bit // 3
        found.append((colour[0], colour[1], colour[2]))
    return found


@dataclass(slots=True)
class VocMasks:
    """The PNG files of a source."""

    folder: Path
    names: tuple[str, ...]
    """Classes by number, the background first."""
    colours: dict[int, int] | None
    """Number by colour (65536 red + 256 green + blue), where a labelmap.txt says so."""
    guessed: bool = False
    """Nothing says what the numbers mean: they are taken for the devkit's own classes."""
    files: dict[str, dict[str, list[PurePosixPath]]] = field(default_factory=dict)
    """Files by the folder's name and the stem."""

    def of(self, kind: str, picture: PurePosixPath) -> PurePosixPath | None:
        """The picture's file of the folder `kind`: of several devkits' that of its own."""
        found = self.files.get(kind, {}).get(picture.stem, [])
        return max(found, key=lambda path: len({*path.parents} & {*picture.parents}), default=None)

    def paths(self) -> list[PurePosixPath]:
        """All files."""
        return [path for stems in self.files.values() for paths in stems.values() for path in paths]

    def classes(self, path: PurePosixPath) -> NDArray[np.int64]:
        """Class numbers [H, W], 255 void. DataError naming the file for a number that is no class."""
        numbers_HW = _numbers(self.folder / path, self.colours)
        odd = numbers_HW[(numbers_HW >= len(self.names)) & (numbers_HW != IGNORED)]
        if len(odd):
            todo = "name the classes in the order of their numbers: dataset.classes=[...], or a labelmap.txt"
            raise DataError(self.folder / path, f"holds class {odd[0]}; there are {len(self.names) - 1}, from 1", todo)
        return numbers_HW

    def maps(self, pictures: Sequence[str]) -> SplitMaps | None:
        """Semantic maps of the pictures; None where no picture has one."""
        found = [self.of(CLASSES, PurePosixPath(picture)) for picture in pictures]
        if not any(found):
            return None
        names = ["" if path is None else path.as_posix() for path in found]
        return SplitMaps(names, self.folder, self.names, None, None, [], made=self.made)

    def made(self, name: str) -> dict[str, bytes]:
        """The semantic map of SegmentationClass' file `name`."""
        return {"semantic": encode_classes(self.classes(PurePosixPath(name)).astype(np.uint8))} if name else {}


def is_segmentation(path: PurePosixPath) -> bool:
    """Whether a PNG is one of these, not a picture."""
    return path.suffix.lower() == ".png" and path.parent.name in (CLASSES, OBJECTS)


def find_masks(files: SourceFiles, classes: tuple[str, ...] | None) -> VocMasks:
    """All of a source, sorted by name. DataError names a line of labelmap.txt."""
    maps = [path for path in files.with_suffix(".txt") if path.name == "labelmap.txt"]
    colours, names = _label_map(files.folder / maps[0]) if maps else (None, (BACKGROUND, *(classes or TWENTY)))
    found = VocMasks(files.folder, names, colours, guessed=not maps and not classes)
    for path in filter(is_segmentation, files.paths):
        found.files.setdefault(path.parent.name, {}).setdefault(path.stem, []).append(path)
    return found


def add_masks(objects: list[dict[str, Any]], masks: VocMasks, picture: PurePosixPath, size: tuple[int, int]) -> None:
    """Give a picture's objects (records with `class` and maybe `bbox`) the masks of its SegmentationObject, by the overlap of
    their boxes among those of one class; a mask that fits none is an object of its own, its class that of most of its pixels.

    DataError naming the file that is not of the picture's `size` (width, height; 0 = not known), or cannot be read.
    """
    by_class, by_object = masks.of(CLASSES, picture), masks.of(OBJECTS, picture)
    classes_HW = None if by_class is None else masks.classes(by_class)
    numbers_HW = None if by_object is None else _numbers(masks.folder / by_object, None)
    for path, drawn_HW in ((by_class, classes_HW), (by_object, numbers_HW)):
        if path is not None and drawn_HW is not None and min(size) > 0 and drawn_HW.shape != size[::-1]:
            wrong = f"is {drawn_HW.shape[1]} x {drawn_HW.shape[0]}, its picture {picture} {size[0]} x {size[1]}"
            raise DataError(masks.folder / path, wrong, "draw the map at its picture's size")
    if numbers_HW is None:
        return
    strangers = sorted({str(one["class"]) for one in objects} - set(masks.names))
    if strangers and masks.guessed:
        wrong = f"numbers its classes as the devkit's twenty, and its labels name others: {', '.join(strangers[:5])}"
        todo = (
            "say what the numbers mean: a labelmap.txt beside the folders, or dataset.classes=[...] in the order of the numbers"
        )
        raise DataError(masks.folder / str(by_class or by_object), wrong, todo)
    if classes_HW is not None and classes_HW.shape != numbers_HW.shape:
        raise DataError(masks.folder / str(by_object), f"is not of the size of {by_class}", "draw both at the picture's size")
    found = []
    for number in np.unique(numbers_HW).tolist():
        if number not in (0, IGNORED):
            own = None if classes_HW is None else classes_HW[numbers_HW == number]
            found.append(_record(numbers_HW == number, _class_of(own, masks.names)))
    objects += _unmatched(objects, found)


def _record(mask_HW: NDArray[np.bool_], name: str) -> dict[str, Any]:
    left, top, own = cropped(mask_HW)
    return {
        "class": name,
        "bbox": [left, top, own.shape[1], own.shape[0]],
        "area": int(own.sum()),
        "segmentation": rle_at(own, left, top, *mask_HW.shape),
    }


def _class_of(classes_P: NDArray[np.int64] | None, names: tuple[str, ...]) -> str:
    """The class of most pixels that have one; empty where none has."""
    counts = Counter([] if classes_P is None else classes_P[(classes_P > 0) & (classes_P != IGNORED)].tolist())
    return names[counts.most_common(1)[0][0]] if counts else ""


def _unmatched(objects: list[dict[str, Any]], masks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put each mask into the object whose box overlaps its own most, best pairs first; the masks that are left."""
    pairs = [
        (-overlap, place, number)
        for number, mask in enumerate(masks)
        for place, one in enumerate(objects)
        if mask["class"] in ("", one["class"]) and (overlap := _iou(one.get("bbox"), mask["bbox"])) >= LEAST_OVERLAP
    ]
    taken, given = set(), set()
    for _, place, number in sorted(pairs):
        if place not in taken and number not in given:
            taken.add(place)
            given.add(number)
            objects[place] |= {key: masks[number][key] for key in ("segmentation", "area")}
    return [mask for number, mask in enumerate(masks) if number not in given]


def _iou(first: list[float] | None, second: list[float]) -> float:
    if first is None or not np.isfinite(first).all():
        return 0.0
    sides = [min(first[k] + first[k + 2], second[k] + second[k + 2]) - max(first[k], second[k]) for k in (0, 1)]
    both = max(0.0, sides[0]) * max(0.0, sides[1])
    return both / (first[2] * first[3] + second[2] * second[3] - both) if both else 0.0


# -- files --


def _numbers(path: Path, colours: dict[int, int] | None) -> NDArray[np.int64]:
    """Numbers [H, W] of a palette, grey or colour PNG. DataError naming file, and colour that stands for nothing."""
    try:
        with Image.open(io.BytesIO(path.read_bytes()), formats=["PNG"]) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(f"it is of {image.width} x {image.height} pixels")
            image.load()
            if image.mode in ("L", "1") or (image.mode == "P" and colours is None):
                return np.asarray(image).astype(np.int64)
            rgb_HW3 = np.asarray(image.convert("RGB")).astype(np.int64)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, zlib.error ... on damaged files
        raise DataError(path, f"cannot be read as a PNG of classes or objects ({str(error)[:200]})", "draw it anew") from error
    there, place_HW = np.unique(rgb_HW3 @ np.array([65536, 256, 1]), return_inverse=True)
    known = dict(zip(map(_packed, palette()), range(256), strict=True)) if colours is None else colours
    numbers = [known.get(colour, -1) for colour in there.tolist()]
    if -1 in numbers:
        colour = there[numbers.index(-1)]
        said = f"{colour >> 16},{colour >> 8 & 255},{colour & 255}"
        raise DataError(
            path, f"has the colour {said}, which is no class's", "add it to labelmap.txt, or use the devkit's palette"
        )
    return np.array(numbers, np.int64)[place_HW].reshape(rgb_HW3.shape[:2])


def _packed(colour: tuple[int, int, int]) -> int:
    return 65536 * colour[0] + 256 * colour[1] + colour[2]


def _label_map(path: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    """Number by colour, and the classes by number, the background first."""
    colours = {_packed(palette()[IGNORED]): IGNORED}
    names = [BACKGROUND]
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        colour = rest.split(":")[0].split(",")
        if not name.strip() or len(colour) != 3 or not all(c.strip().isascii() and c.strip().isdigit() for c in colour):
            raise DataError(f"{path}: line {number}", "must be name:red,green,blue:parts:actions", "repair the file")
        if name.strip() != BACKGROUND:
            names.append(name.strip())
        own = 0 if name.strip() == BACKGROUND else len(names) - 1
        red, green, blue = (min(int(c.strip()[:4]), 255) for c in colour)
        colours.setdefault(_packed((red, green, blue)), own)
    if len(names) > IGNORED:
        raise DataError(path, f"names {len(names)} classes; a map holds {IGNORED}")
    return {_packed((0, 0, 0)): 0} | colours, tuple(names)
