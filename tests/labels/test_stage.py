"""The stage: files in, files out, and what stays when the gate closes."""

import json
import re
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.data.dataset import open_dataset, write_dataset
from pipeline.errors import GateError
from pipeline.labels.validation import validate
from pipeline.layout import Layout
from pipeline.settings import ValidateStage
from pipeline.stages.validate import run
from tests.labels.planted import Planted, settings, validate_stage
from tests.labels.test_validation import spoil


def stage(root: Path, **chosen: Any) -> ValidateStage:
    return validate_stage(Layout(root), settings(**chosen))


def ingested(planted: Planted, root: Path) -> Layout:
    layout = Layout(root)
    layout.dataset.mkdir(parents=True)
    write_dataset(layout.dataset, planted.dataset())
    return layout


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_outputs_are_there_and_equal_in_every_run(planted: Planted, tmp_path: Path) -> None:
    wanted = spoil(planted)
    layouts = [ingested(planted, tmp_path / name) for name in ("one", "two")]
    before = contents(layouts[0].dataset)
    for layout in layouts:
        run(stage(layout.root))
    reports = contents(layouts[0].reports("validate"))
    assert sorted(reports) == ["audit.json", "dataset_card.md", "findings.json", "index.html", "metrics.json"]
    assert contents(layouts[1].reports("validate")) == reports
    assert contents(layouts[1].validated) == contents(layouts[0].validated)
    assert contents(layouts[0].dataset) == before
    findings = json.loads(reports["findings.json"])
    assert {tuple(sorted(row)) for row in findings} == {("annotation", "code", "fix", "image", "reason", "severity", "split")}
    assert {row["code"]: (row["split"], row["image"], row["annotation"]) for row in findings if row["fix"]} == wanted
    metrics = json.loads(reports["metrics.json"])
    assert metrics["validate/findings/box-zero-area"] == 1
    assert metrics["validate/images_kept"] == len(open_dataset(layouts[0].validated).split("train").images) + 2
    assert not [name for name in contents(layouts[0].validated / "images") if name in ("leaked.png", "cut.png", "text.png")]


@pytest.mark.parametrize(("form", "orientation"), [("PNG", 6), ("JPEG", 8), ("JPEG", 5)])
def test_a_picture_that_was_labelled_as_shown_is_written_upright(
    planted: Planted, tmp_path: Path, form: str, orientation: int
) -> None:
    """Its labels, in the frame of the shown picture, stay as they are; one labelled as stored, and the source, stay too."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = Image.fromarray(np.linspace(0, 255, 80 * 100 * 3).reshape(80, 100, 3).astype(np.uint8))
    for name, stated in (("shown.png", (80, 100)), ("stored.png", (100, 80))):
        planted.picture("train", name, stated)
        planted.box("train", name, (10, 10, 70, 75), 3)
        smooth.save(planted.folder / name, form, exif=exif)
    layout = ingested(planted, tmp_path)
    before = contents(layout.dataset)
    run(stage(tmp_path, fix="safe", gate=1.0))
    assert contents(layout.dataset) == before
    images = layout.validated / "images"
    with Image.open(images / "shown.png") as made, Image.open(layout.dataset / "images/shown.png") as given:
        assert made.size == (80, 100) and not made.getexif() and made.format == form
        wanted = np.asarray(ImageOps.exif_transpose(given)).astype(int)
        assert np.abs(np.asarray(made).astype(int) - wanted).max() <= (0 if form == "PNG" else 6)
    assert (images / "stored.png").read_bytes() == before["images/stored.png"]
    kept = open_dataset(layout.validated).split("train")
    rows = {name: kept.annotations.boxes_A4[kept.rows_of(row)].tolist() for row, name in enumerate(kept.images.file_names)}
    assert rows["shown.png"] == rows["stored.png"] == [[10, 10, 70, 75]]
    audit = [row for row in json.loads((layout.reports("validate") / "audit.json").read_text()) if row["fix"] == "upright"]
    turned = {"orientation": orientation, "width": 100, "height": 80}, {"orientation": 1, "width": 80, "height": 100}
    assert [(row["image"], row["old"], row["new"]) for row in audit] == [("shown.png", *turned)]
    again = validate(open_dataset(layout.validated), settings("safe"))
    assert not [row for row in again.changes if row.image == "shown.png"]


def test_a_closed_gate_leaves_the_old_output_and_shows_the_findings(planted: Planted, tmp_path: Path) -> None:
    layout = ingested(planted, tmp_path / "root")
    run(stage(layout.root))
    old = contents(layout.validated)
    planted.box("train", "a.png", (10, 10, 10, 10), 3)
    write_dataset(layout.dataset, planted.dataset())
    with pytest.raises(GateError, match="annotations have errors"):
        run(stage(layout.root, gate=0.01))
    assert contents(layout.validated) == old
    listed = json.loads((layout.reports("validate") / "findings.json").read_text())
    assert [row["code"] for row in listed if row["severity"] != "info"] == ["box-zero-area"]
    assert "box-zero-area" in (layout.reports("validate") / "index.html").read_text()


def test_the_page_shows_a_picture_per_finding_and_says_how_many_it_leaves_out(planted: Planted, tmp_path: Path) -> None:
    for number in range(5):
        planted.picture("train", f"p{number}.png")
        planted.box("train", f"p{number}.png", (10, 10, 10, 10), 3)
    cfg = stage(ingested(planted, tmp_path / "root").root)
    run(cfg)
    page = (cfg.layout.reports("validate") / "index.html").read_text()
    assert page.count("data:image/jpeg") == 5
    assert page.count("<script") == 1 and page.count('<table class="sortable">') == 3
    assert 'src="http' not in page
    small = replace(cfg.validate, page=replace(cfg.validate.page, pictures=2, rows=3))
    run(replace(cfg, validate=small))
    page = (cfg.layout.reports("validate") / "index.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert "Shown: 2 of 5 pictures" in page
    assert re.search(r"The first 3 of 1\d; findings.json holds all.", page)


def test_missing_dataset_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"data/dataset.*is not a dataset.*\n.*ingest"):
        run(stage(tmp_path))


HOSTILE_RUNS: list[dict[str, Any]] = [
    {"size": [80, 100], "counts": [nan]},
    {"size": [nan, inf], "counts": [1]},
    {"size": [80, 100], "counts": [1.5, 7998.5]},
    {"size": "ab", "counts": "é"},
    {},
    {"size": [80, 100], "counts": [[1]]},
    {"size": [80, 100], "counts": []},
    {"size": [2**20, 2**20], "counts": [2**39, 2**39]},
    {"size": [80, 100], "counts": [2**62, -(2**62), 8000]},
]


@pytest.mark.parametrize("fix", ["none", "safe", "all"])
@pytest.mark.filterwarnings("ignore:overflow")
def test_hostile_labels_end_in_findings_and_a_page(planted: Planted, tmp_path: Path, fix: str) -> None:
    for rle in HOSTILE_RUNS:
        planted.box("train", "a.png", (10, 10, 40, 40), 3, rle=rle)
        planted.box("train", "b.png", (nan, 10, 40, 40), 3, rle=rle)
    for box in ((10, 10, 1e300, 40), (-1e300, -1e300, 1e300, 1e300), (1e300, 1e300, -1e300, 5)):
        planted.box("train", "a.png", box, 3, area=1e300)
        planted.box("train", "a.png", box, 3, area=-inf, polygons=[(1e300, 1e300, -1e300, 1e300, 5, 5)])
    planted.box("train", None, (10, 10, 40, 40), 99, polygons=[(1, 1, 5, 5, 5, 1), ()], crowd=True)
    planted.box("train", "a.png", (10, 10, 40, 40), 3, keypoints=[nan] * 6)
    planted.box("train", "b.png", (10, 10, 40, 40), 7, keypoints=[inf, -inf, 2, 1e38, 1e38, 1])
    cfg = stage(ingested(planted, tmp_path / "root").root, fix=fix)
    run(cfg)
    assert "mask-rle-sum" in (cfg.layout.reports("validate") / "index.html").read_text()
    changes = json.loads((cfg.layout.reports("validate") / "audit.json").read_text())
    assert bool(changes) == (fix != "none")
    if fix != "none":
        assert validate(open_dataset(cfg.layout.validated), settings(fix)).changes == []


def test_the_chosen_models_input_judges_the_pictures(planted: Planted, tmp_path: Path) -> None:
    """100 x 80 pixels at a shorter side of 64, then of 400."""
    ingested(planted, tmp_path)
    small = stage(tmp_path)
    large = replace(small, model=replace(small.model, input=replace(small.model.input, short_side=400, long_side=800)))
    for chosen, expected in ((small, 0), (large, 3)):
        run(chosen)
        findings = json.loads((tmp_path / "reports/validate/findings.json").read_bytes())
        assert sum(finding["code"] == "image-small" for finding in findings) == expected
