"""What each format can hold, read and written: the one list behind `convert`, its losses, and docs/formats.md."""

from dataclasses import dataclass
from enum import StrEnum


class Content(StrEnum):
    """Kinds of labels."""

    BOXES = "boxes"
    POLYGONS = "polygons"
    RLE = "RLE masks"
    KEYPOINTS = "keypoints"
    ROTATED = "rotated boxes"
    CROWD = "crowd or ignored"


B, P, R, K, T, C = Content
Held = frozenset[Content]


@dataclass(frozen=True, slots=True)
class Format:
    """A format as a source or a target."""

    title: str
    source: str | None
    """The `dataset=` that reads it; None where it is a target alone."""
    reads: Held
    writes: Held | None
    """None: there is no writer."""
    lost: str
    """What a target cannot keep, in words, besides the kinds of labels that it does not hold."""
    specification: str
    """Where the format is described."""


_ALL = frozenset(Content)
_YOLO = "ids, areas, extra fields; pictures whose size is unknown"
_ULTRALYTICS = "https://docs.ultralytics.com/datasets"

FORMATS: dict[str, Format] = {
    "coco": Format(
        "COCO and LVIS JSON", "coco", _ALL, _ALL, "semantic and panoptic maps, proposals", "https://cocodataset.org/#format-data"
    ),
    "voc": Format(
        "Pascal VOC XML and PNG",
        "voc",
        frozenset({B, R, C}),
        frozenset({B, P, R, C}),
        "ids, areas; the folders of pictures; semantic maps; polygons become pixels, and a pixel belongs to the last object",
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf",
    ),
    "yolo": Format("YOLO boxes", "yolo", frozenset({B, P, K, T}), frozenset({B}), _YOLO, f"{_ULTRALYTICS}/detect/"),
    "yolo-polygons": Format(
        "YOLO polygons",
        None,
        frozenset(),
        frozenset({B, P, R}),
        f"{_YOLO}; parts of one object are joined, holes filled, boxes without a mask become rectangles",
        f"{_ULTRALYTICS}/segment/",
    ),
    "yolo-pose": Format("YOLO pose", None, frozenset(), frozenset({B, K}), _YOLO, f"{_ULTRALYTICS}/pose/"),
    "yolo-oriented": Format(
        "YOLO oriented boxes",
        None,
        frozenset(),
        frozenset({B, T}),
        f"{_YOLO}; boxes without an angle become rotated ones of 0 degrees",
        f"{_ULTRALYTICS}/obb/",
    ),
    "kitti": Format(
        "KITTI text",
        "kitti",
        frozenset({B, C}),
        frozenset({B, C}),
        "ids, areas, picture sizes, folders, decimals beyond the second, blanks in class names, an ignored box's class",
        "https://www.cvlibs.net/datasets/kitti/eval_object.php",
    ),
    "csv": Format(
        "CSV of boxes",
        "csv",
        frozenset({B}),
        frozenset({B}),
        "ids, areas, extra fields; pictures without objects become unlabelled ones",
        "https://github.com/datitran/raccoon_dataset (TensorFlow's table)",
    ),
    "labelme": Format(
        "labelme JSON",
        "labelme",
        frozenset({B, P, R, K, C}),
        frozenset({B, P, R, K, C}),
        "ids, areas; an object's box beside its mask is the mask's own",
        "https://github.com/wkentaro/labelme",
    ),
    "cvat": Format(
        "CVAT XML 1.1",
        "cvat",
        _ALL,
        _ALL,
        "ids, areas; an object's box beside its mask is the mask's own",
        "https://docs.cvat.ai/docs/manual/advanced/xml_format/",
    ),
    "datumaro": Format(
        "Datumaro JSON",
        "datumaro",
        _ALL,
        _ALL,
        "areas; the upright box around a rotated one is computed anew",
        "https://open-edge-platform.github.io/datumaro/stable/docs/data-formats/formats/datumaro.html",
    ),
    "openimages": Format(
        "Open Images CSV",
        "openimages",
        frozenset({B, C}),
        None,
        "",
        "https://storage.googleapis.com/openimages/web/download_v7.html",
    ),
    "supervisely": Format(
        "Supervisely JSON",
        "supervisely",
        frozenset({B, P, R}),
        None,
        "",
        "https://docs.supervisely.com/data-organization/00_ann_format_navi",
    ),
    "cityscapes": Format(
        "Cityscapes polygons", "cityscapes", frozenset({P, C}), None, "", "https://github.com/mcordts/cityscapesScripts"
    ),
    "masks": Format(
        "instance-mask PNGs", "masks", frozenset({R}), None, "", "https://www.kaggle.com/c/data-science-bowl-2018/data"
    ),
    "panoptic": Format(
        "COCO panoptic JSON and PNG",
        "panoptic",
        frozenset({B, R, C}),
        frozenset({B, P, R, C}),
        "ids, extra fields of objects; objects without a mask; polygons become pixels, and a pixel belongs to the last object",
        "https://cocodataset.org/#format-data",
    ),
}
"""By the word that `--to` and `--from` take."""

SOURCES = tuple(name for name, one in FORMATS.items() if one.source)
TARGETS = tuple(name for name, one in FORMATS.items() if one.writes is not None)


def table() -> str:
    """The formats as a Markdown table."""
    titles = ("format", "read by", "written by", *Content, "what writing loses besides")
    rows = []
    for name, one in FORMATS.items():
        marks = [_mark(content, one) for content in Content]
        read = f"`dataset={one.source}`" if one.source else "(see yolo)"
        written = f"`--to {name}`" if one.writes is not None else "–"
        rows.append((f"[{one.title}]({one.specification.split()[0]})", read, written, *marks, one.lost or "–"))
    lines = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def _mark(content: Content, one: Format) -> str:
    ways = [word for word, held in (("read", one.reads), ("write", one.writes or ())) if content in held]
    return " + ".join(ways) or "–"
