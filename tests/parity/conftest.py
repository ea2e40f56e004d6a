"""`pytest tests/parity --kit DIR --ops FILE`: equality with numbers that the reference implementation produced."""

from pathlib import Path

import pytest

from tests.parity.kit import kit_names

DEFAULT_KIT = Path(__file__).resolve().parents[3] / "shared" / "parity"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kit", type=Path, default=DEFAULT_KIT, help="folder of manifests (.json) and arrays (.npz)")
    parser.addoption("--ops", type=Path, default=None, help="op goldens; default: ops.npz in the kit")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "architecture" in metafunc.fixturenames:
        folder = metafunc.config.getoption("kit", default=DEFAULT_KIT)
        names = kit_names(folder) if folder.is_dir() else []
        absent = pytest.param("", marks=pytest.mark.skip(reason=f"no parity kit at {folder}; give one with --kit DIR"))
        metafunc.parametrize("architecture", names or [absent], scope="module")


@pytest.fixture(scope="session")
def kit_folder(pytestconfig: pytest.Config) -> Path:
    folder: Path = pytestconfig.getoption("kit", default=DEFAULT_KIT)
    return folder


@pytest.fixture(scope="session")
def ops_file(pytestconfig: pytest.Config, kit_folder: Path) -> Path:
    file: Path = pytestconfig.getoption("ops", default=None) or kit_folder / "ops.npz"
    if not file.exists():
        pytest.skip(f"no op goldens at {file}; give them with --ops FILE")
    return file
