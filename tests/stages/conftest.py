"""One tiny line, run once in this process and looked at by many tests."""

import shutil
from pathlib import Path

import pytest

from pipeline.layout import Layout
from tests.stages.tiny import MASKS, run_stages


@pytest.fixture(scope="session")
def line(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """All six stages on 64-pixel shapes with a detector that learns them; read-only for tests."""
    layout = Layout(tmp_path_factory.mktemp("line"))
    run_stages(root, layout, ["ingest", "validate", "train", "evaluate", "quantize", "export"])
    return layout


@pytest.fixture(scope="session")
def mask_line(line: Layout, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The same pictures through the four model stages with a mask detector; read-only for tests."""
    layout = Layout(tmp_path_factory.mktemp("mask_line"))
    shutil.copytree(line.validated, layout.validated)
    run_stages(root, layout, ["train", "evaluate", "quantize", "export"], MASKS)
    return layout
