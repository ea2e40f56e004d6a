"""COCO JSON text to columns; `coco_write` is the way back. Layouts of folders around it are `coco.py`'s matter.

Reading keeps every fault that the columns can mark (see `Annotations`); a value of the wrong type is a DataError with file and
position. A record lives as a Python object only while it is read: a million of them at once would take gigabytes.
"""

import json
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations, ImageTable, PolygonPool
from pipeline.data.dense import FIELDS, MASKS, DensePool
from pipeline.data.formats.coco_records import INT32, INT64, PlainRecord, RawRecords, decoded
from pipeline.errors import DataError

Record = dict[str, Any]

COLUMNS = {
    "id",
    "image_id",
    "category_id",
    "bbox",
    "area",
    "iscrowd",
    "segmentation",
    "keypoints",
    "num_keypoints",
    "source_id",
    "rbox",
    *FIELDS,
    MASKS,
}
"""Fields of an annotation that have a column; all others are extra."""


@dataclass(slots=True)
class CocoContent:
    """A COCO file, its long lists not yet parsed into objects."""

    images: Iterable[Any]
    annotations: Iterable[Any]
    categories: Any
    header: Record
    """All other top-level fields."""


def read_coco_json(path: Path) -> CocoContent:
    """The file's parts. DataError with line and column when it is not JSON, or without an images list.

    NaN and Infinity, which Python's json module writes, are read although they are not JSON.
    """
    try:
        data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    try:
        parts: dict[str, Any] = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        images, annotations = (_raws(parts.pop(key, None), f"{path}: {key}") for key in ("images", "annotations"))
        content = {key: msgspec.json.decode(raw) for key, raw in parts.items()}
    except (msgspec.DecodeError, ValueError, RecursionError):
        content = read_slowly(path, data)
        images, annotations = content.pop("images", None), content.pop("annotations", None)
    if images is None:
        raise DataError(path, "has no images list", 'a COCO file is {"images": [...], "annotations": [...], "categories": [...]}')
    for key, value in (("images", images), ("annotations", annotations)):
        if isinstance(value, str | dict) or not isinstance(value, Iterable | None):
            raise DataError(path, f"{key}: must be a list, is {_kind(value)}")
    return CocoContent(images, annotations or [], content.pop("categories", None), content)


def image_table(records: Iterable[Any], place: object) -> ImageTable:
    """Images in file-name order. Every image needs an id and a file name; the rest may be missing."""
    rows: list[tuple[str, int, int, int, Record]] = []
    for number, record in enumerate(records):
        where = f"{place}: images[{number}]"
        record = _object(record, where)
        name, identity = record.pop("file_name", None) or _path_of(record.get("coco_url")), record.pop("id", None)
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}.file_name", f"must be a text, is {_kind(name)}")
        if identity is None:
            raise DataError(f"{where}.id", "is missing: no annotation can belong to this image")
        width, height = (_whole(record.pop(key, 0) or 0, f"{where}.{key}", INT32) for key in ("width", "height"))
        rows.append((name, _whole(identity, f"{where}.id", INT64), width, height, record))
    rows.sort(key=lambda row: row[:2])
    return ImageTable(
        ids_I=np.array([row[1] for row in rows], np.int64),
        file_names=[row[0] for row in rows],
        widths_I=np.array([row[2] for row in rows], np.int32),
        heights_I=np.array([row[3] for row in rows], np.int32),
        extra={i: row[4] for i, row in enumerate(rows) if row[4]},
    )


def _path_of(url: object) -> str | None:
    """LVIS names its pictures by their address alone: folder and name of it (`train2017/000000391895.jpg`)."""
    return "/".join(urlsplit(url).path.split("/")[-2:]) if isinstance(url, str) and "://" in url[:8] else None


def annotation_table(records: Iterable[Any], images: ImageTable, place: object) -> Annotations:
    """COCO's annotation objects as columns, sorted by (image row, id); `label_A` is -1 everywhere until classes are known."""
    columns = _Columns(_first_rows(images))
    if isinstance(records, RawRecords):
        _add_raw(columns, records, place)
    else:
        for number, record in enumerate(records):
            columns.add(record, f"{place}: annotations[{number}]")
    return columns.table()


def _add_raw(columns: "_Columns", records: RawRecords, place: object) -> None:
    plain = msgspec.json.Decoder(PlainRecord).decode
    for number, raw in enumerate(records.take()):
        try:
            record = plain(raw)
        except (msgspec.DecodeError, ValueError, RecursionError):  # not plain: read with care, or refused with its place
            fits = False
        else:
            fits = columns.add_plain(record)
        if not fits:
            columns.add(decoded(raw, f"{records.where}[{number}]"), f"{place}: annotations[{number}]")


def _raws(raw: msgspec.Raw | None, where: str) -> RawRecords | None:
    """The items of a list that is still text. msgspec.ValidationError when it is another thing."""
    raws = None if raw is None else msgspec.json.decode(raw, type=list[msgspec.Raw] | None)
    return None if raws is None else RawRecords(raws, where)


@dataclass(slots=True)
class _Columns:
    """Columns that grow by one record at a time."""

    row_of_image: dict[int, int]
    ids: "array[int]" = field(default_factory=lambda: array("q"))
    image: "array[int]" = field(default_factory=lambda: array("i"))
    category: "array[int]" = field(default_factory=lambda: array("q"))
    boxes: "array[float]" = field(default_factory=lambda: array("d"))
    area: "array[float]" = field(default_factory=lambda: array("d"))
    crowd: "array[int]" = field(default_factory=lambda: array("b"))
    source_ids: list[int | str | None] = field(default_factory=list)
    points: "array[float]" = field(default_factory=lambda: array("d"))
    polygon_starts: "array[int]" = field(default_factory=lambda: array("q", [0]))
    annotation_starts: "array[int]" = field(default_factory=lambda: array("q", [0]))
    rle: dict[int, Record] = field(default_factory=dict)
    keypoints: dict[int, list[float]] = field(default_factory=dict)
    dense: dict[int, tuple[list[list[float]], bytes]] = field(default_factory=dict)
    extra: dict[int, Record] = field(default_factory=dict)
    rotated: dict[int, list[float]] = field(default_factory=dict)

    def add(self, record: object, where: str) -> None:
        """Append one annotation object; what has no column, or does not fit its column, goes to `extra`."""
        given = _object(record, where)
        if "segments_info" in given and "category_id" not in given:
            raise DataError(where, "lists the segments of a panoptic map, no object", "read it by dataset=panoptic")
        row = len(self.ids)
        rest = {key: value for key, value in given.items() if key not in COLUMNS}
        self._add_identity(given, rest, where)
        box = _numbers(given.get("bbox"), f"{where}.bbox")
        turned = _numbers(given.get("rbox"), f"{where}.rbox")
        if len(box) == 5 and not turned:  # a rotated box in the place of the upright one, as rotated COCO has it
            turned, box = box, around(box)
        if len(turned) == 5:
            self.rotated[row] = turned
        elif turned:
            rest["rbox"] = turned
        if len(box) == 4:
            self.boxes.extend((box[0], box[1], box[0] + box[2], box[1] + box[3]))
        else:
            self.boxes.extend([np.nan] * 4)
            rest |= {"bbox": box} if box else {}
        area, crowd = given.get("area"), given.get("iscrowd")
        self.area.append(np.nan if area is None else _number(area, f"{where}.area"))
        self.crowd.append(bool(_whole(int(crowd or 0) if isinstance(crowd, bool | None) else crowd, f"{where}.iscrowd", 1)))
        self._add_segmentation(row, given.get("segmentation"), rest, f"{where}.segmentation")
        self._add_keypoints(row, given, rest, where)
        self._add_dense(row, given, rest, where)
        self.annotation_starts.append(len(self.polygon_starts) - 1)
        if rest:
            self.extra[row] = rest

    def add_plain(self, record: PlainRecord) -> bool:
        """Append a record that fits the columns as it is; False, and nothing done, where it does not after all."""
        row = self.row_of_image.get(record.image_id, -1)
        polygons = record.segmentation or ()
        if row < 0 or any(len(polygon) % 2 for polygon in polygons):
            return False
        self.source_ids.append(record.source_id)
        self.ids.append(record.id)
        self.image.append(row)
        self.category.append(record.category_id)
        x, y, width, height = record.bbox
        self.boxes.extend((x, y, x + width, y + height))
        self.area.append(np.nan if record.area is None else record.area)
        self.crowd.append(record.iscrowd)
        for polygon in polygons:
            self.points.extend(polygon)
            self.polygon_starts.append(len(self.points) // 2)
        self.annotation_starts.append(len(self.polygon_starts) - 1)
        return True

    def table(self) -> Annotations:
        """All rows, sorted. They are moved, not copied: the columns are empty afterwards."""
        boxes_A4 = np.frombuffer(self.boxes, np.float64).reshape(-1, 4)
        count = len(self.ids)
        pool = PolygonPool(
            np.frombuffer(self.points, np.float64).reshape(-1, 2),
            np.array(self.polygon_starts, np.int64),
            np.array(self.annotation_starts, np.int64),
        )
        table = Annotations(
            ids_A=np.array(self.ids, np.int64),
            image_A=np.array(self.image, np.int32),
            category_A=np.array(self.category, np.int64),
            label_A=np.full(count, -1, np.int64),
            boxes_A4=boxes_A4,
            area_A=np.array(self.area, np.float64),
            crowd_A=np.array(self.crowd, np.bool_),
            source_ids=self.source_ids,
            polygons=pool,
            rle=self.rle,
            keypoints_AK3=_keypoint_column(self.keypoints, count),
            extra=self.extra,
            rotated_A5=_rotated_column(self.rotated, count),
            dense=DensePool.of(self.dense, count),
        )
        return table.take(np.lexsort((table.ids_A, table.image_A)))  # stable: equal ids keep the file's order

    def _add_identity(self, given: Record, rest: Record, where: str) -> None:
        identity, image, category = given.get("id"), given.get("image_id"), given.get("category_id")
        known = given.get("source_id")
        if isinstance(identity, str):
            known, identity = (identity if known is None else known), None
        if known is not None and not isinstance(known, str):
            known = _whole(known, f"{where}.source_id", INT64)
        self.source_ids.append(known)
        self.ids.append(-1 if identity is None else _whole(identity, f"{where}.id", INT64))
        row = self.row_of_image.get(image, -1) if type(image) is int else -1
        if row < 0:
            if image is not None and not isinstance(image, str):
                image = _whole(image, f"{where}.image_id", INT64)
                row = self.row_of_image.get(image, -1)
            rest |= {"image_id": image} if row < 0 else {}
        self.image.append(row)
        self.category.append(-1 if category is None else _whole(category, f"{where}.category_id", INT64))

    def _add_segmentation(self, row: int, value: object, rest: Record, where: str) -> None:
        if isinstance(value, dict):
            self.rle[row] = value
            return
        if value is not None and not isinstance(value, list):
            raise DataError(where, f"must be polygons or run lengths, is {_kind(value)}")
        polygons = [_numbers(polygon, f"{where}[{i}]") for i, polygon in enumerate(value or ())]
        if any(len(polygon) % 2 for polygon in polygons):
            rest["segmentation"] = polygons
            return
        for polygon in polygons:
            self.points.extend(polygon)
            self.polygon_starts.append(len(self.points) // 2)

    def _add_keypoints(self, row: int, given: Record, rest: Record, where: str) -> None:
        values = _numbers(given.get("keypoints"), f"{where}.keypoints")
        stated = given.get("num_keypoints")
        if len(values) % 3:
            rest["keypoints"] = values
        elif values:
            self.keypoints[row] = values
        visible = sum(v > 0 for v in values[2::3]) if values else None
        if stated is not None and stated != visible:
            rest["num_keypoints"] = _whole(stated, f"{where}.num_keypoints", INT64)

    def _add_dense(self, row: int, given: Record, rest: Record, where: str) -> None:
        stated = {name: given[name] for name in (*FIELDS, MASKS) if name in given}
        if not stated:
            return
        lists = [_numbers(given.get(name), f"{where}.{name}") for name in FIELDS]
        masks = given.get(MASKS)
        whole = all(part == part and -1 <= part < 2**15 and part == int(part) for part in lists[2])
        if len(set(map(len, lists))) > 1 or not whole or not isinstance(masks, list | None):
            rest |= stated
        else:
            self.dense[row] = lists, b"" if masks is None else orjson.dumps(masks)


def read_slowly(path: Path, data: bytes) -> Record:
    """Python's own reader: takes NaN and Infinity, and knows line and column of what is wrong."""
    try:
        content = json.loads(data)
        json.dumps(content, ensure_ascii=False).encode()  # half surrogate pairs pass the reader and could never be written back
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise DataError(path, f"{place}: not valid JSON ({error.msg})", "repair the file") from error
    except UnicodeDecodeError as error:
        raise DataError(path, f"byte {error.start}: not UTF-8 ({error.reason})", "save the file as UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"not usable JSON ({str(error)[:200]})", "repair the file") from error
    if not isinstance(content, dict):
        raise DataError(path, f"must be a JSON object at the top, is {_kind(content)}")
    return content


def _first_rows(images: ImageTable) -> dict[int, int]:
    rows: dict[int, int] = {}
    for row, identity in enumerate(images.ids_I.tolist()):
        rows.setdefault(identity, row)
    return rows


def _keypoint_column(keypoints: dict[int, list[float]], count: int) -> NDArray[np.float32] | None:
    if not keypoints:
        return None
    column = np.full((count, max(len(values) for values in keypoints.values()) // 3 * 3), np.nan, np.float32)
    with np.errstate(over="ignore"):  # beyond float32 is infinite, and a finding
        for row, values in keypoints.items():
            column[row, : len(values)] = values
    return column.reshape(count, -1, 3)


def _rotated_column(rotated: dict[int, list[float]], count: int) -> NDArray[np.float64] | None:
    if not rotated:
        return None
    column = np.full((count, 5), np.nan)
    for row, values in rotated.items():
        column[row] = values
    return column


def around(rotated: list[float]) -> list[float]:
    """The upright box [x, y, w, h] around a rotated one [cx, cy, w, h, degrees]."""
    x, y, w, h, degrees = rotated
    if not math.isfinite(degrees):
        return [math.nan] * 4
    cosine, sine = abs(math.cos(math.radians(degrees))), abs(math.sin(math.radians(degrees)))
    width, height = w * cosine + h * sine, w * sine + h * cosine
    return [x - width / 2, y - height / 2, width, height]


def _object(record: object, where: str) -> Record:
    if not isinstance(record, dict):
        raise DataError(where, f"must be an object, is {_kind(record)}")
    return record


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise DataError(where, f"must be a number, is {_kind(value)}")
    return min(max(float(value), -1e300), 1e300) if isinstance(value, int) and abs(value) > INT64 else float(value)


def _numbers(value: object, where: str) -> list[float]:
    """A list of numbers, null standing for NaN; empty for null."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise DataError(where, f"must be a list of numbers, is {_kind(value)}")
    kinds = set(map(type, value))
    if kinds <= {float}:
        return value
    return [np.nan if item is None else _number(item, f"{where}[{i}]") for i, item in enumerate(value)]


def _whole(value: object, where: str, limit: int) -> int:
    """An integer of at most `limit` in size, also written as 3.0."""
    if type(value) is int and -limit <= value <= limit:
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= limit:
        return int(value)
    wrong = f"is {value}" if isinstance(value, int | float) and not isinstance(value, bool) else f"is {_kind(value)}"
    raise DataError(where, f"must be an integer of at most {limit}, {wrong}")


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true/false", int: "a number", float: "a number"}
    return "missing" if value is None else names.get(type(value), type(value).__name__) + f" ({str(value)[:40]!r})"
