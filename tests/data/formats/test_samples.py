"""Samples written by hand from each format's specification, with the traps that people's files have."""

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.formats.detect import detect
from pipeline.data.sources import SourceData
from pipeline.errors import DataError
from tests.data.formats.test_round_trips import read


def picture(path: Path, width: int = 60, height: int = 40) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), "grey").save(path)


def put(path: Path, text: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())


def rows(found: SourceData) -> list[tuple[Any, ...]]:
    """(split, picture, class, box, crowd) of every object."""
    result = []
    for name, split in found.splits.items():
        table = split.annotations
        for row in range(len(table)):
            label = found.categories[table.label_A[row]].name if table.label_A[row] >= 0 else None
            box = np.round(table.boxes_A4[row], 3).tolist()
            result.append((name, split.images.file_names[table.image_A[row]], label, box, bool(table.crowd_A[row])))
    return sorted(result, key=repr)


def extra(found: SourceData) -> list[dict[str, Any]]:
    return [
        table.extra.get(row, {}) for split in found.splits.values() for table in [split.annotations] for row in range(len(table))
    ]


# -- csv --

TABLES = {
    "tensorflow": b"filename,width,height,class,xmin,ymin,xmax,ymax\r\na.png,60,40,cat,1,2,11,22\r\n",
    "byte order mark": "\ufefffilename,class,xmin,ymin,xmax,ymax\na.png,cat,1,2,11,22\n".encode(),
    "spreadsheet": b"sep=;\r\nImage;Label;X;Y;Width;Height\r\na.png;cat;1,0;2,0;10,0;20,0\r\n",
    "utf-16": "filename\tclass\txmin\tymin\txmax\tymax\r\na.png\tcat\t1\t2\t11\t22\r\n".encode("utf-16"),
    "windows path": b'path,class,x1,y1,x2,y2\n"C:\\Users\\me\\set\\a.png",cat,1,2,11,22\n',
    "make-sense": b"label_name,bbox_x,bbox_y,bbox_width,bbox_height,image_name,image_width,image_height\n"
    b"cat,1,2,10,20,a.png,60,40\n",
    "kaggle": b'image_id,width,height,bbox,label\na,60,40,"[1.0, 2.0, 10.0, 20.0]",cat\n',
    "retinanet": b"images/a.png,1,2,11,22,cat\n",
    "shares": b"filename,class,xmin,ymin,xmax,ymax\na.png,cat,0.016666666667,0.05,0.183333333333,0.55\n",
    "centres": b"file,class,cx,cy,w,h\na.png,cat,6,12,10,20\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_table(root: Path, tmp_path: Path, name: str) -> None:
    picture(tmp_path / "images/a.png")
    put(tmp_path / "labels.csv", TABLES[name])
    put(tmp_path / "notes.csv", b"author,day\nme,1\n")
    assert rows(read(root, "csv", tmp_path)) == [("all", "images/a.png", "cat", [1, 2, 11, 22], False)]
    assert detect(tmp_path).kind == "csv"


def test_tables_faults_are_kept_or_named_with_the_line(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    head = "filename,class,xmin,ymin,xmax,ymax,note\n"
    put(tmp_path / "l.csv", head + 'a.png,cat,9,2,1,22,"two\nlines"\n\na.png,,1,,11,22,\n')
    found = read(root, "csv", tmp_path)
    assert rows(found)[0][2:4] == ("cat", [9, 2, 1, 22]) and extra(found)[0] == {"note": "two\nlines"}
    assert rows(found)[1][2] is None and np.isnan(rows(found)[1][3]).any()
    put(tmp_path / "l.csv", head + "a.png,cat,1,2,11,22,\na.png,cat,1,two,11,22,\n")
    with pytest.raises(DataError, match=r"l.csv: line 3: ymin: must be a number, is 'two'"):
        read(root, "csv", tmp_path)
    put(tmp_path / "l.csv", "filename,class,left\n")
    with pytest.raises(DataError, match=r"has no table of boxes .*\n  .*l.csv has filename, class, left"):
        read(root, "csv", tmp_path)


def test_the_sets_own_tables_equal_its_xml(root: Path, shared: Path) -> None:
    """microcontroller_voc holds its boxes twice: as VOC XML and as TensorFlow's tables, each by its author."""
    source = shared / "data/microcontroller_voc"
    assert rows(read(root, "csv", source)) == rows(read(root, "voc", source))
    with pytest.raises(DataError, match=r"fits several formats:\n  voc: .*\n  csv: .*\n  choose by dataset=voc or dataset=csv"):
        detect(source / "images")


# -- labelme --


def shape(label: str, kind: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def test_labelme_with_a_windows_path_and_groups(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "img/a.png")
    mask = io.BytesIO()
    Image.fromarray(np.array([[1, 0], [1, 1]], bool)).save(mask, "PNG")
    shapes = [
        shape("cat", "polygon", [[1, 2], [11, 2], [11, 22]], group_id=1),
        shape("cat", "polygon", [[20, 2], [30, 2], [30, 12]], group_id=1),
        shape("dog", "rectangle", [[30, 30], [5, 6]], group_id=2, flags={"difficult": True}),
        shape("nose", "point", [[7, 8]], group_id=2),
        shape("cat", "circle", [[20, 20], [23, 24]]),
        shape("cat", "mask", [[4, 6], [5, 7]], mask=base64.b64encode(mask.getvalue()).decode()),
    ]
    top = {"version": "5.4.1", "shapes": shapes, "imagePath": "C:\\work\\img\\a.png", "imageData": None}
    put(tmp_path / "labels/other name.json", "\ufeff" + json.dumps(top | {"imageHeight": 40, "imageWidth": 60}))
    found = read(root, "labelme", tmp_path)
    assert rows(found) == [
        ("all", "img/a.png", "cat", [1, 2, 30, 22], False),
        ("all", "img/a.png", "cat", [15, 15, 25, 25], False),
        ("all", "img/a.png", "cat", [4, 6, 6, 8], False),
        ("all", "img/a.png", "dog", [5, 6, 30, 30], False),
    ]
    table = found.splits["all"].annotations
    assert table.rle[3] == {"size": [40, 60], "counts": [4 * 40 + 6, 2, 39, 1, 60 * 40 - 4 * 40 - 6 - 42]}
    assert table.extra[1] == {"difficult": 1} and [one.keypoints for one in found.categories] == [(), ("nose",)]
    assert table.keypoints_AK3 is not None and table.keypoints_AK3[1].tolist() == [[7, 8, 2]]
    assert detect(tmp_path).kind == "labelme"


# -- CVAT --

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels><label><name>dog</name></label><label><name>cat</name></label></labels></task>
</meta>
<image id="0" name="a.png" subset="Train" width="60" height="40">
  <box label="cat" occluded="1" xtl="20" ytl="10" xbr="40" ybr="20" rotation="90.0" z_order="0">
    <attribute name="age">old</attribute>
  </box>
  <polygon label="cat" occluded="0" points="1,2;11,2;11,22" group_id="3"/>
  <polygon label="cat" occluded="0" points="20,2;30,2;30,12" group_id="3"/>
  <mask label="dog" rle="1, 2, 1" left="4" top="6" width="2" height="2"/>
  <mask label="dog" rle="1, 2, 9" left="4" top="6" width="2" height="2"/>
  <tag label="night"/>
</image>
<image id="1" name="a.png" subset="Validation" width="60" height="40"></image>
</annotations>"""


def test_cvat_for_images(root: Path, tmp_path: Path) -> None:
    """A quarter turn exchanges the sides about the centre; a mask's runs go along its rows; subsets may have equal names."""
    for subset in ("Train", "Validation"):
        picture(tmp_path / f"images/{subset}/a.png")
    put(tmp_path / "annotations.xml", CVAT.replace("\n", "\r\n"))
    found = read(root, "cvat", tmp_path)
    assert [one.name for one in found.categories] == ["dog", "cat"]
    assert rows(found) == [
        ("train", "images/Train/a.png", "cat", [1, 2, 30, 22], False),
        ("train", "images/Train/a.png", "cat", [25, 5, 35, 25], False),
        ("train", "images/Train/a.png", "dog", [4, 6, 6, 8], False),
        ("train", "images/Train/a.png", "dog", [4, 6, 6, 8], False),
    ]
    table = found.splits["train"].annotations
    assert table.rotated_A5 is not None and table.rotated_A5[0].tolist() == [30, 15, 20, 10, -90]
    assert table.extra[0] == {"occluded": 1, "age": "old"} and table.extra[3]["mask_rle"] == "1, 2, 9"
    assert table.rle == {2: {"size": [40, 60], "counts": [4 * 40 + 7, 1, 38, 1, 60 * 40 - 207]}}
    assert found.splits["train"].images.extra[0] == {"tags": ["night"]} and len(found.splits["val"].images) == 1
    assert detect(tmp_path).kind == "cvat"


def test_cvat_for_video_leaves_out_what_is_outside(root: Path, shared: Path) -> None:
    found = read(root, "cvat", shared / "data/datumaro_formats/tests/assets/cvat_dataset/for_video")
    images = found.splits["all"].images
    assert images.file_names == [f"images/frame_0000{frame}.png" for frame in (10, 13, 16)]
    assert [(one[1][-6:], one[2]) for one in rows(found)] == [("10.png", "II"), ("10.png", "klhg"), ("13.png", "II")]
    assert rows(found)[0][3] == [3, 4, 10, 5] and [one.name for one in found.categories] == ["klhg", "z U k", "II"]


def test_a_foreign_entity_is_refused(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    put(
        tmp_path / "a.xml", '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><annotations><image name="&e;"/></annotations>'
    )
    with pytest.raises(DataError, match=r"a.xml: not acceptable XML"):
        read(root, "cvat", tmp_path)


# -- KITTI --


def test_kitti_with_regions_that_do_not_count(root: Path, tmp_path: Path) -> None:
    """The first line is that of the devkit's readme; DontCare becomes a crowd of each class; the labels are of image_2."""
    for camera in ("image_2", "image_3"):
        picture(tmp_path / f"training/{camera}/000001.png")
    picture(tmp_path / "testing/image_2/000001.png")
    put(tmp_path / "training/calib/000001.txt", "P0: " + " ".join(["7.2e+02"] * 12))
    put(
        tmp_path / "training/label_2/000001.txt",
        "Car 0.88 3 -0.69 0.00 12.12 40.94 37.96 1.60 1.57 3.23 -2.70 1.74 3.68 -1.29\r\n"
        "Pedestrian 0.00 0 -10 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10 0.9\r\n"
        "DontCare -1 -1 -10 5 6 7 8 -1 -1 -1 -1000 -1000 -1000 -10\r\n",
    )
    found = read(root, "kitti", tmp_path)
    name = "image_2/000001.png"
    assert rows(found) == [
        ("train", f"training/{name}", "Car", [0, 12.12, 40.94, 37.96], False),
        ("train", f"training/{name}", "Car", [5, 6, 7, 8], True),
        ("train", f"training/{name}", "Pedestrian", [1, 2, 3, 4], False),
        ("train", f"training/{name}", "Pedestrian", [5, 6, 7, 8], True),
    ]
    assert extra(found)[0]["location"] == [-2.70, 1.74, 3.68] and extra(found)[1] == {"truncated": 0, "occluded": 0, "score": 0.9}
    assert detect(tmp_path).kind == "kitti"
    put(tmp_path / "training/label_2/000002.txt", "Car 0 0 0 1 2 3\n")
    with pytest.raises(DataError, match=r"000002.txt: line 1: has 7 columns: an object has 15"):
        read(root, "kitti", tmp_path)


# -- Open Images, Datumaro, Supervisely, Cityscapes, masks --


def test_open_images(root: Path, tmp_path: Path) -> None:
    for split in ("train", "validation"):
        picture(tmp_path / f"{split}/0a1b.jpg")
        put(
            tmp_path / f"{split}-annotations-bbox.csv",
            "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
            "0a1b,xclick,/m/01g317,1,0.25,0.5,0.1,0.9,1,0,0,-1,0\n0a1b,xclick,/m/0new,1,0,1,0,1,0,0,1,0,0\n",
        )
    put(tmp_path / "class-descriptions-boxable.csv", "/m/01g317,Person\n/m/0k4j,Car\n")
    found = read(root, "openimages", tmp_path)
    assert rows(found) == [
        ("train", "train/0a1b.jpg", "/m/0new", [0, 0, 60, 40], True),
        ("train", "train/0a1b.jpg", "Person", [15, 4, 30, 36], False),
        ("val", "validation/0a1b.jpg", "/m/0new", [0, 0, 60, 40], True),
        ("val", "validation/0a1b.jpg", "Person", [15, 4, 30, 36], False),
    ]
    assert extra(found)[0] == {"occluded": 1} and detect(tmp_path).kind == "openimages"


def test_datumaro(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "images/train/a.jpg")
    annotations = [
        {
            "id": 0,
            "type": "bbox",
            "group": 1,
            "label_id": 1,
            "bbox": [1, 2, 10, 20],
            "attributes": {"pose": "x"},
        },
        {"id": 1, "type": "polygon", "group": 1, "label_id": 1, "points": [1, 2, 5, 2, 5, 9], "attributes": {}},
        {"id": 2, "type": "bbox", "group": 0, "label_id": 9, "bbox": [1, 2, 3, 4], "attributes": {"is_crowd": True}},
        {"id": 3, "type": "caption", "caption": "a cat", "group": 0, "attributes": {}},
    ]
    item = {"id": "a", "annotations": annotations, "image": {"path": "a.jpg", "size": [40, 60]}}
    labels = {"label": {"labels": [{"name": "cat", "parent": ""}, {"name": "dog", "parent": "animal"}]}}
    put(tmp_path / "annotations/train.json", json.dumps({"infos": {}, "categories": labels, "items": [item]}))
    found = read(root, "datumaro", tmp_path)
    assert rows(found)[0] == ("train", "images/train/a.jpg", "dog", [1, 2, 11, 22], False) and len(rows(found)) == 3
    table = found.splits["train"].annotations
    assert [len(table.polygons.polygons_of(row)) for row in range(3)] == [1, 0, 0] and table.area_A[0] == 14
    assert (
        extra(found)[0] == {"pose": "x"} and extra(found)[1] == {"label_id": 9} and table.crowd_A.tolist() == [False, True, False]
    )
    assert found.categories[1].supercategory == "animal" and detect(tmp_path).kind == "datumaro"


def test_supervisely(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "p/train/img/a.jpg")
    mask = io.BytesIO()
    Image.fromarray(np.array([[255, 0], [255, 255]], np.uint8)).save(mask, "PNG")
    bitmap = {"data": base64.b64encode(zlib.compress(mask.getvalue())).decode(), "origin": [4, 6]}
    square = {"exterior": [[1, 2], [11, 2], [11, 22]], "interior": []}
    objects = [
        {"classTitle": "cat", "geometryType": "polygon", "points": square, "tags": [{"name": "wet"}]},
        {"classTitle": "dog", "geometryType": "rectangle", "points": {"exterior": [[30, 30], [5, 6]], "interior": []}},
        {"classTitle": "dog", "geometryType": "bitmap", "bitmap": bitmap},
    ]
    put(tmp_path / "p/meta.json", json.dumps({"classes": [{"title": "dog", "shape": "any"}, {"title": "cat", "shape": "any"}]}))
    put(tmp_path / "p/train/ann/a.jpg.json", json.dumps({"size": {"height": 40, "width": 60}, "objects": objects}))
    found = read(root, "supervisely", tmp_path)
    assert [one[2:4] for one in rows(found)] == [("cat", [1, 2, 11, 22]), ("dog", [4, 6, 6, 8]), ("dog", [5, 6, 30, 30])]
    assert [one.name for one in found.categories] == ["dog", "cat"] and extra(found)[0] == {"tags": ["wet"]}
    assert detect(tmp_path).kind == "supervisely"


def test_cityscapes(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png")
    picture(tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_color.png")
    polygon = [[1, 2], [11, 2], [11, 22]]
    objects = [{"label": label, "polygon": polygon} for label in ("car", "cargroup", "sky", "out of roi")]
    path = tmp_path / "gtFine/train/ulm/ulm_000001_000019_gtFine_polygons.json"
    put(path, json.dumps({"imgHeight": 40, "imgWidth": 60, "objects": objects}))
    found = read(root, "cityscapes", tmp_path)
    name = "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png"
    assert rows(found) == [("train", name, "car", [1, 2, 11, 22], crowd) for crowd in (False, True)]
    assert "polygons of 'sky', no thing: 1" in found.unlisted and detect(tmp_path).kind == "cityscapes"


def test_masks_a_file_per_object_and_a_number_per_object(root: Path, tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[2:22, 1:11] = 255
    picture(tmp_path / "bowl/x1/images/x1.png")
    picture(tmp_path / "bowl/x1/masks/1.png")
    picture(tmp_path / "bowl/x2/images/x2.png")
    Image.fromarray(mask).save(tmp_path / "bowl/x1/masks/1.png")
    Image.fromarray(mask.T[:40, :40]).save(tmp_path / "bowl/x1/masks/2.png")
    assert [one[2:4] for one in rows(read(root, "masks", tmp_path / "bowl"))] == [
        ("object", [1, 2, 11, 22]),
        ("object", [2, 1, 22, 11]),
    ]
    picture(tmp_path / "fudan/PNGImages/p.png")
    mask[30:35, 50:60] = 7
    put(tmp_path / "fudan/PedMasks/p_mask.png", b"")
    Image.fromarray(mask).save(tmp_path / "fudan/PedMasks/p_mask.png")
    found = read(root, "masks", tmp_path / "fudan")
    assert [one[3] for one in rows(found)] == [[1, 2, 11, 22], [50, 30, 60, 35]]
    assert {detect(tmp_path / name).kind for name in ("bowl", "fudan")} == {"masks"}


# -- YOLO --


def test_yolo_pose_with_two_numbers_a_point(root: Path, tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    put(tmp_path / "data.yaml", "names: [cat]\nkpt_shape: [2, 2]\n")
    put(tmp_path / "labels/a.txt", "0 0.5 0.5 0.5 0.5 0.25 0.5 0 0\n")
    found = read(root, "yolo", tmp_path)
    table = found.splits["all"].annotations
    assert table.keypoints_AK3 is not None and table.keypoints_AK3[0].tolist() == [[15, 20, 2], [0, 0, 0]]
    assert found.categories[0].keypoints == ("point 1", "point 2")


def test_yolo_oriented_on_request(root: Path, tmp_path: Path) -> None:
    """A quarter turn: the first corner is at the bottom left."""
    picture(tmp_path / "images/a.png")
    put(tmp_path / "data.yaml", "names: [cat]\n")
    points = [(20, 30), (20, 10), (30, 10), (30, 30)]
    put(tmp_path / "labels/a.txt", "0 " + " ".join(f"{x / 60!r} {y / 40!r}" for x, y in points))
    table = read(root, "yolo", tmp_path, oriented=True).splits["all"].annotations
    assert table.rotated_A5 is not None
    np.testing.assert_allclose(table.rotated_A5[0], [25, 20, 20, 10, 90], atol=1e-9)
    np.testing.assert_allclose(table.boxes_A4[0], [20, 10, 30, 30], atol=1e-9)
    assert read(root, "yolo", tmp_path).splits["all"].annotations.rotated_A5 is None


# -- COCO and LVIS --


def test_lvis_names_pictures_by_their_address(root: Path, tmp_path: Path) -> None:
    """LVIS v1 has no file_name; its federated fields stay with the picture."""
    picture(tmp_path / "train2017/000000000139.jpg")
    image = {"id": 139, "width": 60, "height": 40, "coco_url": "http://images.cocodataset.org/train2017/000000000139.jpg"}
    image |= {"neg_category_ids": [3], "not_exhaustive_category_ids": [1]}
    one = {"id": 1, "image_id": 139, "category_id": 1, "bbox": [1, 2, 10, 20], "area": 200, "segmentation": []}
    top = {
        "images": [image],
        "annotations": [one],
        "categories": [{"id": 1, "name": "cat", "frequency": "c", "synset": "cat.n.01"}],
    }
    put(tmp_path / "lvis_v1_train.json", json.dumps(top))
    found = read(root, "coco", tmp_path)
    assert rows(found) == [("train", "train2017/000000000139.jpg", "cat", [1, 2, 11, 22], False)]
    assert found.splits["train"].images.extra[0]["not_exhaustive_category_ids"] == [1]
