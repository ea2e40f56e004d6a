"""The known real faults of the blood cell set (the pack's bccd_voc)."""

from pathlib import Path

import pytest

from pipeline.data.config import ArchiveLimits, SplitConfig, VocDataset
from pipeline.data.dataset import Dataset
from pipeline.labels.validation import validate
from pipeline.stages.ingest import read_source
from tests.labels.planted import settings


@pytest.fixture(scope="module")
def bccd(shared: Path) -> Dataset:
    source = shared / "data/bccd_voc"
    archive = ArchiveLimits(files=1, gigabytes=1, ratio=1)
    cfg = VocDataset(
        kind="voc", source=str(source), licence="MIT", classes=None, one_based=False, split=SplitConfig(val=0.2), archive=archive
    )
    return read_source(cfg, 0, source)


def test_known_faults_are_found_and_nothing_else(bccd: Dataset) -> None:
    result = validate(bccd, settings("safe", gate=0.01))
    pictures: dict[str, set[str]] = {}
    for finding in result.findings:
        pictures.setdefault(f"{finding.severity} {finding.code}", set()).add(Path(finding.image or "").stem.split("_")[-1])
    assert pictures == {
        "error box-zero-area": {"00338", "00343"},
        "error box-near-duplicate": {"00013", "00020", "00100", "00104", "00251", "00284", "00331", "00403"},
    }
    assert len(result.changes) == 10
    result.require(settings(gate=0.01).gate)
    assert not validate(result.mended, settings("safe")).findings
