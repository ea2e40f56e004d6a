"""Columns and pools: taking rows equals doing it by hand on lists."""

import numpy as np
import pytest

from pipeline.data.annotations import Annotations
from pipeline.data.formats.coco_json import annotation_table, image_table


def table(count: int, seed: int) -> tuple[list[dict], Annotations]:
    """Records with 0..3 polygons, some with keypoints, run lengths and other fields, and their columns."""
    chance = np.random.default_rng(seed)
    records = []
    for number in range(1, count + 1):
        polygons = [chance.integers(0, 99, 2 * chance.integers(0, 6)).tolist() for _ in range(chance.integers(0, 4))]
        record = {
            "id": number,
            "image_id": int(chance.integers(1, 5)),
            "category_id": 1,
            "bbox": chance.integers(0, 50, 4).tolist(),
        }
        record |= {"segmentation": polygons} if number % 4 else {"segmentation": {"size": [9, 9], "counts": [number]}}
        record |= {"keypoints": chance.integers(1, 9, 6).tolist()} if number % 3 == 0 else {}
        record |= {"note": number} if number % 5 == 0 else {}
        records.append(record)
    images = image_table([{"id": i, "file_name": f"{i}.jpg"} for i in range(1, 5)], "images")
    return sorted(records, key=lambda r: (r["image_id"], r["id"])), annotation_table(records, images, "test")


def check(records: list[dict], columns: Annotations) -> None:
    assert columns.ids_A.tolist() == [r["id"] for r in records]
    assert (columns.image_A + 1).tolist() == [r["image_id"] for r in records]
    for row, record in enumerate(records):
        x, y, w, h = record["bbox"]
        assert columns.boxes_A4[row].tolist() == [x, y, x + w, y + h]
        polygons = [] if isinstance(record["segmentation"], dict) else record["segmentation"]
        assert [p.reshape(-1).tolist() for p in columns.polygons.polygons_of(row)] == polygons
        assert columns.rle.get(row, []) == (record["segmentation"] if isinstance(record["segmentation"], dict) else [])
        assert columns.extra.get(row, {}) == ({"note": record["note"]} if "note" in record else {})
        keypoints = columns.keypoints_AK3[row]
        assert np.isnan(keypoints).all() if "keypoints" not in record else keypoints.reshape(-1).tolist() == record["keypoints"]


@pytest.mark.parametrize("seed", range(5))
def test_take_equals_lists(seed):
    records, columns = table(60, seed)
    check(records, columns)
    chance = np.random.default_rng(seed)
    for rows in (chance.permutation(60)[:25], chance.integers(0, 60, 90), np.zeros(0, np.int64), np.arange(60)):
        check([records[i] for i in rows], columns.take(rows))
    mask = chance.random(60) < 0.4
    check([r for r, kept in zip(records, mask, strict=True) if kept], columns.take(mask))
    check(records[7:33], columns.take(slice(7, 33)))
    check([records[i] for i in (3, 1, 59)], columns.take([3, 1, 59]))
    check([records[i] for i in (5, 2)], columns.take(np.array([9, 5, 2])).take([1, 2]))


def test_renumbered_keeps_the_first_known_source_id():
    images = image_table([{"id": 7, "file_name": "a.jpg"}], "images")
    given = [{"id": 30, "image_id": 7}, {"id": "x9", "image_id": 7}, {"image_id": 7}, {"id": 4, "image_id": 7, "source_id": 88}]
    columns = annotation_table(given, images, "test").renumbered()
    assert columns.ids_A.tolist() == [1, 2, 3, 4]
    assert columns.source_ids == ["x9", None, 88, 30]  # sorted by id; those without a numeric id come first
    assert columns.renumbered().source_ids == ["x9", 2, 88, 30]
