"""COCO text to columns and back: nothing lost, faults kept, wrong types named with their place."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.annotations import Annotations, ImageTable
from pipeline.data.dataset import parse_categories, read_split
from pipeline.data.formats.coco_json import annotation_table, image_table, read_coco_json
from pipeline.data.formats.coco_write import write_coco_json
from pipeline.errors import DataError

PLAIN = {"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 8}], "categories": [{"id": 1, "name": "cat"}]}


def read(path: Path) -> tuple[ImageTable, Annotations, list, dict]:
    content = read_coco_json(path)
    images = image_table(content.images, path)
    return images, annotation_table(content.annotations, images, path), content.categories, content.header


def through(path: Path, out: Path) -> tuple[dict, dict]:
    """The file as Python's json reads it, and so what came out of our reader and writer."""
    write_coco_json(out, *read(path))
    return json.loads(path.read_text()), json.loads(out.read_text())


def one(tmp_path: Path, text: str | bytes | None = None, **annotation: object) -> tuple[ImageTable, Annotations]:
    """Read a file with one image and one annotation (or with `text` for the whole)."""
    path = tmp_path / "labels.json"
    content = (
        json.dumps(PLAIN | {"annotations": [{"id": 1, "image_id": 1, "category_id": 1} | annotation]}) if text is None else text
    )
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read(path)[:2]


@pytest.mark.parametrize(
    "name", ["instances_train2017", "instances_val2017", "person_keypoints_train2017", "person_keypoints_val2017"]
)
def test_real_file_comes_back_whole(shared, tmp_path, name):
    before, after = through(shared / f"data/coco_mini_by/annotations/{name}.json", tmp_path / "out.json")
    assert (
        after["info"] == before["info"]
        and after["licenses"] == before["licenses"]
        and after["categories"] == before["categories"]
    )
    assert after["images"] == sorted(before["images"], key=lambda image: image["file_name"])
    assert {a["id"]: a for a in after["annotations"]} == {a["id"]: a for a in before["annotations"]}
    images = [image["id"] for image in after["images"]]
    order = [(images.index(a["image_id"]), a["id"]) for a in after["annotations"]]
    assert order == sorted(order)


def test_second_round_trip_gives_the_same_bytes(shared, tmp_path):
    for source in (shared / "data/coco_json_fixtures/hotcoco").glob("*gt.json"):
        through(source, tmp_path / "one.json")
        through(tmp_path / "one.json", tmp_path / "two.json")
        assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


def test_faults_are_kept(shared, tmp_path):
    """The judge's own broken file: repeated image id, dangling image, unknown category, no height, repeated annotation id."""
    source = shared / "data/coco_json_fixtures/hotcoco/healthcheck_bad.json"
    split = read_split(source, "train", [1, 2], tmp_path)
    assert split.images.ids_I.tolist() == [1, 1, 2] and split.images.heights_I.tolist() == [100, 100, 0]
    assert split.annotations.image_A.tolist() == [-1, 0, 0, 0]
    assert split.annotations.extra == {0: {"image_id": 999}}
    assert split.annotations.ids_A.tolist() == [3, 1, 1, 4]
    assert split.annotations.category_A.tolist() == [1, 1, 2, 999] and split.annotations.label_A.tolist() == [0, 0, 1, -1]
    assert split.rows_of(-1) == slice(0, 1) and split.rows_of(0) == slice(1, 4) and split.rows_of(1) == slice(4, 4)
    before, after = through(source, tmp_path / "out.json")
    assert sorted(map(str, (sorted(a.items()) for a in after["annotations"]))) == sorted(
        map(
            str,
            (
                sorted({**a, "bbox": [float(v) for v in a["bbox"]], "area": float(a["area"])}.items())
                for a in before["annotations"]
            ),
        )
    )


def test_nan_and_infinity_of_python_are_read_and_become_null(tmp_path):
    text = '{"images":[{"id":1,"file_name":"a.jpg"}],"annotations":[{"id":1,"image_id":1,"bbox":[NaN,1,Infinity,4],"area":NaN}]}'
    images, annotations = one(tmp_path, text)
    assert np.isnan(annotations.boxes_A4[0]).tolist() == [True, False, True, False]
    write_coco_json(tmp_path / "out.json", images, annotations, [], {})
    (record,) = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert record["bbox"] == [None, 1, None, 4] and record["area"] is None
    again = one(tmp_path, (tmp_path / "out.json").read_text())[1]
    np.testing.assert_array_equal(again.boxes_A4, annotations.boxes_A4)


@pytest.mark.parametrize("box", [None, "absent", []])
def test_absent_box(tmp_path, box):
    images, annotations = one(tmp_path, **({} if box == "absent" else {"bbox": box}))
    assert np.isnan(annotations.boxes_A4).all() and not annotations.extra
    write_coco_json(tmp_path / "out.json", images, annotations, [], {})
    assert json.loads((tmp_path / "out.json").read_text())["annotations"][0]["bbox"] is None


@pytest.mark.parametrize(
    "kept",
    [
        {"bbox": [1.0, 2.0, 3.0]},
        {"segmentation": [[1.0, 2.0, 3.0]]},
        {"keypoints": [1.0, 2.0]},
        {"num_keypoints": 7},
        {"image_id": 55},
    ],
    ids=lambda kept: next(iter(kept)),
)
def test_what_fits_no_column_is_kept_beside(tmp_path, kept):
    images, annotations = one(tmp_path, **kept)
    assert annotations.extra == {0: kept}
    write_coco_json(tmp_path / "out.json", images, annotations, [], {})
    assert kept.items() <= json.loads((tmp_path / "out.json").read_text())["annotations"][0].items()


@pytest.mark.parametrize(
    ("annotation", "place"),
    [
        ({"bbox": "1,2,3,4"}, "annotations[0].bbox: must be a list of numbers"),
        ({"bbox": [1, "2", 3, 4]}, "annotations[0].bbox[1]: must be a number, is a text"),
        ({"bbox": [1, True, 3, 4]}, "annotations[0].bbox[1]: must be a number, is true/false"),
        ({"bbox": {"x": 1}}, "annotations[0].bbox: must be a list"),
        ({"area": "big"}, "annotations[0].area: must be a number"),
        ({"id": [1]}, "annotations[0].id: must be an integer"),
        ({"id": 2**70}, "annotations[0].id: must be an integer"),
        ({"image_id": {}}, "annotations[0].image_id: must be an integer"),
        ({"category_id": "cat"}, "annotations[0].category_id: must be an integer"),
        ({"category_id": 1.5}, "annotations[0].category_id: must be an integer"),
        ({"iscrowd": "no"}, "annotations[0].iscrowd: must be an integer"),
        ({"segmentation": "mask"}, "annotations[0].segmentation: must be polygons"),
        ({"segmentation": [1, 2, 3]}, "annotations[0].segmentation[0]: must be a list of numbers"),
        ({"segmentation": [[1, 2], [3, "4"]]}, "annotations[0].segmentation[1][1]: must be a number"),
        ({"keypoints": [1, 2, [3]]}, "annotations[0].keypoints[2]: must be a number"),
        ({"num_keypoints": "3"}, "annotations[0].num_keypoints: must be an integer"),
    ],
)
def test_wrong_types_name_file_and_field(tmp_path, annotation, place):
    with pytest.raises(DataError) as caught:
        one(tmp_path, **annotation)
    assert str(caught.value).startswith(f"{tmp_path / 'labels.json'}: {place}")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "line 1, column 1: not valid JSON"),
        ('{"images": [\n  {"id": 1,}\n]}', "line 2, column 12: not valid JSON"),
        ('{"images": [{"id": 1}', "line 1, column 22: not valid JSON"),
        ("[1, 2]", "must be a JSON object at the top, is a list"),
        ("null", "must be a JSON object at the top"),
        ("{}", "has no images list"),
        ('{"images": null}', "has no images list"),
        ('{"images": {"a": 1}}', "images: must be a list, is an object"),
        ('{"images": "a.jpg"}', "images: must be a list, is a text"),
        ('{"images": [], "annotations": 3}', "annotations: must be a list, is a number"),
        ('{"images": [3]}', "images[0]: must be an object"),
        ('{"images": [{"id": 1}]}', "images[0].file_name: must be a text, is missing"),
        ('{"images": [{"id": 1, "file_name": ""}]}', "images[0].file_name: must be a text"),
        ('{"images": [{"file_name": "a.jpg"}]}', "images[0].id: is missing"),
        ('{"images": [{"id": "x", "file_name": "a.jpg"}]}', "images[0].id: must be an integer"),
        ('{"images": [{"id": 1, "file_name": "a.jpg", "width": "640"}]}', "images[0].width: must be an integer"),
        ('{"images": [{"id": 1, "file_name": "a.jpg", "height": 1e12}]}', "images[0].height: must be an integer of at most"),
        ('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [[]]}', "annotations[0]: must be an object"),
        (b'{"images": [{"id": 1, "file_name": "\xff.jpg"}]}', "images[0]: not valid JSON ('utf-8'"),
        (b'{"images": [NaN, "\xff"]}', "byte 18: not UTF-8"),
        ('{"images": [{"id": 1, "file_name": "\\ud800.jpg"}]}', "not "),
        (b'\xff\xfe{\x00"\x00', "not "),
        ('{"images": [{"id": 1, "file_name": "\\ud800.jpg", "x": NaN}]}', "not usable JSON"),
        ('{"images": ' + "[" * 100_000, "not "),
        ('{"images": [], "x": ' + "9" * 5000 + ", ", "not "),
    ],
)
def test_malformed_files_name_the_position(tmp_path, text, wrong):
    with pytest.raises(DataError) as caught:
        one(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'labels.json'}: ") and wrong in str(caught.value)


def test_byte_order_mark_is_no_fault(tmp_path):
    images, _ = one(tmp_path, b"\xef\xbb\xbf" + json.dumps(PLAIN).encode())
    assert images.file_names == ["a.jpg"]


NUMBERS = st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6), st.none())
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**80), 2**80), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=8,
)
FIELDS = [
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
    "note",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=6), max_size=4), ANYTHING)
def test_any_json_is_read_or_refused_with_its_place(tmp_path, records, image_extra):
    path = tmp_path / "fuzz.json"
    images = [{"id": 1, "file_name": "a.jpg", "note": image_extra}]
    path.write_text(json.dumps({"images": images, "annotations": records, "categories": []}))
    try:
        content = read(path)
        write_coco_json(tmp_path / "one.json", *content)
    except DataError:
        return
    write_coco_json(tmp_path / "two.json", *read(tmp_path / "one.json"))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(*[st.one_of(st.floats(-1e5, 1e5), st.integers(-999, 9999).map(lambda i: i / 100))] * 4), min_size=1, max_size=9
    )
)
def test_boxes_survive_to_the_last_bit(tmp_path, boxes):
    """Corners in memory are what the judge computes (x + w), and stay so through the file."""
    records = [{"id": i + 1, "image_id": 1, "category_id": 1, "bbox": list(box)} for i, box in enumerate(boxes)]
    (tmp_path / "in.json").write_text(json.dumps(PLAIN | {"annotations": records}))
    images, annotations, categories, header = read(tmp_path / "in.json")
    assert annotations.boxes_A4.tolist() == [[x, y, x + w, y + h] for x, y, w, h in boxes]
    write_coco_json(tmp_path / "out.json", images, annotations, categories, header)
    np.testing.assert_allclose(read(tmp_path / "out.json")[1].boxes_A4, annotations.boxes_A4, rtol=4e-16, atol=0)
    written = [record["bbox"] for record in json.loads((tmp_path / "out.json").read_text())["annotations"]]
    np.testing.assert_allclose(written, boxes, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("categories", "wrong"),
    [
        (None, "must be a list"),
        ([3], "categories[0]"),
        ([{"id": 1}], "categories[0]"),
        ([{"id": "1", "name": "a"}], "categories[0]"),
        ([{"id": 1, "name": 5}], "categories[0]"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "id 1 is 'b' here and 'a' before"),
        ([{"id": 1, "name": "a", "skeleton": [[1, 2, 3]]}], "categories[0]"),
    ],
)
def test_wrong_categories_are_refused(categories, wrong):
    with pytest.raises(DataError) as caught:
        parse_categories(categories, "labels.json")
    assert wrong in str(caught.value)
