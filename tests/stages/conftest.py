"""One tiny line, run once in this process and looked at by many tests."""

from pathlib import Path

import pytest

from pipeline.layout import Layout
from tests.stages.tiny import MASKS, run_stages

STAGES = ("ingest", "validate", "train", "evaluate", "quantize", "export")


@pytest.fixture(scope="session")
def line(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """All six stages on 64-pixel shapes with a detector that learns them; read-only for tests."""
    layout = Layout(tmp_path_factory.mktemp("line"))
    run_stages(root, layout, STAGES)
    return layout


@pytest.fixture(scope="session")
def mask_line(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The same pictures through the same stages with a mask detector; read-only for tests."""
    layout = Layout(tmp_path_factory.mktemp("mask_line"))
    run_stages(root, layout, STAGES, MASKS)
    return layout
