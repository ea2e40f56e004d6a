"""All of conf/model, and shapes that teach every task."""

import shutil
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml

from pipeline.commands import advise as command
from pipeline.data.config import DatasetConfig
from pipeline.data.dataset import Dataset, open_dataset, write_dataset
from pipeline.data.formats.shapes import draw_shapes
from tests.detector.models import CONF


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    """All of conf/model."""
    return dict(command.models(CONF))


@pytest.fixture(scope="module")
def checkout(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with conf/ and validated shapes that teach every task; read-only."""
    folder = tmp_path_factory.mktemp("checkout")
    values = yaml.safe_load((root / "conf/dataset/shapes.yaml").read_text())
    values |= {"size": 64, "train": 12, "val": 4, "grounds": [1, 3], "watched": ""}
    cfg: Any = pydantic.TypeAdapter(DatasetConfig).validate_python(values)
    write_dataset(folder / "data/validated", draw_shapes(cfg, 0, folder / "drawn"))
    shutil.copytree(root / "conf", folder / "conf")
    return folder


@pytest.fixture
def shapes(checkout: Path) -> Dataset:
    return open_dataset(checkout / "data/validated")
