"""YOLO: real sets against the COCO labels of the same photos, every layout, faults kept, bad lines named."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageOps

from pipeline.data.dataset import Dataset, open_dataset
from pipeline.data.formats.yolo_txt import LineKind, read_frame, read_labels, record
from pipeline.errors import DataError
from pipeline.files import digest_tree
from pipeline.layout import Layout
from pipeline.stages.validate import run as validate
from tests.data.conftest import Ingest
from tests.labels.planted import settings, validate_stage

ASSETS = "data/datumaro_formats/tests/assets"


def picture(path: Path, width: int = 64, height: int = 32, colour: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (colour, 90, 30)).save(path)


def text(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))


def yolo(folder: Path, *, train: str = "images/train", val: str = "images/val", data: str = "data.yaml", more: str = "") -> Path:
    """Two pictures per split with a box of class 0 and one of class 2 each, in the usual layout."""
    for place, split in enumerate(("train", "val")):
        for i in range(2):
            picture(folder / f"images/{split}/{i}.png", colour=10 * i + 100 * place)
            text(folder / f"labels/{split}/{i}.txt", "0 0.5 0.5 0.25 0.5", "2 0.25 0.25 0.5 0.5")
    text(folder / data, f"train: {train}", f"val: {val}", "names: [cat, dog, bird]", more)
    return folder


@pytest.mark.parametrize(("more", "stated"), [("nc: 80", 80), ("nc: 3", None), ("", None), ("nc: three", None)])
def test_a_number_of_classes_that_is_not_that_of_the_names_is_kept(ingest: Ingest, tmp_path: Path, more: str, stated: int | None):
    assert open_dataset(ingest("yolo", yolo(tmp_path / "set", more=more))).info.stated_classes == stated


def boxes(dataset: Dataset, split: str = "train", row: int = 0) -> list[list[float]]:
    found = dataset.split(split)
    return found.annotations.boxes_A4[found.rows_of(row)].tolist()


@pytest.mark.parametrize("task", ["object_detection", "instance_segmentation"])
def test_coco128_equals_the_panoptic_labels_of_the_same_photos(shared, ingest: Ingest, tmp_path, task):
    """Every thing that COCO's panoptic labels show has a YOLO box, or the bounds of a YOLO polygon, around it."""
    source = shared / "data/coco128_by"
    dataset = open_dataset(ingest("yolo", source, data=f"{task}/*.yaml"))
    assert {name: len(split.images) for name, split in dataset.splits.items()} == {"train": 26, "val": 27}
    names = {category.id: category.name for category in dataset.info.categories}
    assert dataset.info.tasks == (("box",) if task == "object_detection" else ("box", "mask"))
    close = things = 0
    for name, split in dataset.splits.items():
        judge = json.loads((source / f"panoptic_segmentation/annotations/panoptic_{name}2017.json").read_text())
        classes = {c["id"]: c["name"] for c in judge["categories"] if c["isthing"]}
        sizes = {i["file_name"]: (i["width"], i["height"]) for i in judge["images"]}
        rows = {path.rsplit("/", 1)[-1]: row for row, path in enumerate(split.images.file_names)}
        for entry in judge["annotations"]:
            file_name = entry["file_name"].replace(".png", ".jpg")
            row = rows[file_name]
            assert (split.images.widths_I[row], split.images.heights_I[row]) == sizes[file_name]
            at = split.rows_of(row)
            ours_A4, ids_A = split.annotations.boxes_A4[at], split.annotations.category_A[at]
            for thing in entry["segments_info"]:
                if thing["category_id"] not in classes or thing["iscrowd"]:
                    continue
                x, y, w, h = thing["bbox"]
                same = np.array([names[i] == classes[thing["category_id"]] for i in ids_A.tolist()])
                off = np.abs(ours_A4[same] - [x, y, x + w, y + h]).max(axis=1, initial=0) if same.any() else np.array([np.inf])
                things += 1
                close += bool(off.min() <= 3)
    assert things > 150 and close / things > 0.85, f"{close} of {things}"  # panoptic labels leave out what others hide


@pytest.mark.parametrize(
    ("assets", "settings"), [("yolo_dataset/strict", {}), ("yolo_dataset/annotations", {}), ("yolo_dataset/labels", {})]
)
def test_datumaros_samples_give_the_boxes_that_it_expects(shared, ingest: Ingest, tmp_path, assets, settings):
    """datumaro's own test of these files: (0, 2, 4, 2) of class 2 and (3, 3, 2, 3) of class 4, x y w h, in 15 x 10 pixels."""
    source = tmp_path / "set"
    shutil.copytree(shared / ASSETS / assets, source, copy_function=shutil.copyfile)
    first = next(path for path in sorted(source.rglob("1.jpg")))
    again = first.with_name("2.jpg")  # one picture makes no validation split
    Image.new("RGB", (15, 10), "red").save(again)
    listing = source / "train.txt"
    if listing.exists():
        listing.write_text(listing.read_text().strip() + "\ndata/obj_train_data/2.jpg\n")
    dataset = open_dataset(ingest("yolo", source, split={"val": 0.5}, **settings))
    assert dataset.classes == tuple(f"label_{i}" for i in range(10))
    tables = [split.annotations for split in dataset.splits.values() if len(split.annotations)]
    for table in tables:
        np.testing.assert_allclose(table.boxes_A4, [[0, 2, 4, 4], [3, 3, 5, 6]], atol=2e-5)
        assert table.label_A.tolist() == [2, 4]


def test_roboflows_sample_with_a_split_folder_of_another_name(shared, ingest: Ingest):
    """data.yaml says ../valid/images, the folder is val/: boxes of whole pixels in 10 x 5."""
    dataset = open_dataset(ingest("yolo", shared / ASSETS / "roboflow_dataset/yolo"))
    assert {name: split.images.file_names for name, split in dataset.splits.items()} == {
        "train": ["train/images/train_001.jpg", "train/images/train_002.jpg"],
        "val": ["val/images/val_001.jpg"],
    }
    expected = {"train": [[2, 1, 5, 2], [0, 0, 2, 4]], "val": [[0, 0, 1, 2], [0, 0, 9, 1]]}
    for name, corners in expected.items():
        np.testing.assert_allclose(dataset.split(name).annotations.boxes_A4, corners, atol=1e-9)


def test_oriented_boxes_are_refused_with_the_line(shared, ingest: Ingest):
    with pytest.raises(DataError, match=r"labelTxt/train_001.txt: line 1: 'label_0' is not a number"):
        ingest("yolo", shared / ASSETS / "roboflow_dataset/yolo_obb")


def test_boxes_and_polygons_in_pixels_and_all_of_them(ingest: Ingest, tmp_path):
    source = yolo(tmp_path / "set")
    text(source / "labels/train/1.txt", "1 0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75", "", "  2\t0.5 0.5 1 1  ")
    dataset = open_dataset(ingest("yolo", source))
    assert dataset.classes == ("cat", "dog", "bird") and dataset.info.splitting == "the source's own"
    assert boxes(dataset) == [[24, 8, 40, 24], [0, 0, 32, 16]]
    assert boxes(dataset, row=1) == [[16, 8, 48, 24], [0, 0, 64, 32]]
    table = dataset.split("train").annotations
    assert table.area_A.tolist() == [256, 512, 32 * 16, 2048] and table.label_A.tolist() == [0, 2, 1, 2]
    assert [p.tolist() for p in table.polygons.polygons_of(2)] == [[[16, 8], [48, 8], [48, 24], [16, 24]]]
    assert dataset.split("train").images.widths_I.tolist() == [64, 64] and dataset.info.unlisted == ()


@pytest.mark.parametrize(
    ("train", "val", "more"),
    [
        ("images/train", "images/val", "path: ."),
        ("images/train/", "./images/val", "path: ../set"),
        ("images/train", "images/val", "path: /content/drive/set"),
        ("/content/set/images/train", "C:\\data\\set\\images\\val", ""),
        ("../set/images/train", "../images/val", ""),
        ("train", "val", "path: images"),
        ("[images/train]", "[images/val]", ""),
        ("train.txt", "lists/val.txt", ""),
    ],
)
def test_every_way_to_name_the_splits(ingest: Ingest, tmp_path, train, val, more):
    source = yolo(tmp_path / "set", train=train, val=val, more=more)
    text(source / "train.txt", "./images/train/0.png", "/elsewhere/set/images/train/1.png")
    text(source / "lists/val.txt", "images/val/0.png", "../images/val/1.png", "")
    dataset = open_dataset(ingest("yolo", source))
    assert {name: split.images.file_names for name, split in dataset.splits.items()} == {
        name: [f"{name}/0.png", f"{name}/1.png"] for name in ("train", "val")
    }
    assert all(boxes(dataset, name, row)[0] == [24, 8, 40, 24] for name in ("train", "val") for row in (0, 1))


@pytest.mark.parametrize("names", ["{0: cat, 7: dog}", "{'0': cat, '7': dog}"])
def test_names_as_mapping_with_gaps(ingest: Ingest, tmp_path, names):
    source = yolo(tmp_path / "set")
    text(source / "data.yaml", "train: images/train", "val: images/val", f"names: {names}")
    text(source / "labels/train/0.txt", "7 0.5 0.5 0.25 0.5", "1 0.5 0.5 0.25 0.5", "-1 0.5 0.5 0.25 0.5")
    dataset = open_dataset(ingest("yolo", source))
    assert [(category.id, category.name) for category in dataset.info.categories] == [(0, "cat"), (7, "dog")]
    assert dataset.split("train").annotations.label_A[:3].tolist() == [1, -1, -1]
    assert dataset.split("train").annotations.category_A[:3].tolist() == [7, 1, -1]


def test_labels_beside_the_pictures(ingest: Ingest, tmp_path):
    source = yolo(tmp_path / "set")
    for path in list(source.glob("labels/*/*.txt")):
        path.rename(source / "images" / path.parent.name / path.name)
    text(source / "images/train/classes.txt", "cat")
    dataset = open_dataset(ingest("yolo", source))
    assert boxes(dataset) == boxes(dataset, "val") == [[24, 8, 40, 24], [0, 0, 32, 16]] and dataset.info.unlisted == ()


def test_faults_are_kept_and_the_checks_find_them(ingest: Ingest, tmp_path):
    source = yolo(tmp_path / "set")
    text(
        source / "labels/train/0.txt",
        "9 0.5 0.5 0.25 0.5",  # no such class
        "0 1.5 0.5 0.25 0.5",  # outside
        "0 0.5 0.5 0 0.5",  # no area
        "0 0.5 0.5 nan 0.5",
        "0 0.5 0.5 -0.25 0.5",
        "1 0.5 0.5 0.25 0.5",
    )
    layout = Layout(tmp_path)
    dataset = open_dataset(ingest("yolo", source, into=tmp_path))
    assert boxes(dataset)[1] == [88, 8, 104, 24] and boxes(dataset)[4] == [40, 8, 24, 24]
    assert dataset.split("train").annotations.category_A[:6].tolist() == [9, 0, 0, 0, 0, 1]
    validate(validate_stage(layout, settings(gate=1.0)))
    found = json.loads((layout.reports("validate") / "findings.json").read_text())
    by_code = {code: {f["annotation"] for f in found if f["code"] == code} for code in {f["code"] for f in found}}
    assert by_code["category-unknown"] == {1} and by_code["box-outside"] == {2}
    assert by_code["box-zero-area"] >= {3, 5} and by_code["box-not-finite"] == {4}


def test_no_label_file_is_unlabelled_and_an_empty_one_is_empty(ingest: Ingest, tmp_path):
    source = yolo(tmp_path / "set")
    (source / "labels/train/0.txt").unlink()
    text(source / "labels/train/1.txt")
    split = open_dataset(ingest("yolo", source)).split("train")
    assert split.images.extra == {0: {"unlabelled": 1}} and not len(split.annotations)


@pytest.mark.parametrize(("train", "val"), [("train", "val"), ("monday", "friday")])
def test_a_val_picture_without_labels_does_not_take_those_of_train(ingest: Ingest, tmp_path, train, val):
    source = yolo(tmp_path / "set", train=f"images/{train}", val=f"images/{val}")
    for kind in ("images", "labels"):
        for name, now in (("train", train), ("val", val)):
            (source / kind / name).rename(source / kind / now)
    shutil.rmtree(source / "labels" / val)
    split = open_dataset(ingest("yolo", source)).split("val")
    assert split.images.extra == {0: {"unlabelled": 1}, 1: {"unlabelled": 1}} and not len(split.annotations)


def test_labels_of_missing_and_broken_pictures_keep_their_numbers(ingest: Ingest, tmp_path):
    source = yolo(tmp_path / "set")
    (source / "images/train/0.png").unlink()
    (source / "images/train/1.png").write_bytes(b"no picture")
    dataset = open_dataset(ingest("yolo", source))
    split = dataset.split("train")
    assert split.images.file_names == ["train/0.jpg", "train/1.png"] and dataset.info.counts["train"]["missing"] == 1
    assert split.images.widths_I.tolist() == [0, 0] and np.isnan(split.annotations.boxes_A4).all()
    assert [split.annotations.extra[row]["normalized"] for row in range(2)] == [[0.5, 0.5, 0.25, 0.5], [0.25, 0.25, 0.5, 0.5]]


def test_what_no_split_lists_is_said(ingest: Ingest, tmp_path):
    source = yolo(tmp_path / "set", train="train.txt", more="test: images/test")
    text(source / "train.txt", "images/train/0.png", "images/train/gone.png")
    dataset = open_dataset(ingest("yolo", source))
    assert dataset.split("train").images.file_names == ["train/0.png", "train/gone.png"]
    assert dataset.info.unlisted == ("test: images/test (not there)", "images/train/*.png: 1", "labels/train/*.txt: 1")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("0 0.5 0.5 0.2", "has 4 numbers"),
        ("0 0.5 0.5 0.2 0.2 0.9", "has 6 numbers.*\n  a sixth number is often a score"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "has 8 numbers"),
        ("cat 0.5 0.5 0.2 0.2", "'cat' is not a number"),
        ("0.5 0.5 0.5 0.2 0.2", "the class must be a whole number, is '0.5'"),
        ("nan 0.5 0.5 0.2 0.2", "the class must be a whole number"),
        ("0, 0.5, 0.5, 0.2, 0.2", "'0,' is not a number"),
        ("0 1_0 0.5 0.2 0.2", "'1_0' is not a number"),
        ("0 \xff 0.5 0.2 0.2", "is not a number"),
    ],
)
def test_a_malformed_line_is_one_error_with_file_and_line(ingest: Ingest, tmp_path, line, wrong):
    source = yolo(tmp_path / "set")
    (source / "labels/val/1.txt").write_bytes(b"\xef\xbb\xbf0 0.5 0.5 0.2 0.2\r\n\r\n" + line.encode("latin-1") + b"\r\n")
    with pytest.raises(DataError, match=rf"labels/val/1.txt: line 3: .*{wrong}"):
        ingest("yolo", source)


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ("names: [a", r"data.yaml: line 2, column 1: not valid YAML"),
        ("train: images/train", "has no data.yaml with class names"),
        ("names: []", "names: must be a list"),
        ("names: {x: cat}", "names: 'x': 'cat' is not a class number"),
        ("names: [cat, null]", "names: '1': 'None' is not"),
        ("names: [cat]\ntrain: images/nowhere", "train: 'images/nowhere' is no folder with pictures"),
        ("names: [cat]\ntrain: {a: b}", "train: must be a folder"),
        ("names: [cat]\nkpt_shape: [17, 4]", r"kpt_shape: must be \[number of keypoints, 2 or 3\], is"),
    ],
)
def test_a_wrong_description_is_named(ingest: Ingest, tmp_path, content, wrong):
    source = yolo(tmp_path / "set")
    text(source / "data.yaml", content, "")
    with pytest.raises(DataError, match=wrong):
        ingest("yolo", source)


def test_several_descriptions_are_a_question(ingest: Ingest, tmp_path):
    source = yolo(tmp_path / "set", data="a.yaml")
    text(source / "b.yaml", "names: [x]")
    text(source / "ci.yaml", "steps: [x]")
    with pytest.raises(DataError, match=r"several files with names: a.yaml, b.yaml\n  choose by dataset.data='a.yaml'"):
        ingest("yolo", source)
    assert open_dataset(ingest("yolo", source, data="a.yaml")).classes == ("cat", "dog", "bird")


def test_without_splits_in_the_description_folders_decide(ingest: Ingest, tmp_path):
    source = yolo(tmp_path / "set")
    text(source / "data.yaml", "names: [cat, dog, bird]")
    assert {n: len(s.images) for n, s in open_dataset(ingest("yolo", source)).splits.items()} == {"train": 2, "val": 2}


def test_archive_equals_folder(ingest: Ingest, tmp_path):
    source = yolo(tmp_path / "set")
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in source.rglob("*.*"):
            archive.write(path, path.relative_to(source.parent))
    assert digest_tree(ingest("yolo", tmp_path / "set.zip")) == digest_tree(ingest("yolo", source))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_of_turned_pictures_follow_what_a_viewer_shows(tmp_path, orientation):
    """Pillow turns the picture as a viewer would; a box drawn there must be the one that its pixels have in the file."""
    stored = Image.new("RGB", (40, 20))
    ImageDraw.Draw(stored).rectangle((4, 2, 13, 7), fill="white")  # x 4..14, y 2..8, as corners
    exif = Image.Exif()
    exif[274] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    shown = ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))
    x1, y1, x2, y2 = shown.convert("L").getbbox()
    w, h = shown.size
    text(tmp_path / "a.txt", f"0 {(x1 + x2) / 2 / w!r} {(y1 + y2) / 2 / h!r} {(x2 - x1) / w!r} {(y2 - y1) / h!r}",
         f"0 {x1 / w!r} {y1 / h!r} {x2 / w!r} {y1 / h!r} {x2 / w!r} {y2 / h!r}")  # fmt: skip
    frame = read_frame(tmp_path / "a.png", upright=True)
    for thing in read_labels(tmp_path / "a.txt", LineKind()):
        np.testing.assert_allclose(record(thing, frame, LineKind())["bbox"], [4, 2, 10, 6], atol=1e-9)
    assert read_frame(tmp_path / "a.png", upright=False) == (40, 20, 1)
