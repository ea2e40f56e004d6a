"""The known real faults of the blood cell set (the pack's bccd_voc)."""

from pathlib import Path

import pytest

from pipeline.data.dataset import Dataset
from pipeline.labels.validation import validate
from pipeline.stages.ingest import read_source
from tests.data.conftest import dataset_config
from tests.labels.planted import settings


@pytest.fixture(scope="module")
def bccd(root: Path, shared: Path) -> Dataset:
    source = shared / "data/bccd_voc"
    cfg = dataset_config(root, "voc", source=str(source))
    return read_source(cfg, 0, source)


def test_known_faults_are_found_and_nothing_else(bccd: Dataset) -> None:
    result = validate(bccd, settings("safe", gate=0.01))
    pictures: dict[str, set[str]] = {}
    for finding in result.findings:
        if finding.severity == "info":
            continue
        pictures.setdefault(f"{finding.severity} {finding.code}", set()).add(Path(finding.image or "").stem.split("_")[-1])
    assert pictures == {
        "error box-zero-area": {"00338", "00343"},
        "error box-near-duplicate": {"00013", "00020", "00100", "00104", "00251", "00284", "00331", "00403"},
    }
    assert len(result.changes) == 10
    # said once, although the fixes change the numbers
    assert [finding.split for finding in result.findings if finding.code == "size-range-empty"] == ["val", "test"]
    result.require(settings(gate=0.01).gate)
    assert {finding.severity for finding in validate(result.mended, settings("safe")).findings} == {"info"}
