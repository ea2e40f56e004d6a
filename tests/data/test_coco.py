"""COCO as a source: layouts that people really have, which label file is taken, which folder its pictures are in."""

import json
import unicodedata
from pathlib import Path

import pytest

from pipeline.commands.convert import convert
from pipeline.data.dataset import open_dataset
from pipeline.errors import DataError
from tests.data.conftest import Ingest

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]


def coco(path: Path, *file_names: str, categories: list | None = None) -> None:
    """A label file whose image i has one box at x = i."""
    images = [{"id": 100 + i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(file_names)]
    boxes = [
        {"id": i, "image_id": 100 + i, "category_id": 7, "bbox": [i, 2, 10, 10], "area": 100, "iscrowd": 0}
        for i in range(len(images))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories or CATEGORIES}))


def pictures(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(str(folder / name))


def found(dataset: Path) -> dict[str, dict[str, int]]:
    """Per split: file name to the x of its box, which is the image's place in the label file."""
    opened = open_dataset(dataset)
    result = {}
    for name, split in opened.splits.items():
        boxes = {
            f: split.annotations.boxes_A4[split.rows_of(i), 0].astype(int).tolist() for i, f in enumerate(split.images.file_names)
        }
        result[name] = {file_name: xs[0] for file_name, xs in boxes.items()}
    return result


@pytest.mark.parametrize(
    ("labels", "folders"),
    [
        ("annotations/instances_{}2017.json", "{}2017"),
        ("annotations/{}.json", "images/{}"),
        ("annotations/{}.json", "{}/images"),
        ("{}/_annotations.coco.json", "{}"),
        ("{}.json", "{}"),
        ("labels/{}/labels.json", "data/{}"),
    ],
)
def test_layouts_with_equal_names_in_both_splits(ingest: Ingest, tmp_path, labels, folders):
    """0.jpg is in train and in val, one picture of val is missing: it must stay missing, not become train's."""
    source = tmp_path / "set"
    for name in ("train", "val"):
        coco(source / labels.format(name), "1.jpg", "0.jpg", "2.jpg")
        pictures(source / folders.format(name), "0.jpg", "1.jpg", *(["2.jpg"] if name == "train" else []))
    dataset = ingest("coco", source)
    for name, split in open_dataset(dataset).splits.items():
        there = [split.path(row).read_text() if split.path(row).exists() else None for row in range(3)]
        missing = None if name == "val" else str(source / folders.format(name) / "2.jpg")
        assert there == [str(source / folders.format(name) / "0.jpg"), str(source / folders.format(name) / "1.jpg"), missing]
        assert list(found(dataset)[name].values()) == [1, 0, 2]


@pytest.mark.parametrize(
    "prefix", ["", "images/", "./images/", "/home/someone/photos/images/", "C:\\photos\\", "../images/", "other/"]
)
def test_one_file_beside_images_whatever_its_paths(ingest: Ingest, tmp_path, prefix):
    source = tmp_path / "set"
    names = [f"{i}.jpg" for i in range(6)]
    coco(source / "result.json", *(prefix + name for name in names))
    pictures(source / "images", *names)
    dataset = ingest("coco", source)
    joined = {name: x for split in found(dataset).values() for name, x in split.items()}
    assert joined == {name: i for i, name in enumerate(names)}
    assert open_dataset(dataset).info.counts["train"]["missing"] == 0


def test_pictures_of_one_file_in_several_folders(ingest: Ingest, tmp_path):
    coco(tmp_path / "set/labels.json", "0.jpg", "1.jpg", "2.jpg", "3.jpg")
    pictures(tmp_path / "set/a", "0.jpg", "1.jpg")
    pictures(tmp_path / "set/b", "2.jpg", "3.jpg")
    joined = {name: x for split in found(ingest("coco", tmp_path / "set")).values() for name, x in split.items()}
    assert joined == {"a/0.jpg": 0, "a/1.jpg": 1, "b/2.jpg": 2, "b/3.jpg": 3}


def test_a_picture_is_what_the_label_file_names(ingest: Ingest, tmp_path):
    """Unusual suffixes are found too: whether it is a picture is for `validate` to say."""
    coco(tmp_path / "set/labels.json", "0.heic", "1", "2.txt")
    pictures(tmp_path / "set/scans", "0.heic", "1", "2.txt")
    assert open_dataset(ingest("coco", tmp_path / "set")).info.counts["train"]["missing"] == 0


def test_real_set_takes_instances_unless_told(shared, ingest: Ingest):
    source = shared / "data/coco_mini_by"
    default = open_dataset(ingest("coco", source))
    assert len(default.classes) == 80 and default.info.tasks == ("box", "mask")
    assert {name: counts["annotations"] for name, counts in default.info.counts.items()} == {"train": 333, "val": 213}
    assert default.info.unlisted == ("annotations/*.json: 2",)  # the people's key points
    train = default.split("train")
    original = json.loads((source / "annotations/instances_train2017.json").read_text())
    assert train.header == {"info": original["info"], "licenses": original["licenses"]}
    assert {extra["license"] for extra in train.images.extra.values()} <= {4, 5, 7, 8} and len(train.images.extra) == 26
    assert int(train.annotations.crowd_A.sum()) == len(train.annotations.rle) == 5
    people = open_dataset(ingest("coco", source, annotations="annotations/person_keypoints_*.json"))
    assert people.classes == ("person",) and people.info.tasks == ("box", "mask", "keypoints")
    assert people.split("val").annotations.keypoints_AK3.shape == (44, 17, 3)
    assert people.info.categories[0].skeleton[0] == (16, 14)


def test_captions_of_the_real_set_are_kept_and_written_again(shared, root, ingest: Ingest, tmp_path: Path, monkeypatch):
    from pycocotools.coco import COCO

    monkeypatch.chdir(root)
    source = shared / "data/coco_mini_by"
    original = COCO(str(source / "annotations/captions_val2017.json"))
    kept = open_dataset(ingest("coco", source)).split("val").images
    assert len(original.anns) == 125
    for row, identity in enumerate(kept.ids_I.tolist()):
        records = sorted(original.imgToAnns[identity], key=lambda one: one["id"])
        assert kept.extra[row]["captions"] == [one["caption"] for one in records]
    lost = convert(str(source), tmp_path / "again", "coco")
    assert lost == ["2 files of the source: are not read, or of no split: annotations/*.json"]
    again = COCO(str(tmp_path / "again/annotations/captions_val.json"))
    texts = {identity: sorted(one["caption"] for one in records) for identity, records in original.imgToAnns.items()}
    assert {identity: sorted(one["caption"] for one in records) for identity, records in again.imgToAnns.items()} == texts
    assert "captions" not in json.loads((tmp_path / "again/annotations/instances_val.json").read_text())["images"][0]
    assert "51 fields 'captions' of pictures: cannot be kept" in convert(str(tmp_path / "again"), tmp_path / "boxes", "yolo")


@pytest.mark.parametrize(
    "record, said",
    [
        ({"id": 1, "image_id": 100, "caption": 5}, r"captions.json: annotations\[0\].caption: must be a text"),
        ({"id": 1, "image_id": "x", "caption": "a"}, r"annotations\[0\].image_id: must be a whole number"),
        (None, r"annotations\[0\]: must be an object"),
    ],
)
def test_a_wrong_caption_is_said_with_its_place(record, said: str, tmp_path: Path, ingest: Ingest):
    coco(tmp_path / "set/labels.json", "1.jpg")
    pictures(tmp_path / "set", "1.jpg")
    (tmp_path / "set/captions.json").write_text(json.dumps({"images": [], "annotations": [record]}))
    with pytest.raises(DataError, match=said):
        ingest("coco", tmp_path / "set")


def test_panoptic_labels_are_no_objects(shared, ingest: Ingest):
    """Beside labels of objects they are passed over, whatever they are called; asked for, they are refused with the way to go."""
    source = shared / "data/panopticapi_sample"
    taken = open_dataset(ingest("coco", source))
    assert sum(counts["annotations"] for counts in taken.info.counts.values()) == 50
    with pytest.raises(
        DataError, match=r"panoptic_examples.json: annotations\[0\]: lists the segments .*\n  read it by dataset=panoptic"
    ):
        ingest("coco", source, annotations="sample_data/panoptic_examples.json")


def test_pycocotools_reads_what_was_written(shared, ingest: Ingest):
    """The judge sees the source's own boxes, areas and masks in our files, and every id counts from 1."""
    from pycocotools.coco import COCO

    source = shared / "data/coco_mini_by"
    dataset = ingest("coco", source)
    for name in ("train", "val"):
        ours, theirs = COCO(str(dataset / f"{name}.json")), COCO(str(source / f"annotations/instances_{name}2017.json"))
        assert sorted(ours.getAnnIds()) == list(range(1, len(theirs.getAnnIds()) + 1))
        assert ours.cats == theirs.cats and sorted(ours.getImgIds()) == sorted(theirs.getImgIds())
        for annotation in ours.loadAnns(ours.getAnnIds()):
            (other,) = theirs.loadAnns([annotation["source_id"]])
            assert {key: annotation[key] for key in other if key != "id"} == {
                key: value for key, value in other.items() if key != "id"
            }
            assert (ours.annToMask(annotation) == theirs.annToMask(other)).all()
        for image in ours.loadImgs(ours.getImgIds()):
            (other,) = theirs.loadImgs([image["id"]])
            assert (dataset / "images" / image["file_name"]).read_bytes() == (
                source / f"{name}2017" / other["file_name"]
            ).read_bytes()


@pytest.mark.parametrize("name", ["coco", "coco_instances", "coco_roboflow", "mmdet_coco"])
def test_layouts_of_another_tools_tests(shared, ingest: Ingest, name):
    dataset = open_dataset(ingest("coco", shared / "data/datumaro_formats/tests/assets/coco_dataset" / name))
    assert [category.id for category in dataset.info.categories] == [1, 2, 4] and dataset.classes == ("a", "b", "c")
    assert dataset.split("train").images.file_names == ["train/a.jpg"]
    val = dataset.split("val")
    assert val.annotations.boxes_A4.tolist() == [[0, 0, 1, 2], [0, 0, 1, 9]] and val.annotations.crowd_A.tolist() == [False, True]
    assert val.annotations.rle == {1: {"size": [10, 5], "counts": [0, 20, 30]}}
    assert val.annotations.polygons.polygons_of(0)[0].tolist() == [[0, 0], [1, 0], [1, 2], [0, 2]]
    assert val.annotations.extra[0] == {"attributes": {"x": 1, "y": "hello"}}


def test_faults_of_the_judges_fixture_survive_the_stage(shared, ingest: Ingest, tmp_path):
    source = tmp_path / "set"
    source.mkdir()
    (source / "labels.json").write_bytes((shared / "data/coco_json_fixtures/hotcoco/healthcheck_bad.json").read_bytes())
    for name in ("img1.jpg", "img2.jpg", "img1_dup.jpg"):  # the same bytes anywhere: they decide who goes to val
        (source / name).write_text(name)
    dataset = open_dataset(ingest("coco", source))
    ids = [i for split in dataset.splits.values() for i in split.images.ids_I.tolist()]
    tables = [split.annotations for split in dataset.splits.values()]
    assert sorted(ids) == [1, 1, 2] and sum(map(len, tables)) == 4
    assert sum((table.image_A == -1).sum() for table in tables) == 1 and sum((table.label_A == -1).sum() for table in tables) == 1


def test_ingesting_our_own_dataset_keeps_labels_and_first_source_ids(shared, ingest: Ingest, tmp_path):
    first = ingest("coco", shared / "data/coco_mini_by")
    second = ingest("coco", first)
    for name in ("train.json", "val.json"):
        one, two = (json.loads((folder / name).read_text()) for folder in (first, second))
        assert one == two


def test_segments_of_maps_are_no_label_file(ingest: Ingest, tmp_path):
    """COCO's panoptic files have the three lists too; so has what ingest writes of a dataset with maps."""
    pictures(tmp_path / "set", "a.png", "b.png")
    for split, name in (("train", "a.png"), ("val", "b.png")):
        coco(tmp_path / f"set/{split}.json", name)
        coco(tmp_path / f"set/panoptic_{split}.json", name)
    assert found(ingest("coco", tmp_path / "set")) == {"train": {"a.png": 0}, "val": {"b.png": 0}}


@pytest.mark.parametrize(
    ("files", "pattern", "wrong"),
    [
        (["a_train.json", "b_train.json"], None, "several label files for the split train: a_train.json, b_train.json"),
        (["a.json", "b.json"], None, "several label files: a.json, b.json"),
        (["train.json", "more.json"], None, "names no split in more.json, beside train.json"),
        (["a.json"], "b*.json", "has no label file b*.json"),
        ([], None, "has no label file *.json"),
    ],
)
def test_an_open_choice_lists_the_candidates(ingest: Ingest, tmp_path, files, pattern, wrong):
    pictures(tmp_path / "set/images", "0.jpg")
    for name in files:
        coco(tmp_path / "set" / name, "0.jpg")
    with pytest.raises(DataError) as caught:
        ingest("coco", tmp_path / "set", annotations=pattern)
    assert wrong in str(caught.value) and "dataset" in str(caught.value).splitlines()[1]


def test_other_json_is_no_candidate_but_broken_json_is_reported(ingest: Ingest, tmp_path):
    source = tmp_path / "set"
    pictures(source / "images", *(f"{i}.jpg" for i in range(4)))
    coco(source / "labels.json", *(f"{i}.jpg" for i in range(4)))
    (source / "results.json").write_text('[{"image_id": 1}]')
    (source / "settings.json").write_text('{"colour": "red"}')
    (source / "captions.json").write_text('{"images": [], "annotations": []}')
    assert len(open_dataset(ingest("coco", source)).splits) == 2
    (source / "labels.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"labels.json: line 1, column 13"):
        ingest("coco", source)


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda c: c["images"].append(dict(c["images"][0], id=5)), "images: file_name '0.jpg' is listed 2 times"),
        (
            lambda c: c["images"].append(dict(c["images"][0], id=5, file_name="./0.jpg")),
            "images: file_name '0.jpg' is listed 2 times",
        ),
        (lambda c: c.update(categories=[]), "categories: is empty"),
        (lambda c: c.pop("categories"), "categories: must be a list"),
        (lambda c: c.update(images=[]), "holds none of the pictures"),
        (lambda c: c.update(annotations=[]), "hold no box, mask or keypoint"),
        (lambda c: c["images"][0].update(file_name=7), "images[0].file_name: must be a text"),
        (lambda c: c["annotations"][2].update(bbox=[1, 2, 3, "4"]), "annotations[2].bbox[3]: must be a number"),
    ],
)
def test_bad_content_is_one_message_and_nothing_written(ingest: Ingest, tmp_path, change, wrong):
    source = tmp_path / "set"
    pictures(source / "images", *(f"{i}.jpg" for i in range(4)))
    coco(source / "labels.json", *(f"{i}.jpg" for i in range(4)))
    content = json.loads((source / "labels.json").read_text())
    change(content)
    (source / "labels.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        ingest("coco", source, into=tmp_path / "checkout")
    assert wrong in str(caught.value) and str(source) in str(caught.value)
    assert not [path for path in (tmp_path / "checkout").rglob("*") if path.is_file()]


def test_splits_must_agree_on_class_names(ingest: Ingest, tmp_path):
    source = tmp_path / "set"
    coco(source / "train.json", "a/0.jpg")
    coco(source / "val.json", "a/1.jpg", categories=[{"id": 3, "name": "cow"}, {"id": 7, "name": "dog"}])
    pictures(source / "a", "0.jpg", "1.jpg")
    with pytest.raises(DataError, match=r"val.json: categories: id 3 is 'cow' here and 'cat' in .*train.json"):
        ingest("coco", source)


def test_file_name_cannot_reach_outside_the_source(ingest: Ingest, tmp_path):
    """`../secret.jpg` exists beside the source; it must not be copied."""
    source = tmp_path / "set"
    (tmp_path / "secret.jpg").write_text("secret")
    pictures(source, "0.jpg", "1.jpg")
    coco(
        source / "labels.json",
        "0.jpg",
        "1.jpg",
        "../secret.jpg",
        str(tmp_path / "secret.jpg").replace("secret", "set/../secret2"),
    )
    dataset = ingest("coco", source)
    assert sorted(path.name for path in (dataset / "images").rglob("*.jpg")) == ["0.jpg", "1.jpg"]
    assert open_dataset(dataset).info.counts["train"]["missing"] == 2


@pytest.mark.parametrize(("labels", "files"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFC", "NFC"), ("NFD", "NFD")])
@pytest.mark.parametrize("folder", ["images", "Bilder für é"])
def test_accents_written_in_two_ways_are_one_name(ingest: Ingest, tmp_path, labels, files, folder):
    """A Mac writes file names decomposed; a label file made elsewhere has them composed."""
    source, names = tmp_path / "set", ["Zürich.jpg", "Orléans.jpg", "plain.jpg"]
    coco(source / "result.json", *(unicodedata.normalize(labels, f"{folder}/{name}") for name in names))
    pictures(source / unicodedata.normalize(files, folder), *(unicodedata.normalize(files, name) for name in names))
    dataset = ingest("coco", source)
    assert [counts["missing"] for counts in open_dataset(dataset).info.counts.values()] == [0, 0]
    joined = {name: x for split in found(dataset).values() for name, x in split.items()}
    assert joined == {unicodedata.normalize(files, name): x for x, name in enumerate(names)}


def test_two_files_that_differ_in_spelling_alone_stay_two(ingest: Ingest, tmp_path):
    source, spellings = tmp_path / "set", [unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD")]
    coco(source / "result.json", *spellings, "other.jpg")
    pictures(source / "images", *spellings, "other.jpg")
    dataset = ingest("coco", source)
    joined = {name: x for split in found(dataset).values() for name, x in split.items()}
    assert joined == {spellings[0]: 0, spellings[1]: 1, "other.jpg": 2}
