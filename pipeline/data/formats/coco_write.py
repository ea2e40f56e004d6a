"""Columns as COCO JSON: record by record, for a million of them at once would take gigabytes."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from pipeline.data.annotations import Annotations, ImageTable
from pipeline.data.formats.coco_json import Record
from pipeline.errors import DataError

_DUMP = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_SORT_KEYS


def write_coco_json(path: Path, images: ImageTable, annotations: Annotations, categories: list[Record], header: Record) -> None:
    """One record per line, fields in name order: the same content gives the same bytes, and a diff shows what changed."""
    with path.open("wb") as file:
        file.write(b'{"annotations":[')
        _write_lines(file, _annotation_records(images, annotations), path)
        file.write(b'],\n"categories":[')
        _write_lines(file, iter(categories), path)
        file.write(b'],\n"images":[')
        _write_lines(file, _image_records(images), path)
        file.write(b"]")
        for key in sorted(header):
            file.write(b",\n" + _dump(key, path) + b":" + _dump(header[key], path))
        file.write(b"}\n")


# -- reading --


def _write_lines(file: Any, records: Iterator[Record], path: Path) -> None:
    separator = b"\n"
    while block := list(islice(records, 2000)):
        file.write(separator + b",\n".join(_dump(record, path) for record in block))
        separator = b",\n"


def _dump(value: object, path: Path) -> bytes:
    try:
        return orjson.dumps(value, option=_DUMP)
    except TypeError as error:
        raise DataError(path, f"cannot be written: {error}", f"in {str(value)[:200]}") from error


def _image_records(images: ImageTable) -> Iterator[Record]:
    sizes = zip(images.ids_I.tolist(), images.file_names, images.widths_I.tolist(), images.heights_I.tolist(), strict=True)
    for row, (identity, name, width, height) in enumerate(sizes):
        yield {"id": identity, "file_name": name, "width": width, "height": height} | images.extra.get(row, {})


def _annotation_records(images: ImageTable, annotations: Annotations) -> Iterator[Record]:
    boxes_A4 = _corner_and_size(annotations.boxes_A4)
    absent_A: list[bool] = np.asarray(np.isnan(boxes_A4).all(axis=1)).tolist()
    ids, image_A, category_A = annotations.ids_A.tolist(), annotations.image_A.tolist(), annotations.category_A.tolist()
    crowd_A, area_A, image_ids = annotations.crowd_A.tolist(), annotations.area_A.tolist(), images.ids_I.tolist()
    pool, starts = annotations.polygons, annotations.polygons.annotation_starts.tolist()
    for row in range(len(annotations)):
        image = image_A[row]
        record: Record = {
            "id": ids[row],
            "image_id": image_ids[image] if image >= 0 else None,
            "category_id": category_A[row] if category_A[row] != -1 else None,
            "bbox": None if absent_A[row] else boxes_A4[row],
            "area": area_A[row],
            "iscrowd": int(crowd_A[row]),
        }
        if annotations.source_ids[row] is not None:
            record["source_id"] = annotations.source_ids[row]
        if row in annotations.rle:
            record["segmentation"] = annotations.rle[row]
        elif starts[row + 1] > starts[row]:
            record["segmentation"] = [polygon.reshape(-1) for polygon in pool.polygons_of(row)]
        if annotations.keypoints_AK3 is not None:
            record |= _keypoint_fields(annotations.keypoints_AK3[row])
        if annotations.rotated_A5 is not None and not np.isnan(annotations.rotated_A5[row]).all():
            record["rbox"] = annotations.rotated_A5[row]
        if annotations.dense is not None:
            record |= annotations.dense.record(row)
        yield record | annotations.extra.get(row, {})


def _keypoint_fields(points_K3: NDArray[np.float32]) -> Record:
    given = [k for k, point in enumerate(points_K3.tolist()) if not all(value != value for value in point)]
    if not given:
        return {}
    points_K3 = points_K3[: given[-1] + 1]
    return {"keypoints": points_K3.reshape(-1), "num_keypoints": int((points_K3[:, 2] > 0).sum())}


def _corner_and_size(boxes_A4: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x1, y1, x2, y2) as (x, y, w, h). The decimals that the source wrote come back where x + w still gives x2 exactly."""
    corner, far = boxes_A4[:, :2], boxes_A4[:, 2:]
    with np.errstate(invalid="ignore"):
        size = far - corner
        rounded = np.round(size, 9)
        return np.ascontiguousarray(np.concatenate([corner, np.where(corner + rounded == far, rounded, size)], axis=1))
