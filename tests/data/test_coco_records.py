"""Annotations read by their type against the same read field by field: one result, whatever is in them."""

import json
from dataclasses import fields
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.annotations import Annotations, ImageTable, PolygonPool
from pipeline.data.formats import coco_json
from pipeline.data.formats.coco_json import annotation_table, image_table
from pipeline.data.formats.coco_records import RawRecords
from pipeline.errors import DataError

PLAIN = {"id": 7, "image_id": 1, "category_id": 3, "bbox": [1, 2.5, 3, 4], "area": 12, "iscrowd": 0}
PLAIN |= {"segmentation": [[1, 2, 3, 4.5, 5, 6], [7.25, 8, 9, 10, 11, 12]]}

numbers = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.just(10**305))
odd = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.just(2**63), st.just("7"), st.just(2.0), st.just([]), st.just({})
)
values = {
    "id": st.one_of(st.integers(-(2**63), 2**64), odd),
    "image_id": st.one_of(st.sampled_from([1, 2, 9]), odd),
    "category_id": st.one_of(st.integers(0, 90), odd),
    "bbox": st.one_of(st.lists(numbers, min_size=4, max_size=4), st.lists(numbers, max_size=5), odd),
    "area": st.one_of(numbers, odd),
    "iscrowd": st.one_of(st.sampled_from([0, 1, -1, 2, 1.0]), odd),
    "segmentation": st.one_of(
        st.lists(st.lists(numbers, max_size=6), max_size=3), st.just({"size": [4, 4], "counts": [16]}), odd
    ),
    "source_id": st.one_of(st.integers(-5, 5), st.just("name"), odd),
}
extra = {"score": st.floats(0, 1), "keypoints": st.just([1.0, 2.0, 2.0]), "attributes": st.just({"occluded": True})}


def images() -> ImageTable:
    return image_table([{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}], "here")


def raw(records: list[dict[str, Any]]) -> RawRecords:
    return RawRecords(msgspec.json.decode(json.dumps(records), type=list[msgspec.Raw]), "file: annotations")


def outcome(records: Any) -> Annotations | str:
    try:
        return annotation_table(records, images(), "file")
    except DataError as error:
        return str(error)


def assert_equal(one: Any, other: Any, name: str) -> None:
    if isinstance(one, np.ndarray):
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)
    elif isinstance(one, Annotations | PolygonPool):
        for field in fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name), field.name)
    else:
        assert one == other, name


@settings(max_examples=300, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional=values | extra), max_size=4))
def test_both_ways_give_the_same(changes: list[dict[str, Any]]) -> None:
    records = [PLAIN | change for change in changes]
    assert_equal(outcome(raw(records)), outcome(json.loads(json.dumps(records))), "all")


@pytest.mark.parametrize(
    "change", [{}, {"area": None}, {"segmentation": []}, {"segmentation": None}, {"source_id": "a"}, {"source_id": 4}]
)
def test_what_nearly_all_records_are_is_read_by_its_type(monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]) -> None:
    """Else a million of them take minutes, and nobody would know why."""
    monkeypatch.setattr(coco_json._Columns, "add", lambda *_: pytest.fail("was read field by field"))
    table = annotation_table(raw([PLAIN | change, PLAIN | {"image_id": 2, "id": 1}]), images(), "file")
    assert table.ids_A.tolist() == [7, 1] and table.boxes_A4[0].tolist() == [1, 2.5, 4, 6.5]


def test_the_text_is_let_go_while_it_is_read() -> None:
    records = raw([PLAIN])
    assert len(list(records)) == 1 and list(records) == []


def test_a_record_that_is_no_json_inside_is_named() -> None:
    records = RawRecords([msgspec.Raw(orjson.dumps(PLAIN)), msgspec.Raw(b'{"id": "\xff"}')], "file: annotations")
    with pytest.raises(DataError, match=r"file: annotations\[1\]: not valid JSON"):
        annotation_table(records, images(), "file")
