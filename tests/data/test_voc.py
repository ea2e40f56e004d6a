"""Pascal VOC: the real sets whole, their known faults kept, every layout, and bad files named."""

import csv
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.data.dataset import open_dataset
from pipeline.errors import ConfigError, DataError
from tests.data.conftest import Ingest, dataset_config

OBJECT = (
    "<object><name>{name}</name>{more}<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"
)


def label(path: Path, *objects: tuple, filename: str | None = None, size: str = "<width>64</width><height>48</height>") -> None:
    """Write one label file; an object is (name, x1, y1, x2, y2) or (name, x1, y1, x2, y2, more XML)."""
    text = "".join(OBJECT.format(*o[1:5], name=o[0], more=o[5] if len(o) > 5 else "") for o in objects)
    path.parent.mkdir(parents=True, exist_ok=True)
    name = f"<filename>{filename}</filename>" if filename else ""
    path.write_text(f"<annotation>{name}<size>{size}</size>{text}</annotation>")


def picture(path: Path, content: str | None = None) -> None:
    """A file with a picture's name; ingest copies bytes and opens no picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or str(path))


def devkit(folder: Path, count: int = 6) -> Path:
    """Annotations/ and JPEGImages/ with one object per picture; classes cat and dog in turn."""
    for i in range(count):
        label(folder / f"Annotations/{i}.xml", ("dog" if i % 2 else "cat", 1 + i, 2, 20, 30))
        picture(folder / f"JPEGImages/{i}.jpg")
    return folder


def names(dataset: Path) -> dict[str, list[str]]:
    return {name: split.images.file_names for name, split in open_dataset(dataset).splits.items()}


def test_bccd_whole(shared, ingest: Ingest):
    """All 364 pictures, in the source's own splits, with every box that Python's own XML reader finds."""
    source = shared / "data/bccd_voc/BCCD"
    dataset = open_dataset(ingest("voc", source.parent))
    assert dataset.classes == ("Platelets", "RBC", "WBC") and dataset.info.tasks == ("box",)
    assert dataset.info.splitting == "the source's own" and dataset.info.unlisted == ()
    empty = set()
    for name, split in dataset.splits.items():
        listed = sorted((source / f"ImageSets/Main/{name}.txt").read_text().split())
        assert split.images.file_names == [f"{stem}.jpg" for stem in listed]
        for row, stem in enumerate(listed):
            assert split.path(row).read_bytes() == (source / f"JPEGImages/{stem}.jpg").read_bytes()
            root = ElementTree.parse(source / f"Annotations/{stem}.xml").getroot()
            rows = split.rows_of(row)
            expected = [
                [float(o.find(f"bndbox/{k}").text) for k in ("xmin", "ymin", "xmax", "ymax")] for o in root.iter("object")
            ]
            assert split.annotations.boxes_A4[rows].tolist() == expected
            assert [dataset.classes[i] for i in split.annotations.label_A[rows]] == [
                o.find("name").text for o in root.iter("object")
            ]
            size_A2 = split.annotations.boxes_A4[rows, 2:] - split.annotations.boxes_A4[rows, :2]
            empty |= {stem for size in size_A2 if (size == 0).all()}
    assert sum(len(split.images) for split in dataset.splits.values()) == 364
    assert empty == {"BloodImage_00338", "BloodImage_00343"}


def test_labels_beside_pictures_equal_the_sets_own_csv(shared, ingest: Ingest):
    """microcontroller_voc: splits by folder names; its author's csv of the same boxes is the reference."""
    source = shared / "data/microcontroller_voc"
    dataset = open_dataset(ingest("voc", source, split={"val": 0.25}))
    found: dict[str, list] = {"train": [], "test": []}
    for name, split in dataset.splits.items():
        table = split.annotations
        for row in range(len(table)):
            file_name, label_name = split.images.file_names[table.image_A[row]], dataset.classes[table.label_A[row]]
            box = tuple(table.boxes_A4[row].tolist())
            found["test" if name == "test" else "train"].append((file_name.partition("/")[2], label_name, box))
            assert file_name.startswith("test/" if name == "test" else "train/")
    for name, rows in found.items():
        with (source / f"images/{name}_labels.csv").open() as file:
            reference = [
                (r["filename"], r["class"], tuple(float(r[k]) for k in ("xmin", "ymin", "xmax", "ymax")))
                for r in csv.DictReader(file)
            ]
        assert sorted(rows) == sorted(reference)
    assert len(dataset.split("val").images) == round(0.25 * 142)


def test_parts_fractions_and_masks_beside(shared, ingest: Ingest, tmp_path):
    """datumaro's first VOC sample: mask pictures with the same stems do not count as the pictures."""
    source = tmp_path / "voc"
    given = shared / "data/datumaro_formats/tests/assets/voc_dataset/voc_dataset1"
    for path in (path for path in given.rglob("*") if path.is_file() and path.name != "test.txt"):
        (source / path.relative_to(given)).parent.mkdir(parents=True, exist_ok=True)
        (source / path.relative_to(given)).write_bytes(path.read_bytes())
    picture(source / "JPEGImages/2007_000002.jpg")
    (source / "ImageSets/Main/train.txt").write_text("2007_000001\n2007_000002\n")
    dataset = open_dataset(ingest("voc", source, split={"val": 0.5}))
    assert sorted(name for split in dataset.splits.values() for name in split.images.file_names) == [
        "2007_000001.jpg",
        "2007_000002.jpg",
    ]
    extras = [extra for split in dataset.splits.values() for extra in split.annotations.extra.values()]
    assert [extra["parts"] for extra in extras if "parts" in extra] == [[{"name": "head", "corners": [5.5, 6, 7.5, 8]}]]
    assert "semantic" in dataset.info.tasks and dataset.info.semantic[1] == "aeroplane"


def test_pictures_without_labels_and_labels_without_pictures_stay(ingest: Ingest, tmp_path):
    source = devkit(tmp_path / "set")
    picture(source / "JPEGImages/lonely.png")
    label(source / "Annotations/gone.xml", ("cat", 1, 1, 5, 5), filename="gone.jpeg")
    label(source / "Annotations/nothing.xml")
    picture(source / "JPEGImages/nothing.jpg")
    dataset = open_dataset(ingest("voc", source))
    (train, val) = (dataset.split(name) for name in ("train", "val"))
    everything = {name: split for split in (train, val) for name in split.images.file_names}
    assert len(everything) == 9
    unlabelled = {
        split.images.file_names[row]
        for split in (train, val)
        for row, extra in split.images.extra.items()
        if "unlabelled" in extra
    }
    assert unlabelled == {"lonely.png"}  # an empty label file is an answer: there is nothing
    row = train.images.file_names.index("gone.jpeg")
    assert not train.path(row).exists() and train.annotations.boxes_A4[train.rows_of(row)].tolist() == [[1, 1, 5, 5]]
    assert dataset.info.counts["train"]["missing"] == 1


def test_one_based_boxes_follow_the_devkit(ingest: Ingest, tmp_path):
    """The devkit's box of the pixel at the top left corner alone is 1, 1, 1, 1: one square pixel, (0, 0, 1, 1)."""
    source = devkit(tmp_path / "set")
    label(source / "Annotations/0.xml", ("cat", 1, 1, 1, 1))
    for one_based, expected in ((True, [0, 0, 1, 1]), (False, [1, 1, 1, 1])):
        dataset = open_dataset(ingest("voc", source, one_based=one_based))
        boxes = [box.tolist() for split in dataset.splits.values() for box in split.annotations.boxes_A4]
        assert expected in boxes


def test_difficult_is_kept_and_ignored_in_evaluation(ingest: Ingest, tmp_path):
    source = devkit(tmp_path / "set", 2)
    flags = "<pose>Left</pose><truncated>1</truncated><difficult>1</difficult>"
    for i in range(2):
        label(
            source / f"Annotations/{i}.xml",
            ("cat", 1, 1, 9, 9, flags),
            ("cat", 2, 2, 9, 9, "<pose>Unspecified</pose><difficult>0</difficult>"),
        )
    for split in open_dataset(ingest("voc", source)).splits.values():
        assert split.annotations.extra == {0: {"pose": "Left", "truncated": 1, "difficult": 1, "ignore": 1}}


def test_absent_values_are_marked(ingest: Ingest, tmp_path):
    source = devkit(tmp_path / "set", 2)
    for i in range(2):
        label(source / f"Annotations/{i}.xml", ("cat", 1, 1, 9, 9), size="")
        path = source / f"Annotations/{i}.xml"
        more = "<object><name>cat</name></object><object><bndbox><xmin>3</xmin></bndbox></object></annotation>"
        path.write_text(path.read_text().replace("</annotation>", more))
    for split in open_dataset(ingest("voc", source)).splits.values():
        assert split.images.widths_I.tolist() == [0]
        assert split.annotations.category_A.tolist() == [1, 1, -1] and split.annotations.label_A.tolist() == [0, 0, -1]
        assert np.isnan(split.annotations.boxes_A4).tolist() == [[False] * 4, [True] * 4, [False, True, True, True]]


def test_lists_decide_and_the_rest_is_said(ingest: Ingest, tmp_path):
    source = devkit(tmp_path / "set", 8)
    main = source / "ImageSets/Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("0\n1\n2 1\n\n")
    (main / "val.txt").write_text("3.jpg\nghost\n2\n")
    (main / "cat_train.txt").write_text("4 1\n5 -1\n")
    dataset = ingest("voc", source)
    assert names(dataset) == {"train": ["0.jpg", "1.jpg", "2.jpg"], "val": ["2.jpg", "3.jpg", "ghost.jpg"]}
    info = open_dataset(dataset).info
    assert info.counts["val"]["missing"] == 1
    assert info.unlisted == ("Annotations/*.xml: 4", "JPEGImages/*.jpg: 4")


def test_two_years_with_equal_names_do_not_collide(ingest: Ingest, tmp_path):
    for year, word in (("VOC2007", "train"), ("VOC2012", "val")):
        devkit(tmp_path / "kit" / year, 2)
        (tmp_path / f"kit/{year}/ImageSets/Main").mkdir(parents=True)
        (tmp_path / f"kit/{year}/ImageSets/Main/{word}.txt").write_text("0\n1\n")
    dataset = ingest("voc", tmp_path / "kit")
    assert names(dataset) == {
        name: [f"{year}/JPEGImages/{i}.jpg" for i in (0, 1)] for name, year in (("train", "VOC2007"), ("val", "VOC2012"))
    }
    for split in open_dataset(dataset).splits.values():
        for row, name in enumerate(split.images.file_names):
            assert split.path(row).read_text() == str(tmp_path / "kit" / name)


def test_missing_picture_beside_its_labels_is_not_taken_from_another_split(ingest: Ingest, tmp_path):
    for name in ("train", "val"):
        for i in range(3):
            label(tmp_path / f"set/{name}/{i}.xml", ("cat", 1, 1, 9, 9))
            picture(tmp_path / f"set/{name}/{i}.jpg")
    (tmp_path / "set/val/1.jpg").unlink()
    dataset = open_dataset(ingest("voc", tmp_path / "set"))
    assert {name: counts["missing"] for name, counts in dataset.info.counts.items()} == {"train": 0, "val": 1}
    assert dataset.split("val").images.file_names == ["val/0.jpg", "val/1.jpg", "val/2.jpg"]


def test_wrong_filename_element_takes_nobodys_picture(ingest: Ingest, tmp_path):
    """Label files are often copied: all of them state the first one's picture."""
    source = tmp_path / "set"
    for i in range(6):
        label(source / f"labels/{i}.xml", ("cat", i, 0, 50, 40), filename="0.jpg")
        picture(source / f"pics/{i}.jpg")
    (source / "pics/5.jpg").unlink()
    dataset = open_dataset(ingest("voc", source))
    for split in dataset.splits.values():
        for row, name in enumerate(split.images.file_names):
            assert split.annotations.boxes_A4[split.rows_of(row), 0].tolist() == [int(name[0])]
    assert dataset.info.counts["train"]["missing"] == 1


def test_stated_name_serves_where_the_own_does_not(ingest: Ingest, tmp_path):
    for i in range(4):
        label(tmp_path / f"set/label_{i}.xml", ("cat", i, 0, 50, 40), filename=f"C:\\photos\\{i}.jpg")
        picture(tmp_path / f"set/{i}.jpg")
    for split in open_dataset(ingest("voc", tmp_path / "set")).splits.values():
        for row, name in enumerate(split.images.file_names):
            assert split.path(row).exists() and split.annotations.boxes_A4[split.rows_of(row), 0].tolist() == [int(name[0])]


def test_class_list(ingest: Ingest, tmp_path, root):
    source = devkit(tmp_path / "set")
    dataset = open_dataset(ingest("voc", source, classes=["zebra", "dog", "cat"]))
    assert dataset.classes == ("zebra", "dog", "cat") and [c.id for c in dataset.info.categories] == [1, 2, 3]
    assert set(dataset.split("train").annotations.label_A.tolist()) == {1, 2}
    with pytest.raises(DataError) as caught:
        ingest("voc", source, classes=["cta", "dog"])
    assert str(caught.value) == (
        f"{source}/Annotations/0.xml: object 1: class 'cat' is not in dataset.classes\n  Did you mean cta? Choices: cta, dog"
    )
    with pytest.raises(ConfigError, match=r"dataset.classes"):
        dataset_config(root, "voc", source=str(source), classes=["cat", "cat"])


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("<annotation>\n<object>\n</annotation>", ": line 3, column 3: not valid XML (mismatched tag)"),
        ("", ": line 1, column 1: not valid XML (no element found)"),
        (
            "<annotation><object><name>cat</name><bndbox><xmin>one</xmin></bndbox></object></annotation>",
            ": object 1: bndbox/xmin: must be a number, is 'one'",
        ),
        ("<annotation><size><width>wide</width></size></annotation>", ": size/width: must be a number"),
        ("<annotation><size><width>1e300</width></size></annotation>", ": size: 1e+300 x 0"),
        ("<annotation><size><width>nan</width></size></annotation>", ": size: nan x 0"),
        ('<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;">]><annotation>&d;</annotation>', ": not acceptable XML"),
        ('<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>', ": not acceptable XML"),
        ('<?xml version="1.0" encoding="klingon"?><annotation/>', ": "),
    ],
)
def test_bad_label_file_is_named(ingest: Ingest, tmp_path, text, wrong):
    source = devkit(tmp_path / "set")
    (source / "Annotations/3.xml").write_text(text)
    into = tmp_path / "checkout"
    with pytest.raises(DataError) as caught:
        ingest("voc", source, into=into)
    assert str(caught.value).startswith(f"{source}/Annotations/3.xml{wrong}")
    assert not [p for p in into.rglob("*") if p.is_file()]


def test_nan_text_is_a_fault_to_keep(ingest: Ingest, tmp_path):
    source = devkit(tmp_path / "set", 2)
    for i in range(2):
        label(source / f"Annotations/{i}.xml", ("cat", "nan", 1, "inf", 4), ("cat", 1, 1, 2, 2))
    for split in open_dataset(ingest("voc", source)).splits.values():
        assert np.isnan(split.annotations.boxes_A4[0]).tolist() == [True, False, True, False]


def test_sources_that_are_no_voc(ingest: Ingest, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="is empty"):
        ingest("voc", tmp_path / "none")
    picture(tmp_path / "pics/a.jpg")
    with pytest.raises(DataError, match="no Pascal VOC label file"):
        ingest("voc", tmp_path / "pics")
    label(tmp_path / "labels/a.xml", ("cat", 1, 1, 2, 2))
    with pytest.raises(DataError, match="has no pictures"):
        ingest("voc", tmp_path / "labels")
    label(tmp_path / "pics/a.xml")
    with pytest.raises(DataError, match="no named object"):
        ingest("voc", tmp_path / "pics")
    for i in range(2):
        label(tmp_path / f"two/{i}/a.xml", ("cat", 1, 1, 2, 2))
    picture(tmp_path / "two/pics/a.jpg")
    with pytest.raises(DataError, match=r"two/1/a.xml: labels a.jpg, as 0/a.xml does"):
        ingest("voc", tmp_path / "two")


def test_written_file_has_no_path_of_this_machine(shared, ingest: Ingest):
    dataset = ingest("voc", shared / "data/bccd_voc")
    text = "".join(path.read_text() for path in dataset.glob("*.json"))
    assert str(shared) not in text and json.loads((dataset / "dataset.json").read_text())["source"] == "voc:bccd_voc"
