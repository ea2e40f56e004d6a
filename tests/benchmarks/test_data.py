"""The figures of benchmarks/data.py, small: each is also taken of an implementation that is known to be wrong, and tells it."""

import copy
from pathlib import Path
from typing import Any

import orjson
import pytest

from benchmarks.data import generate, in_child, measure_ingest, peak_gb
from benchmarks.labels_speed import split
from benchmarks.loader_memory import Labels, measure_workers
from pipeline.data.dataset import open_dataset
from pipeline.data.loader import Sample

ANNOTATIONS, IMAGES = 40_000, 4_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("large")
    generate(made / "source", ANNOTATIONS, IMAGES)
    generate(made / "tiny", 40, 20)
    return made


def parse_all_at_once(source: Path) -> dict[str, Any]:
    """What ingest must not do: every record as Python objects."""
    content = [orjson.loads(path.read_bytes()) for path in source.rglob("*.json")]
    return {"peak_gb": peak_gb(), "files": len(content)}


def test_memory_of_ingest_grows_by_less_than_2_kb_per_annotation(folder: Path) -> None:
    """That is 2 GB of a million."""
    made, base = (in_child(measure_ingest, folder / name, folder / f"{name}_made") for name in ("source", "tiny"))
    assert made["ingested"] == ANNOTATIONS
    assert (made["peak_gb"] - base["peak_gb"]) * 1e9 / ANNOTATIONS < 2000
    wrong, empty = (in_child(parse_all_at_once, folder / name) for name in ("source", "tiny"))
    assert (wrong["peak_gb"] - empty["peak_gb"]) * 1e9 / ANNOTATIONS > 2000


def test_generated_labels_are_read_whole(folder: Path) -> None:
    for name, one in open_dataset(folder / "tiny_made").splits.items():
        truth = orjson.loads((folder / f"tiny/annotations/instances_{name}.json").read_bytes())
        by_id = {record["id"]: record for record in truth["annotations"]}
        assert len(by_id) == len(one.annotations)
        for row, identity in enumerate(one.annotations.source_ids):
            (polygon,) = one.annotations.polygons.polygons_of(row)
            assert polygon.reshape(-1).tolist() == by_id[identity]["segmentation"][0]


class Copied(Labels):
    """Every worker makes the dataset its own."""

    own: Any = None

    def _sample(self, row: int, position: int) -> Sample:
        if self.own is None:
            self.own = self.split = copy.deepcopy(self.split)
        return super()._sample(row, position)


def test_a_worker_more_takes_less_than_a_twentieth_of_the_dataset() -> None:
    labels = split("train", 250_000, 2_000)
    assert measure_workers(labels)["share_per_worker"] < 0.05
    assert measure_workers(labels, Copied)["share_per_worker"] > 0.5
