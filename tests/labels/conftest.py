"""Each test plants its fault in a dataset of its own."""

from pathlib import Path

import pytest

from tests.labels.planted import Planted


@pytest.fixture
def planted(tmp_path: Path) -> Planted:
    """Two training pictures and one for validation, two good boxes each."""
    return Planted(tmp_path / "images")
