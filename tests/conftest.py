"""What every test may use: the shared pack of real data, when it stands beside the checkout."""

from pathlib import Path

import pytest

from pipeline.quiet import be_offline

be_offline()  # before a test imports torch, MLflow or Prefect

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The pack of real pictures and reference numbers; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the shared pack of real data is not beside this checkout")
    return folder
