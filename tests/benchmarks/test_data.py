"""The memory of ingest as benchmarks/data.py takes it, small; that of an implementation known to be wrong is told apart."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.data import generate, in_child, measure_ingest, peak_gb
from pipeline.data.dataset import open_dataset

ANNOTATIONS, IMAGES = 40_000, 4_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("large")
    generate(made / "source", ANNOTATIONS, IMAGES)
    return made


def parse_all_at_once(source: Path) -> dict[str, Any]:
    """What ingest must not do: every record as Python objects."""
    start = peak_gb()
    content = [orjson.loads(path.read_bytes()) for path in source.rglob("*.json")]
    return {"growth_gb": peak_gb() - start, "files": len(content)}


def test_memory_of_ingest_grows_by_less_than_2_kb_per_annotation(folder: Path) -> None:
    """That is 2 GB of a million."""
    made = in_child(measure_ingest, folder / "source", folder / "made")
    assert made["ingested"] == ANNOTATIONS
    assert 0 < made["growth_gb"] * 1e9 / ANNOTATIONS < 2000
    assert in_child(parse_all_at_once, folder / "source")["growth_gb"] * 1e9 / ANNOTATIONS > 2000
    for name, one in open_dataset(folder / "made").splits.items():
        truth = orjson.loads((folder / f"source/annotations/instances_{name}.json").read_bytes())
        by_id = {record["id"]: record for record in truth["annotations"]}
        assert len(by_id) == len(one.annotations)
        for row, identity in enumerate(one.annotations.source_ids):
            (polygon,) = one.annotations.polygons.polygons_of(row)
            assert polygon.reshape(-1).tolist() == by_id[identity]["segmentation"][0]
