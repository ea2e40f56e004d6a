"""python -m pipeline monitor: exit status, files, cache, event, and the words for what can be wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline import __main__ as program
from pipeline import events
from pipeline.commands import monitor
from pipeline.layout import Layout
from pipeline.monitor import reference
from tests.data.simple import simple_dataset
from tests.predict.toy import write_toy
from tests.test_imports import run_blocked

QUICK = ("tracking=off", "monitor.permutations=799", "monitor.unusual=3")
SIDE = 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with 30 validation pictures and a detector."""
    root = tmp_path_factory.mktemp("checkout")
    simple_dataset(root / "made", pictures=30, side=SIDE)
    (root / "data").mkdir()
    (root / "made/dataset").rename(root / "data/validated")
    write_toy(root / "models/onnx")
    return root


@pytest.fixture
def checkout(made: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.chdir(root)
    monkeypatch.setattr(monitor, "Layout", lambda: Layout(made))
    return Layout(made)


def shots(folder: Path, count: int = 24, light: float = 1.0) -> Path:
    """Pictures like those of `simple_dataset`, of another seed, with so much of their light."""
    made = simple_dataset(folder / "made", pictures=count, side=SIDE, seed=7).split("val")
    (folder / "new/below").mkdir(parents=True)
    for row, name in enumerate(made.images.file_names):
        pixels_HW3 = np.asarray(Image.open(made.path(row)).convert("RGB"))
        target = folder / "new" / ("below" if row % 2 else ".") / name
        Image.fromarray(np.rint(pixels_HW3 * light).astype(np.uint8)).save(target)
    return folder / "new"


def go(folder: Path, *overrides: str) -> int:
    return program.main(["monitor", str(folder), *QUICK, *overrides])


def verdict(checkout: Layout) -> dict:
    return json.loads((checkout.reports("monitor") / "monitor.json").read_text())


def test_pictures_of_the_same_kind_are_no_drift(checkout, tmp_path, capsys):
    assert go(shots(tmp_path)) == 0
    assert "monitor: no drift: 24 new pictures of new against 30 of val" in capsys.readouterr().out
    assert verdict(checkout)["drift"] is False and verdict(checkout)["pictures"]["compared"] == 24
    metrics = json.loads((checkout.reports("monitor") / "metrics.json").read_text())
    assert metrics["monitor/alarm"] == 0 and metrics["monitor/p/brightness"] > 0.01


def test_darker_pictures_are_drift_with_status_3_and_a_page(checkout, tmp_path, capsys):
    assert go(shots(tmp_path, light=0.7)) == 3
    out = capsys.readouterr().out
    assert "brightness" in out and "DRIFT" in out and "scores" in verdict(checkout)["drifted"], "the toy's score is the light"
    page = (checkout.reports("monitor") / "index.html").read_text()
    assert "http://" not in page and page.count("data:image") == 8 + 3 and "below/val_" in page


def test_the_reference_is_measured_once_per_detector_and_dataset(checkout, tmp_path, monkeypatch):
    folder = shots(tmp_path)
    assert go(folder) == 0
    first = verdict(checkout)
    monkeypatch.setattr(reference, "observe", lambda *_: pytest.fail("the reference was measured again"))
    assert go(folder) == 0 and verdict(checkout) == first
    monkeypatch.setattr(reference, "written_digest", lambda _: "other pictures")
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        go(folder)


def test_the_event_is_emitted_past_the_alarm_alone_and_when_it_is_asked_for(checkout, tmp_path, monkeypatch):
    said: list[tuple[str, str, dict]] = []
    monkeypatch.setattr(events, "emit", lambda *words: said.append(words))
    dark, same = shots(tmp_path / "dark", light=0.7), shots(tmp_path / "same")
    assert go(dark) == 3 and go(same, "monitor.emit=true") == 0 and not said
    assert go(dark, "monitor.emit=true") == 3
    [(event, resource, payload)] = said
    assert (event, resource) == ("dataset.drifted", "detectline.dataset.simple") and "brightness" in payload["drifted"]


def test_unreadable_pictures_are_named_and_left_out(checkout, tmp_path, capsys):
    folder = shots(tmp_path)
    (folder / "broken.png").write_bytes(b"no picture")
    assert go(folder) == 0
    assert "broken.png: cannot be read as a picture" in capsys.readouterr().out
    assert verdict(checkout)["pictures"] | {"unreadable": 1} == {"found": 25, "compared": 24, "unreadable": 1}


def test_what_is_wrong_is_said_in_words(checkout, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    few = shots(tmp_path / "few", count=6)
    wrong = {
        (str(tmp_path / "nowhere"),): (1, "no such folder"),
        (str(tmp_path / "empty"),): (1, "holds no pictures"),
        (str(few),): (1, "6 new pictures, and at least 20 are needed (monitor.least=20)"),
        (): (2, "needs the folder of the new pictures"),
        (str(few), "monitor.detector=champion", "monitor.least=5", "tracking=off"): (2, "tracking is off"),
        (str(few), "monitor.splits=[train]"): (2, "monitor.splits"),
    }
    for words, (status, message) in wrong.items():
        assert program.main(["monitor", *words]) == status, words
        assert message in capsys.readouterr().err


def test_nothing_of_it_imports_torch():
    """A process in which torch cannot be imported; MLflow only for the champion."""
    rooms = ("drift", "embedding", "observations", "plots", "reference")
    names = ["pipeline.commands.monitor", *(f"pipeline.monitor.{room}" for room in rooms)]
    done = run_blocked("\n".join(f"import {name}" for name in names))
    assert done.returncode == 0, done.stderr
