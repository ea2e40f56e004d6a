"""COCO panoptic and VOC segmentation: real and made maps, what is kept of odd ones, and which are refused by name."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.dataset import open_dataset
from pipeline.data.formats import voc_masks
from pipeline.data.formats.pixel_masks import mask_of
from pipeline.data.formats.voc_masks import palette
from pipeline.errors import DataError
from tests.data.conftest import Ingest
from tests.data.formats.test_round_trips import read, written
from tests.data.formats.test_samples import picture, put
from tests.data.test_voc import label

CATEGORIES = [
    {"id": 3, "name": "cat", "isthing": 1},
    {"id": 9, "name": "sky", "isthing": 0},
    {"id": 5, "name": "sea", "isthing": 0},
]


def numbers() -> np.ndarray:
    """40 x 60: a cat 70000, a crowd of cats 2, sky 300, sea 4, an unlisted 77, the rest void."""
    made = np.zeros((40, 60), np.int64)
    made[:10], made[30:], made[12:20, 5:15], made[12:14, 40:50], made[25, 7] = 300, 4, 70000, 2, 77
    return made


def panoptic(folder: Path, drawn: np.ndarray | None = None, **changed: Any) -> Path:
    drawn = numbers() if drawn is None else drawn
    picture(folder / "images/a.jpg")
    picture(folder / "images/b.jpg", 61)
    pixels = np.stack([drawn & 255, drawn >> 8 & 255, drawn >> 16], axis=2).astype(np.uint8)
    (folder / "panoptic_train").mkdir()
    Image.fromarray(pixels).save(folder / "panoptic_train/a.png")
    infos = [
        {"id": number, "category_id": category, "iscrowd": crowd}
        for number, category, crowd in ((70000, 3, 0), (2, 3, 1), (300, 9, 0), (4, 5, 0), (12, 3, 0))
    ]
    entry = {"image_id": 1, "file_name": "a.png", "segments_info": infos} | changed
    images = [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}, {"id": 2, "file_name": "b.jpg"}]
    put(folder / "panoptic_train.json", json.dumps({"images": images, "annotations": [entry], "categories": CATEGORIES}))
    return folder


def test_panoptic_things_stuff_crowds_and_void(root: Path, tmp_path: Path, ingest: Ingest) -> None:
    dataset = open_dataset(ingest("auto", panoptic(tmp_path / "set"), split={"val": 0.5}))
    assert dataset.classes == ("cat",) and dataset.info.semantic == ("things", "sea", "sky")
    assert [category.name for category in dataset.info.stuff] == ["sea", "sky"]
    assert {"mask", "panoptic", "semantic"} <= {*dataset.info.tasks}
    [split] = [one for one in dataset.splits.values() if one.images.file_names == ["a.jpg"]]
    table, maps = split.annotations, split.maps
    assert maps is not None and maps.segments is not None
    assert (maps.segments_of(0) == numbers()).all()
    expected = np.full((40, 60), 255)
    expected[:10], expected[30:], expected[12:20, 5:15], expected[12:14, 40:50] = 2, 1, 0, 0
    assert (maps.classes_of(0) == expected).all()
    assert maps.segments.number_S.tolist() == [2, 4, 12, 300, 70000]  # that without pixels too
    object_of = dict(zip(maps.segments.number_S.tolist(), maps.segments.annotation_S.tolist(), strict=True))
    assert object_of[300] == object_of[4] == 0
    row_of = {number: table.ids_A.tolist().index(label) for number, label in object_of.items() if label}
    assert table.boxes_A4[row_of[70000]].tolist() == [5, 12, 15, 20] and table.area_A[row_of[70000]] == 80
    assert (mask_of(table.rle[row_of[70000]], "") == (numbers() == 70000)).all()
    assert {number: bool(table.crowd_A[row]) for number, row in row_of.items()} == {70000: False, 2: True, 12: False}
    assert row_of[12] not in table.rle


def test_panoptic_goes_round(root: Path, tmp_path: Path) -> None:
    found = read(root, "panoptic", panoptic(tmp_path / "set"))
    out, lost = written(tmp_path, found, "panoptic")
    assert lost == ["1 labels: without a box or mask that the format can hold"]  # that without pixels
    back = read(root, "panoptic", out)
    assert back.stuff == found.stuff and back.semantic == found.semantic and back.categories == found.categories
    for one in (found, back):
        assert one.splits["train"].images.extra == {1: {"unlabelled": 1}}
    first, second = found.splits["train"].maps, back.splits["train"].maps
    assert first is not None and second is not None and first.files_of(0) == second.files_of(0)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image_id": 8}, r"annotations\[0\]\.image_id: is of no listed image"),
        ({"file_name": "c.png"}, "names maps of segments of which none is there, such as c.png"),
        ({"segments_info": [{"id": 0, "category_id": 3}]}, r"segments_info\[0\]\.id: must be a whole number from 1"),
        ({"segments_info": [{"id": 2, "category_id": 3}] * 2}, r"segments_info\[1\]\.id: is of two segments"),
    ],
)
def test_panoptic_refuses(root: Path, tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(root, "panoptic", panoptic(tmp_path / "set", **changed))


def test_a_map_of_another_size_is_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"panoptic_train/a\.png: is 59 x 40, its picture images/a\.jpg 60 x 40"):
        read(root, "panoptic", panoptic(tmp_path / "set", numbers()[:, 1:]))


def test_the_real_sample(shared: Path, root: Path) -> None:
    """Every thing's pixels are the area and box that the sample states."""
    folder = shared / "data/panopticapi_sample/sample_data"
    stated = json.loads((folder / "panoptic_examples.json").read_text())
    things = {one["id"] for one in stated["categories"] if one["isthing"]}
    [split] = read(root, "panoptic", folder).splits.values()
    expected = sorted(s["area"] for a in stated["annotations"] for s in a["segments_info"] if s["category_id"] in things)
    assert sorted(int(mask_of(rle, "").sum()) for rle in split.annotations.rle.values()) == expected


def test_segments_follow_their_objects_new_numbers(root: Path, tmp_path: Path) -> None:
    split = read(root, "panoptic", panoptic(tmp_path / "set")).splits["train"]
    assert split.maps is not None and split.maps.segments is not None
    before = split.maps.segments.annotation_S.copy()
    split.annotations.ids_A += 10
    split.maps.segments.annotation_S[before > 0] += 10
    split.renumber()
    assert split.maps.segments.annotation_S.tolist() == before.tolist() and before.max() == 3


# -- VOC --


def voc(folder: Path, classes: np.ndarray, objects: np.ndarray) -> Path:
    label(
        folder / "Annotations/a.xml", ("cat", 5, 12, 15, 20), ("dog", 5, 12, 15, 20), size="<width>60</width><height>40</height>"
    )
    picture(folder / "JPEGImages/a.jpg")
    picture(folder / "JPEGImages/b.jpg")
    label(folder / "Annotations/b.xml", ("cat", 1, 2, 9, 9))
    flat = [value for colour in palette() for value in colour]
    for name, values in (("SegmentationClass", classes), ("SegmentationObject", objects)):
        (folder / name).mkdir()
        image = Image.fromarray(values.astype(np.uint8))
        image.putpalette(flat)
        image.save(folder / name / "a.png")
    put(folder / "ImageSets/Segmentation/train.txt", "a\n")
    return folder


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Two objects: a dog (12 of the twenty) of the XML's box, a sheep (17) that no XML has; void around the dog."""
    classes, objects = np.zeros((40, 60)), np.zeros((40, 60))
    classes[11:21, 4:16] = objects[11:21, 4:16] = 255
    classes[12:20, 5:15], objects[12:20, 5:15] = 12, 1
    classes[30:35, 50:], objects[30:35, 50:] = 17, 2
    return classes, objects


@pytest.mark.parametrize("coloured", [False, True])
def test_voc_masks_and_semantic_maps(root: Path, tmp_path: Path, coloured: bool) -> None:
    folder = voc(tmp_path / "set", *drawn())
    if coloured:
        for path in folder.glob("Segmentation*/*.png"):
            Image.open(path).convert("RGB").save(path)
    found = read(root, "voc", folder)
    assert {name: split.images.file_names for name, split in found.splits.items()} == {"train": ["JPEGImages/a.jpg"]}
    assert [category.name for category in found.categories] == ["cat", "dog", "sheep"]
    assert found.semantic[0] == "background" and found.semantic[12] == "dog" and len(found.semantic) == 21
    split = found.splits["train"]
    table = split.annotations
    kept = [(found.categories[table.label_A[row]].name, row in table.rle, table.area_A[row]) for row in range(len(table))]
    assert kept == [("cat", False, 80), ("dog", True, 80), ("sheep", True, 50)]
    assert (mask_of(table.rle[2], "") == (drawn()[1] == 2)).all() and table.boxes_A4[2].tolist() == [50, 30, 60, 35]
    assert split.maps is not None
    map_path = tmp_path / "map.png"
    map_path.write_bytes(split.maps.files_of(0)["semantic"])
    assert (np.asarray(Image.open(map_path)) == drawn()[0]).all()


def test_voc_refuses_by_name(root: Path, tmp_path: Path) -> None:
    classes, objects = drawn()
    with pytest.raises(DataError, match=r"SegmentationObject/a\.png: is 59 x 40, its picture JPEGImages/a\.jpg 60 x 40"):
        read(root, "voc", voc(tmp_path / "size", classes, objects[:, 1:]))
    classes[0, 0] = 21
    with pytest.raises(DataError, match=r"SegmentationClass/a\.png: holds class 21; there are 20"):
        read(root, "voc", voc(tmp_path / "class", classes, objects))
    put(tmp_path / "class/labelmap.txt", "background:0,0,0::\ncat:128,0\n")
    with pytest.raises(DataError, match=r"labelmap\.txt: line 2: must be name:red,green,blue"):
        read(root, "voc", tmp_path / "class")


def test_numbers_without_names_beside_labels_of_other_classes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would become aeroplanes and bicycles beside the very cells that they are."""

    class Drawn(voc_masks.VocMasks):
        def of(self, kind: str, picture: PurePosixPath) -> PurePosixPath:
            return PurePosixPath(f"{kind}/a.png")

        def classes(self, path: PurePosixPath) -> np.ndarray:
            return np.ones((4, 4), np.int64)

    masks = Drawn(Path("x"), (voc_masks.BACKGROUND, *voc_masks.TWENTY), None, guessed=True)
    monkeypatch.setattr(voc_masks, "_numbers", lambda *_: np.ones((4, 4), np.int64))
    place = (masks, PurePosixPath("a.jpg"), (4, 4))
    with pytest.raises(DataError, match=r"labels name others: RBC\n  say what the numbers mean"):
        voc_masks.add_masks([{"class": "RBC", "bbox": [0, 0, 4, 4]}], *place)
    voc_masks.add_masks([{"class": "aeroplane", "bbox": [0, 0, 4, 4]}], *place)
