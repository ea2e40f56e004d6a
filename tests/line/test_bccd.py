"""The line on real pictures: BCCD, blood cells in Pascal VOC (MIT), small pictures and a small model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.line.conftest import Clone

pytestmark = [pytest.mark.line, pytest.mark.timeout(900)]
NEAR_DUPLICATES = {f"BloodImage_{number:05}" for number in (13, 20, 100, 104, 251, 284, 331, 403)}


@pytest.fixture(scope="module")
def blood(clone: Callable[[str], Clone], shared: Path) -> Clone:
    """A clone in which the flow ran on BCCD."""
    made = clone("blood")
    source = f"dataset.source={shared / 'data/bccd_voc'}"
    made.run("pipeline", "config", "dataset=voc", source, "train.steps=150", "train.validate_every=0")
    made.run("flows.line")
    return made


def figures(made: Clone, stage: str) -> dict[str, float]:
    return json.loads((made.folder / "reports" / stage / "metrics.json").read_text())


def test_the_known_faults_are_reported(blood: Clone) -> None:
    findings = json.loads((blood.folder / "reports/validate/findings.json").read_text())
    found = {
        code: {Path(f["image"]).stem for f in findings if f["code"] == code} for code in ("box-zero-area", "box-near-duplicate")
    }
    assert found["box-zero-area"] == {"BloodImage_00338", "BloodImage_00343"}
    assert found["box-near-duplicate"] == NEAR_DUPLICATES


def test_the_classes_come_from_the_data(blood: Clone) -> None:
    deploy = json.loads((blood.folder / "models/onnx/deploy.json").read_text())
    assert sorted(deploy["classes"]) == ["Platelets", "RBC", "WBC"]


def test_it_learnt_and_both_files_hold_what_was_learnt(blood: Clone) -> None:
    assert figures(blood, "evaluate")["bbox/AP50"] >= 0.5
    exported = figures(blood, "export")
    assert abs(exported["export/onnx/AP_loss"]) <= 0.001 and exported["export/int8/AP_loss"] <= 0.02
    assert exported["export/int8_exact/AP_loss"] <= 0.02 and figures(blood, "quantize")["quantize/share_int8"] >= 0.8
