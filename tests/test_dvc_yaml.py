"""dvc.yaml says what the code does: its lists are derived here from the code and compared."""

from pathlib import Path

import pytest
import yaml

from pipeline import settings
from pipeline.layout import Layout
from tests.imports import CHECKOUT, closure

# The frame around every stage: which values it gets and where figures go. params: already tells DVC about the values.
FRAME = frozenset(CHECKOUT / "pipeline" / name for name in ("settings.py", "tracking.py"))
# Read by the file on the left, though not by an import.
READ = {"pipeline/report.py": "pipeline/templates"}

# What each stage reads and writes, by the stage contract.
READS = {
    "ingest": ["${dataset.watched}"],
    "validate": ["data/dataset"],
    "train": ["data/validated"],
    "evaluate": ["data/validated", "models/detector"],
    "quantize": ["data/validated", "models/detector"],
    "export": ["data/validated", "models/detector", "models/quantized"],
}


def code_read_by(stage: str) -> set[str]:
    """Files and rooms whose change may change the result of `stage`: a room as a whole, unless only its config is imported."""
    found: set[str] = set()
    files = closure(CHECKOUT / f"pipeline/stages/{stage}.py", stop=FRAME)
    for file in files:
        path = file.relative_to(CHECKOUT)
        if path.name == "__init__.py" and not file.read_text():
            continue
        room = path.parent.as_posix() if path.parts[0] == "ops_cuda" else "/".join(path.parts[:2])
        in_room = path.parts[0] == "ops_cuda" or (len(path.parts) > 2 and path.parts[1] != "stages")
        found.add(room if in_room and path.name != "config.py" else path.as_posix())
        if path.as_posix() in READ:
            found.add(READ[path.as_posix()])
    return {entry for entry in found if not (entry.endswith("/config.py") and entry.removesuffix("/config.py") in found)}


@pytest.fixture(scope="module")
def stages() -> dict[str, dict]:
    return yaml.safe_load((CHECKOUT / "dvc.yaml").read_text())["stages"]


def outs(entry: dict) -> list[str]:
    listed = [out for kind in ("outs", "metrics", "plots") for out in entry.get(kind, [])]
    return [out if isinstance(out, str) else next(iter(out)) for out in listed]


def test_stages_are_those_of_the_settings_after_the_check_of_the_snapshot(stages):
    assert list(stages) == ["settings", *settings.STAGES]


def test_first_stage_checks_the_snapshot_against_all_it_is_made_of(stages):
    entry = stages["settings"]
    assert entry["cmd"] == "exec python -m pipeline config --check" and not outs(entry)
    schemas = {path.relative_to(CHECKOUT).as_posix() for path in CHECKOUT.glob("pipeline/*/config.py")}
    schemas |= {"pipeline/detector/settings", "pipeline/schema.py", "pipeline/tasks.py"}
    assert schemas | {"conf", "params.yaml", "pipeline/settings.py", "pipeline/tracking.py"} <= set(entry["deps"])


@pytest.mark.parametrize("stage", settings.STAGES)
def test_stage_lists_the_code_and_the_data_it_reads(stages, stage):
    assert set(stages[stage]["deps"]) == code_read_by(stage) | set(READS[stage])
    assert len(stages[stage]["deps"]) == len(set(stages[stage]["deps"]))


@pytest.mark.parametrize("stage", settings.STAGES)
def test_stage_lists_the_settings_it_uses(stages, stage):
    assert sorted(stages[stage]["params"]) == sorted(settings.STAGES[stage].params())
    assert stages[stage]["cmd"] == f"exec python -m pipeline {stage}"


def test_every_setting_of_a_stage_is_listed_but_those_that_never_change_a_result(stages):
    """A setting that is neither in dvc.yaml nor here would change results without anybody noticing."""
    anywhere = {"workers", "rendezvous", "slot"}
    reporting = {"engine", "split", "batch", "max_detections", "drawing_score", "sheet"}
    alone = {"compute": {*anywhere, "processes", "nodes"}}
    all_but_its_input = set(settings.read_params(CHECKOUT)["model"]) - {"input"}
    never = {
        "validate": {"model": all_but_its_input},
        "ingest": {
            "storage": {
                "private_addresses",
                "files",
                "gigabytes",
                "connect_seconds",
                "read_seconds",
                "attempts",
                "workers",
                "exchange",
            }
        },
        "train": {"train": {"checkpoint_every"}, "compute": anywhere, "evaluate": reporting},
        "evaluate": alone,
        "quantize": {**alone, "evaluate": reporting},
        "export": {**alone, "evaluate": {"batch", "sheet"}},
    }
    for name, kind in settings.STAGES.items():
        groups = {group: set(values) for group, values in settings.read_params(CHECKOUT).items() if isinstance(values, dict)}
        for group in (field for field in kind.__dataclass_fields__ if field not in ("layout", "seed", "trusted")):
            listed = {key.split(".")[1] for key in stages[name]["params"] if key.startswith(f"{group}.")}
            expected = groups[group] - never.get(name, {}).get(group, set())
            assert group in stages[name]["params"] or listed == expected, (name, group)


def test_each_result_is_written_once_and_read_after_it_is_written(stages):
    written: set[str] = set()
    for entry in stages.values():
        data = {dep for dep in entry["deps"] if dep.startswith(("data/", "models/", "reports/"))}
        assert data <= written
        assert not written & set(outs(entry))
        written |= set(outs(entry))
    layout = Layout(Path())
    places = (layout.dataset, layout.validated, layout.detector, layout.quantized, layout.onnx)
    assert {place.as_posix() for place in places} <= written


def test_times_are_never_results(stages):
    assert not any("timing" in out for entry in stages.values() for out in outs(entry))


def test_what_does_not_change_a_result_does_not_make_it_stale(stages):
    """A change of the label checks must not retrain by itself: only changed labels do."""
    assert "pipeline/labels" not in stages["train"]["deps"]
    assert not any("pipeline/tracking.py" in entry["deps"] for name, entry in stages.items() if name != "settings")
