"""The command: any format to any that can hold the content, with what was lost; nothing overwritten, nothing half-written."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.__main__ import main
from pipeline.commands.convert import convert
from pipeline.data.formats.catalogue import FORMATS, TARGETS, table
from pipeline.data.formats.outline import outlines_of
from pipeline.data.formats.writing import WRITERS
from pipeline.errors import ConfigError, DataError
from pipeline.files import digest_tree
from tests.data.formats.samples import content, source
from tests.data.formats.test_round_trips import read, written
from tests.data.simple import simple_dataset


def test_the_command_detects_converts_and_says_what_was_lost(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(root)
    given, _ = written(tmp_path, source(tmp_path / "made", "box", "polygon", "rle", splits=("train",)), "coco")
    before = digest_tree(given)
    assert main(["convert", str(given), str(tmp_path / "target"), "--to", "kitti"]) == 0
    said = capsys.readouterr().out
    assert "convert: dataset=auto: coco: 1 of the 1 JSON files looked into" in said
    assert "lost: 1 masks: polygons cannot be kept; the box stays" in said
    assert "lost: 1 masks: run lengths cannot be kept; the box stays" in said
    assert sum(len(split.annotations) for split in read(root, "kitti", tmp_path / "target").splits.values()) == 3
    assert digest_tree(given) == before
    after = digest_tree(tmp_path / "target")
    assert main(["convert", str(given), str(tmp_path / "target"), "--to", "yolo"]) == 2
    assert "is there already: nothing is overwritten" in capsys.readouterr().err and digest_tree(tmp_path / "target") == after
    assert main(["convert", str(given), str(given / "inside"), "--to", "yolo"]) == 2
    assert main(["convert", str(given), str(tmp_path / "other"), "--to", "yollo"]) == 2
    assert "invalid choice: 'yollo'" in capsys.readouterr().err
    assert main(["convert", str(given)]) == 2
    assert main(["convert", "s3://bucket/set", str(tmp_path / "other"), "--to", "voc"]) == 2
    assert not (tmp_path / "other").exists()


def test_a_failure_leaves_nothing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    given, _ = written(tmp_path, source(tmp_path / "made", "rle", splits=("train",)), "coco")
    path = given / "annotations/instances_train.json"
    path.write_bytes(path.read_bytes().replace(b"2265", b"2266"))
    with pytest.raises(DataError, match="its run lengths are not those of 40 x 60 pixels"):
        convert(str(given), tmp_path / "target", "labelme")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["coco", "made"]


def test_from_and_overrides_choose_how_to_read(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    given, _ = written(tmp_path, source(tmp_path / "made", "box", splits=("train",)), "voc")
    convert(str(given), tmp_path / "target", "coco", "voc", ["dataset.one_based=true"])
    [box] = read(root, "coco", tmp_path / "target").splits["train"].annotations.boxes_A4.tolist()
    assert box == [2.25, 3.5, 23.75, 14.75]
    with pytest.raises(DataError, match=r"has no data\.yaml"):
        convert(str(given), tmp_path / "again", "coco", "yolo")
    with pytest.raises(ConfigError, match=r"dataset\.one_based"):
        convert(str(given), tmp_path / "again", "coco", "yolo", ["dataset.one_based=true"])


def test_an_ingested_dataset_and_its_maps(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What ingest wrote is read as such, so that maps that no format takes are counted."""
    monkeypatch.chdir(root)
    given = simple_dataset(tmp_path / "simple", pictures=2)
    folder = tmp_path / "simple/dataset"
    (folder / "semantic").mkdir()
    info = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(info | {"tasks": ["box", "semantic"], "semantic": ["sky"]}))
    lost = convert(str(folder), tmp_path / "target", "yolo")
    assert "4 semantic or panoptic maps: cannot be kept" in lost and "dataset.json" in capsys.readouterr().out
    back = read(root, "yolo", tmp_path / "target")
    for name, split in back.splits.items():
        expected = given.split(name).annotations
        np.testing.assert_allclose(split.annotations.boxes_A4, expected.boxes_A4[~expected.crowd_A], atol=1e-6)


def test_through_every_target_and_back(root: Path, tmp_path: Path) -> None:
    """Boxes survive a tour through all formats."""
    made = found = source(tmp_path / "made", "box")
    for target in ("coco", "voc", "yolo", "labelme", "cvat", "datumaro"):
        out, _ = written(tmp_path, found, target)
        found = read(root, target, out)
    last = content(found, 5, lambda name: Path(name.replace("__", "/")).stem)
    assert last == content(made, 5, lambda name: Path(name).stem)


def test_outlines_enclose_exactly_the_mask(tmp_path: Path) -> None:
    """Drawn by Pillow-independent counting: a pixel is inside when a ray from its centre crosses an odd number of edges."""
    chance = np.random.default_rng(0)
    for _ in range(60):
        mask = chance.random((9, 11)) < chance.choice([0.3, 0.6, 0.9])
        rings, holes = outlines_of(mask)
        drawn = np.zeros_like(mask)
        for ring in rings:
            drawn |= inside(ring, mask.shape)
        assert (drawn >= mask).all() and (holes > 0 or (drawn == mask).all())
        assert all(len(ring) % 2 == 0 and len(ring) >= 4 for ring in rings)


def inside(ring: list[tuple[int, int]], shape: tuple[int, int]) -> np.ndarray:
    found = np.zeros(shape, bool)
    for (x1, y1), (x2, y2) in zip(ring, ring[1:] + ring[:1], strict=True):
        if x1 == x2:
            for y in range(min(y1, y2), max(y1, y2)):
                found[y, x1:] ^= True
    return found


def test_run_lengths_become_outlines_of_the_same_pixels(root: Path, tmp_path: Path) -> None:
    out, lost = written(tmp_path, source(tmp_path / "made", "rle", "parts", "box"), "yolo-polygons")
    table = read(root, "yolo", out).splits["train"].annotations
    assert [len(table.polygons.polygons_of(row)) for row in range(3)] == [1, 1, 1]
    assert table.area_A.round(3).tolist() == [20, 292.062, 210.125]
    np.testing.assert_allclose(table.boxes_A4[0], [2, 5, 4, 15], atol=1e-6)
    assert "2 run-length masks: become outlines along their pixels' edges" in lost
    assert "2 boxes without a mask: become rectangles" in lost


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("target", ["yolo", "yolo-polygons", "yolo-pose", "yolo-oriented"])
def test_turned_pictures_keep_their_labels_in_yolo(root: Path, tmp_path: Path, orientation: int, target: str) -> None:
    """YOLO's labels are of the picture as shown, COCO's of the stored pixels: there and back is the same."""
    kinds = {"yolo": "box", "yolo-polygons": "polygon", "yolo-pose": "keypoints", "yolo-oriented": "rotated"}
    made = source(tmp_path / "made", kinds[target], splits=("train",))
    for path in (tmp_path / "made").rglob("*.png"):
        exif = Image.Exif()
        exif[274] = orientation
        Image.open(path).save(path, exif=exif)
    out, _ = written(tmp_path, made, target)
    split, expected = read(root, "yolo", out).splits["train"], made.splits["train"]
    np.testing.assert_allclose(split.annotations.boxes_A4, expected.annotations.boxes_A4, atol=1e-3)
    if target == "yolo-polygons":
        np.testing.assert_allclose(split.annotations.polygons.points_P2, expected.annotations.polygons.points_P2, atol=1e-6)
    if target == "yolo-pose":
        found, given = split.annotations.keypoints_AK3, expected.annotations.keypoints_AK3
        assert found is not None and given is not None
        np.testing.assert_allclose(found, given, atol=1e-5)
    shown = (out / "labels/train/deep/train a.txt").read_text()
    plain, _ = written(tmp_path / "made", source(tmp_path / "plain", kinds[target], splits=("train",)), target)
    assert (shown == (plain / "labels/train/deep/train a.txt").read_text()) == (orientation == 1)


def test_the_page_is_what_the_code_says(root: Path) -> None:
    page = (root / "docs/formats.md").read_text()
    assert table() in page, "write it anew by: python -m pipeline convert --formats"
    assert {*WRITERS, "coco"} == {*TARGETS}
    assert {path.stem for path in (root / "conf/dataset").glob("*.yaml")} - {"auto", "shapes"} == {
        one.source for one in FORMATS.values() if one.source
    }
