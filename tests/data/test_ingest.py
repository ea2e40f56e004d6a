"""The stage as a whole: reproducible, sources untouched, archives equal to folders, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.data.dataset import open_dataset, write_dataset
from pipeline.errors import ConfigError, DataError
from pipeline.files import digest_tree
from tests.data.conftest import Ingest, dataset_config
from tests.data.test_coco import coco, pictures
from tests.data.test_voc import devkit, names


def test_same_source_and_seed_give_the_same_bytes(shared, ingest: Ingest, tmp_path):
    source = shared / "data/microcontroller_voc"
    before = digest_tree(source)
    copy = tmp_path / "elsewhere/microcontroller_voc"
    shutil.copytree(source, copy, copy_function=shutil.copyfile)
    one, two, other = ingest("voc", source), ingest("voc", copy), ingest("voc", source, seed=1)
    assert digest_tree(one) == digest_tree(two), "where the source lies must not matter"
    assert names(one)["test"] == names(other)["test"] and names(one)["val"] != names(other)["val"]
    assert digest_tree(source) == before


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_archive_equals_folder(shared, ingest: Ingest, tmp_path, suffix):
    source = shared / "data/coco_mini_by"
    archive = tmp_path / f"coco_mini_by{suffix}"
    files = sorted(path for path in source.rglob("*") if path.is_file())
    if suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in files:
                file.write(path, path.relative_to(source.parent))
    else:
        with tarfile.open(archive, "w:gz" if suffix.endswith("gz") else "w") as file:
            for path in files:
                file.add(path, path.relative_to(source.parent))
    digest = digest_tree(archive)
    assert digest_tree(ingest("coco", archive)) == digest_tree(ingest("coco", source))
    assert digest_tree(archive) == digest


def test_byte_identical_pictures_stay_together(shared, ingest: Ingest, tmp_path):
    """Three copies of every real picture under other names: no bytes in train and in val."""
    source, given = tmp_path / "set", shared / "data/microcontroller_voc/images/test"
    for number in range(3):
        for path in given.iterdir():
            (source / str(number)).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, source / str(number) / f"copy{number}_{path.name}")
    dataset = open_dataset(ingest("voc", source, split={"val": 0.3}))
    contents = {name: {split.path(i).read_bytes() for i in range(len(split.images))} for name, split in dataset.splits.items()}
    assert not contents["train"] & contents["val"] and contents["val"]
    assert {name: len(split.images) for name, split in dataset.splits.items()} == {"train": 15, "val": 6}
    assert "byte-identical pictures together" in dataset.info.splitting


def test_digest_follows_labels_and_pixels_alone(ingest: Ingest, tmp_path):
    source = devkit(tmp_path / "set")
    main = source / "ImageSets/Main"
    main.mkdir(parents=True)
    (main / "train.txt").write_text("0\n1\n2\n3\n")
    (main / "val.txt").write_text("4\n5\n")

    def digest() -> str:
        return open_dataset(ingest("voc", source)).info.digest

    first = digest()
    os.utime(source / "JPEGImages/0.jpg", (1, 1))
    (source / "notes.txt").write_text("nothing")
    assert digest() == first
    (source / "JPEGImages/0.jpg").write_text("other pixels")
    second = digest()
    label = source / "Annotations/4.xml"
    label.write_text(label.read_text().replace("<ymax>30<", "<ymax>31<"))
    assert len({first, second, digest()}) == 3


def test_metrics_are_flat_counts(shared, ingest: Ingest, tmp_path):
    ingest("voc", shared / "data/bccd_voc", into=tmp_path)
    values = json.loads((tmp_path / "reports/ingest/metrics.json").read_text())
    assert values["ingest/images/train"] == 205 and values["ingest/images/test"] == 72 and values["ingest/classes"] == 3
    assert sum(values[f"ingest/annotations/{name}"] for name in ("train", "val", "test")) == 4888
    assert all(type(value) is int for value in values.values())


def test_copy_of_a_dataset_is_the_same_dataset(shared, ingest: Ingest, tmp_path):
    """What `validate` does: open, write elsewhere. Same files, same digest."""
    dataset = ingest("coco", shared / "data/coco_mini_by", annotations="annotations/person*")
    write_dataset(tmp_path / "copy", open_dataset(dataset))
    assert digest_tree(tmp_path / "copy") == digest_tree(dataset)
    write_dataset(tmp_path / "labels", open_dataset(dataset), copy_images=False)
    assert not list((tmp_path / "labels/images").iterdir())
    assert (tmp_path / "labels/dataset.json").read_bytes() == (dataset / "dataset.json").read_bytes()


def test_failed_ingest_leaves_the_old_dataset(ingest: Ingest, tmp_path):
    source = devkit(tmp_path / "set")
    dataset = ingest("voc", source, into=tmp_path / "checkout")
    before = digest_tree(tmp_path / "checkout")
    (source / "Annotations/3.xml").write_text("<annotation>")
    with pytest.raises(DataError):
        ingest("voc", source, into=tmp_path / "checkout")
    assert digest_tree(tmp_path / "checkout") == before and dataset.is_dir()


def test_no_old_picture_stays(ingest: Ingest, tmp_path):
    ingest("voc", devkit(tmp_path / "large", 9), into=tmp_path / "checkout")
    dataset = ingest("voc", devkit(tmp_path / "small", 3), into=tmp_path / "checkout")
    assert len(list((dataset / "images").iterdir())) == 3


def test_sources_that_are_not_there_or_not_supported(ingest: Ingest, tmp_path, root):
    for kind in ("voc", "coco"):
        with pytest.raises(DataError, match=f"^{tmp_path}/nothing: no such file or folder\n  set dataset.source="):
            ingest(kind, tmp_path / "nothing")
        (tmp_path / kind).mkdir()
        with pytest.raises(DataError, match="is empty"):
            ingest(kind, tmp_path / kind)
        with pytest.raises(ConfigError, match=r"ftp:// is not supported; supported: a path, http, https, s3"):
            ingest(kind, "ftp://host/key.zip")
        with pytest.raises(ConfigError, match=r"^config: dataset.source is not set: add dataset.source=PATH"):
            dataset_config(root, kind)
    (tmp_path / "a.rar").write_text("x")
    with pytest.raises(DataError, match="is not a folder"):
        ingest("voc", tmp_path / "a.rar")


def test_file_address_is_a_path(ingest: Ingest, tmp_path):
    assert len(names(ingest("voc", f"file://{devkit(tmp_path / 'set')}"))) == 2


def test_what_systems_leave_behind_is_not_data(ingest: Ingest, tmp_path):
    source = devkit(tmp_path / "set")
    clean = digest_tree(ingest("voc", source))
    for junk in ("__MACOSX/Annotations/0.xml", ".git/x.xml", "Annotations/._0.xml", "JPEGImages/.hidden.jpg", "Thumbs.db"):
        (source / junk).parent.mkdir(parents=True, exist_ok=True)
        (source / junk).write_text("junk")
    assert digest_tree(ingest("voc", source)) == clean


def test_linked_folders_are_followed_and_loops_end(ingest: Ingest, tmp_path):
    real = devkit(tmp_path / "real")
    source = tmp_path / "set"
    source.mkdir()
    (source / "Annotations").symlink_to(real / "Annotations")
    (source / "JPEGImages").symlink_to(real / "JPEGImages")
    (source / "Annotations/again").symlink_to(source)
    (source / "also").symlink_to(real / "JPEGImages")
    assert sum(map(len, names(ingest("voc", source)).values())) == 6


def test_file_name_that_is_not_utf8(ingest: Ingest, tmp_path):
    source = devkit(tmp_path / "set")
    for folder, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
        os.rename(source / folder / f"0.{suffix}", os.path.join(os.fsencode(source / folder), b"\xff0." + suffix.encode()))
    found = [name for split in names(ingest("voc", source)).values() for name in split]
    assert sorted(found) == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg", "_0.jpg"]


def test_open_dataset_says_what_is_wrong(ingest: Ingest, tmp_path):
    with pytest.raises(DataError, match=r"has no dataset.json\n  make it by: python -m pipeline ingest"):
        open_dataset(tmp_path)
    dataset = ingest("voc", devkit(tmp_path / "set"))
    with pytest.raises(DataError, match="no split 'vall'\n  Did you mean val"):
        open_dataset(dataset).split("vall")
    (dataset / "val.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"val.json: line 1, column 13"):
        open_dataset(dataset)
    (dataset / "val.json").unlink()
    with pytest.raises(DataError, match=r"val.json: cannot be read"):
        open_dataset(dataset)
    for text, wrong in (
        ("{", "line 1"),
        ("[]", "not version 1"),
        ('{"version": 9}', "not version 1"),
        ('{"version": 1}', "'categories'"),
    ):
        (dataset / "dataset.json").write_text(text)
        with pytest.raises(DataError, match=wrong):
            open_dataset(dataset)


def test_unreadable_file_is_named(ingest: Ingest, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root can read everything")
    source = devkit(tmp_path / "set")
    (source / "JPEGImages/2.jpg").chmod(0)
    with pytest.raises(DataError, match=r"2.jpg: cannot be read"):
        ingest("voc", source)


def test_many_annotations_stay_columns(tmp_path):
    """20,000 annotations with 20-point polygons: read in seconds, with little more memory than the text."""
    import time
    import tracemalloc

    from pipeline.data.dataset import read_split

    count = 20_000
    images = [{"id": i, "file_name": f"{i:06d}.jpg", "width": 640, "height": 480} for i in range(count // 10)]
    polygon = [round(i * 1.37, 2) for i in range(40)]
    boxes = [
        {"id": i + 1, "image_id": i // 10, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 9.5, "segmentation": [polygon]}
        for i in range(count)
    ]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "x"}]}))
    del images, boxes
    tracemalloc.start()
    start = time.process_time()
    split = read_split(path, "train", [1], tmp_path)
    seconds, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(split.annotations) == count and split.rows_of(7) == slice(70, 80)
    assert peak < 4 * path.stat().st_size, f"{peak / 1e6:.0f} MB for {path.stat().st_size / 1e6:.0f} MB of text"
    assert seconds < 20, "with tracing on"


def test_reading_data_needs_no_torch(root):
    code = (
        "import sys; sys.modules['torch'] = sys.modules['torchvision'] = None;"
        "import pipeline.stages.ingest, pipeline.data.config, pipeline.data.dataset"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=os.environ | {"PYTHONPATH": str(root)})


def test_names_never_collide(ingest: Ingest, tmp_path):
    source = tmp_path / "set"
    for folder in ("a", "b"):
        pictures(source / "images" / folder, "1.jpg", "2.jpg")
    coco(source / "labels.json", "a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg")
    dataset = ingest("coco", source)
    found = {
        path.relative_to(dataset / "images").as_posix(): Path(path.read_text()) for path in (dataset / "images").rglob("*.jpg")
    }
    assert found == {f"{folder}/{i}.jpg": source / f"images/{folder}/{i}.jpg" for folder in "ab" for i in (1, 2)}
