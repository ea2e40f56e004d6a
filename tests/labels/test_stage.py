"""The stage: files in, files out, and what stays when the gate closes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.dataset import open_dataset, write_dataset
from pipeline.errors import GateError
from pipeline.layout import Layout
from pipeline.settings import ValidateStage
from pipeline.stages.validate import run
from tests.labels.planted import Planted, settings
from tests.labels.test_validation import spoil


def stage(root: Path, **chosen: Any) -> ValidateStage:
    return ValidateStage(layout=Layout(root), validate=settings(**chosen))


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
    assert "<script" not in page
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
