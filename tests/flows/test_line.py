"""The flow's own decisions, without Prefect's server: what it refuses, what it mends, what it shows."""

import logging
import shutil
from contextlib import nullcontext

import pytest

from flows import command, line
from flows.summary import summarise
from pipeline import settings
from pipeline.errors import DataError
from pipeline.files import write_json
from pipeline.layout import Layout
from tests.storage.web import Site, serve
from tests.test_tracking import config

WHOLE = (
    "schema: '2.0'\nstages:\n  ingest:\n    cmd: python -m pipeline ingest\n    outs:\n    - path: data/dataset\n      md5: 0a\n"
)


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    monkeypatch.setattr(line, "get_run_logger", lambda: logging.getLogger("test"))
    return tmp_path


@pytest.mark.parametrize("left", ["", "schema: '2.0'\n", "schema: '2.0'\nstages:\n  ingest:\n    cmd: 'python"])
def test_record_cut_off_by_a_kill_is_dropped(checkout, left):
    (checkout / "dvc.lock").write_text(left)
    line.drop_broken_record(checkout)
    assert not (checkout / "dvc.lock").exists()


def test_whole_record_stays_and_a_missing_one_is_no_matter(checkout):
    line.drop_broken_record(checkout)
    (checkout / "dvc.lock").write_text(WHOLE)
    line.drop_broken_record(checkout)
    assert (checkout / "dvc.lock").read_text() == WHOLE


def test_wrong_override_is_told_before_prefect_starts(monkeypatch, capsys):
    monkeypatch.setattr(line, "line", lambda *_, **__: pytest.fail("the flow was started"))
    assert line.main(["dataset.sorce=x"]) == 2
    assert "Did you mean source?" in capsys.readouterr().err
    assert line.main(["dataset=voc", "dataset.source=/no/such/folder"]) == 1
    assert "/no/such/folder: no such file or folder" in capsys.readouterr().err


def test_ctrl_c_before_or_in_the_flow_is_one_line(monkeypatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(line, "line", interrupted)
    monkeypatch.setattr(command, "prefect_api", lambda _: nullcontext())
    assert line.main([]) == 130
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_summary_shows_figures_and_only_what_is_there(tmp_path):
    layout = Layout(tmp_path)
    write_json(layout.reports("evaluate") / "metrics.json", {"bbox/AP": 0.5, "bbox/AP50": 0.75, "bbox/AP/cell": 0.5})
    (layout.reports("evaluate") / "index.html").write_text("")
    counts = {"validate/images": 4, "validate/findings/box-outside": 3, "validate/findings/box-sliver": 0}
    write_json(layout.reports("validate") / "metrics.json", counts)
    write_json(layout.onnx / "deploy.json", {"parity": {"int8": {"bbox/AP": 0.49, "per_class": {"cell": 0.48}}}})
    summary = summarise(layout, config(), "abc", nothing_to_do=False)
    assert summary.figures == {"AP": 0.5, "AP50": 0.75, "AP, int8 file": 0.49}
    assert summary.classes == [{"class": "cell", "AP": 0.5, "int8": 0.48}]
    assert [(row["code"], row["findings"]) for row in summary.findings] == [("box-outside", 3)]
    assert "nothing in it to learn" in summary.findings[0]["what it is"]
    assert summary.places["report of evaluate"] == "reports/evaluate/index.html"
    assert "ONNX file" not in summary.places
    assert summary.places["MLflow run"] == "abc"
    assert "0.500" in summary.text()
    assert "| AP50 | 0.7500 |" in summary.markdown()


def test_every_flow_lists_a_remote_source_anew(checkout, root, monkeypatch):
    shutil.copytree(root / "conf", checkout / "conf")
    monkeypatch.setattr(line, "CHECKOUT", checkout)
    with serve(Site(b"one")) as site:
        chosen = ["dataset=yolo", f"dataset.source={site.address}", "storage.private_addresses=true"]
        settings.write_params(chosen, checkout)
        listed = []
        for content in (b"one", b"one", b"three"):
            site.content = content
            with line.workspace([]) as place:
                listed.append((place.config.dataset.watched, (checkout / "source.json").read_text()))
        assert listed[0] == listed[1] and '"size": 3' in listed[1][1] and '"size": 5' in listed[2][1]
        site.status = 404
        with pytest.raises(DataError, match="has no such file"), line.workspace([]):
            pass


def test_multirun_is_every_combination():
    jobs = line.combinations(["--multirun", "model=faster_rcnn_tiny", "train.steps=20,40", "seed=range(0,2)"])
    tiny = "model=faster_rcnn_tiny"
    assert jobs == [[tiny, f"train.steps={steps}", f"seed={seed}"] for steps in (20, 40) for seed in (0, 1)]
    assert line.combinations(["train.steps=20"]) == [["train.steps=20"]]


def test_multirun_and_several_values_need_each_other(capsys):
    assert line.main(["-m", "train.steps=20"]) == 2
    assert "--multirun needs several values" in capsys.readouterr().err
    assert line.main(["train.steps=20,40"]) == 2
    assert "train.steps=20,40 lists several values: python -m flows.line --multirun" in capsys.readouterr().err
