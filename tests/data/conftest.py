"""Ingest into a temporary checkout, with the settings of conf/ except those that a test names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from pipeline.data.config import DatasetConfig, watched_by_dvc
from pipeline.layout import Layout
from pipeline.settings import IngestStage
from pipeline.stages.ingest import run
from pipeline.storage.config import StorageConfig

Ingest = Callable[..., Path]


def dataset_config(root: Path, kind: str, **settings: Any) -> Any:
    """conf/dataset/<kind>.yaml with `settings` in place of its own, those of `split` one by one, checked as the command line
    would."""
    known = yaml.safe_load((root / f"conf/dataset/{kind}.yaml").read_text())
    values = known | settings
    if "split" in settings:
        values["split"] = known["split"] | settings["split"]
    values["watched"] = watched_by_dvc(values["source"])
    return TypeAdapter(DatasetConfig).validate_python(values)


def storage_config(root: Path, **settings: Any) -> StorageConfig:
    """conf/storage/default.yaml with `settings` in place of its own."""
    values = yaml.safe_load((root / "conf/storage/default.yaml").read_text()) | settings
    return TypeAdapter(StorageConfig).validate_python(values)


@pytest.fixture
def ingest(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Ingest:
    """`ingest(kind, source, seed=0, into=None, **settings)` runs the stage and returns its data/dataset."""

    def go(
        kind: str,
        source: Path | str,
        seed: int = 0,
        into: Path | None = None,
        storage: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Path:
        layout = Layout(into or tmp_path_factory.mktemp("checkout"))
        cfg = dataset_config(root, kind, source=str(source), **settings)
        run(IngestStage(dataset=cfg, storage=storage_config(root, **(storage or {})), seed=seed, layout=layout))
        assert not list(layout.root.glob("work/ingest/*")), "unpacked archives must be gone"
        return layout.dataset

    return go
