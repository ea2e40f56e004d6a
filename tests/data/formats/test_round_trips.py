"""What a target holds comes back: written by `convert`'s writers, read by the readers; what it does not hold is counted."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from pipeline.data.config import DatasetConfig
from pipeline.data.formats.catalogue import FORMATS, TARGETS, Content
from pipeline.data.formats.detect import detect
from pipeline.data.formats.reading import read_format
from pipeline.data.formats.writing import write_source
from pipeline.data.sources import SourceData
from tests.data.formats.samples import content, source

KINDS = {
    Content.BOXES: ("box",),
    Content.POLYGONS: ("polygon", "parts"),
    Content.RLE: ("rle",),
    Content.KEYPOINTS: ("keypoints",),
    Content.ROTATED: ("rotated",),
    Content.CROWD: ("crowd",),
}
EXACT = {
    ("yolo-polygons", Content.BOXES): "rectangles",
    ("yolo-polygons", Content.RLE): "outlines",
    ("yolo-polygons", Content.POLYGONS): "one outline of several parts",
    ("voc", Content.POLYGONS): "pixels",
    ("panoptic", Content.BOXES): "those of masks",
    ("panoptic", Content.POLYGONS): "pixels",
    ("panoptic", Content.CROWD): "those with masks",
}
"""Kinds that a target holds in another form; tests of their own say which."""
READER = {name: name.partition("-")[0] for name in FORMATS}


def settings(root: Path, kind: str, folder: Path, **changed: Any) -> Any:
    values = yaml.safe_load((root / f"conf/dataset/{kind}.yaml").read_text())
    values |= {"source": str(folder), "watched": str(folder)} | changed
    return TypeAdapter(DatasetConfig).validate_python(values)


def read(root: Path, kind: str, folder: Path, **changed: Any) -> SourceData:
    return read_format(settings(root, kind, folder, **changed), folder)


def written(tmp_path: Path, found: SourceData, target: str) -> tuple[Path, list[str]]:
    out = tmp_path / target
    out.mkdir()
    return out, write_source(target, found, out)


def held(target: str) -> list[str]:
    """Kinds of objects that the target keeps as they are."""
    contents = FORMATS[target].writes or ()
    return [kind for one in Content if one in contents and (target, one) not in EXACT for kind in KINDS[one]]


@pytest.mark.parametrize("splits", [("train", "val"), ("all",)], ids=["splits", "whole"])
@pytest.mark.parametrize("target", TARGETS)
def test_what_a_target_holds_comes_back(root: Path, tmp_path: Path, target: str, splits: tuple[str, ...]) -> None:
    kinds = held(target)
    if target == "yolo-pose":
        kinds = ["keypoints"]  # every object has them
    elif target == "yolo-oriented":
        kinds = ["rotated"]
    elif target == "yolo-polygons":
        kinds = ["polygon"]
    made = source(tmp_path / "made", *kinds, splits=splits)
    out, lost = written(tmp_path, made, target)
    back = read(root, READER[target], out)
    expected, found = content(made, 5), content(back, 5, lambda name: Path(name.replace("__", "/")).stem)
    if target == "csv":  # a table has no row for a picture without objects: it is unlabelled, or unlisted
        assert any("images" in line for line in back.unlisted)
        expected, found = ({name: rest for name, rest in one.items() if rest[2]} for one in (expected, found))
    if target == "kitti":  # no class on a region to ignore, no blanks in names, two decimals
        expected, found = as_kitti(expected), as_kitti(found)
    assert found == expected
    assert not [line for line in lost if "kept" in line and "supercategories" not in line], lost
    assert detect(out).kind == READER[target]


def as_kitti(found: dict[str, Any]) -> dict[str, Any]:
    result = {}
    for name, (unlabelled, size, objects) in found.items():
        rows = {("" if one[6] else one[0].replace(" ", "_"), str(one[1]), one[6]) for one in objects}
        result[name.replace(" ", "_")] = (unlabelled, size, sorted(rows))
    return result


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_target_does_not_hold_is_counted(root: Path, tmp_path: Path, target: str) -> None:
    """Everything into everything: what comes back has no more kinds than the catalogue says, and each missing one was counted."""
    kinds = [kind for kinds in KINDS.values() for kind in kinds]
    made = source(tmp_path / "made", *kinds)
    out, lost = written(tmp_path, made, target)
    back = read(root, READER[target], out)
    tables = [split.annotations for split in back.splits.values()]
    there = {
        Content.BOXES: True,
        Content.POLYGONS: any(len(table.polygons.polygon_starts) > 1 for table in tables),
        Content.RLE: any(table.rle for table in tables),
        Content.KEYPOINTS: any(table.keypoints_AK3 is not None for table in tables),
        Content.ROTATED: any(table.rotated_A5 is not None for table in tables),
        Content.CROWD: any(table.crowd_A.any() or any("ignore" in one for one in table.extra.values()) for table in tables),
    }
    writes = FORMATS[target].writes or frozenset()
    if Content.POLYGONS in writes and Content.POLYGONS not in FORMATS[READER[target]].reads:
        assert "4 objects: are polygons: become pixels" in lost
    assert {one for one, found in there.items() if found} <= writes
    text = "\n".join(lost)
    for one, words in (
        (Content.POLYGONS, "6? ?masks: polygons|4 masks: polygons cannot"),
        (Content.RLE, "2 masks: run lengths cannot"),
        (Content.KEYPOINTS, "2 sets of keypoints: cannot"),
        (Content.ROTATED, "2 rotated boxes: cannot"),
        (Content.CROWD, "2 crowds and ignored objects: left out"),
    ):
        assert (one in writes) or words.rpartition("|")[2] in text, (one, text)
    objects = sum(len(table) for table in tables)
    if target not in ("kitti", "panoptic"):
        assert objects == 2 * (len(kinds) - (Content.CROWD not in writes)), lost
