"""`pytest tests/parity --kit DIR --ops FILE`: equality with numbers that the reference implementation produced."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.parity.kit import Kit, kit_names

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

    from tests.parity.case import Case

DEFAULT_KIT = Path(__file__).resolve().parents[3] / "shared" / "parity"
EXPORTED = ("", "keypoint_rcnn_R50_FPN", "mask_rcnn_R50_FPN", "panoptic_fpn_R50", "retinanet_R50_FPN")
"""Of the kit: what is exported in every run, and the place of a kit that is absent."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kit", type=Path, default=DEFAULT_KIT, help="folder of manifests (.json) and arrays (.npz)")
    parser.addoption("--ops", type=Path, default=None, help="op goldens; default: ops.npz in the kit")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "architecture" in metafunc.fixturenames:
        folder = metafunc.config.getoption("kit", default=DEFAULT_KIT)
        names = kit_names(folder) if folder.is_dir() else []
        absent = pytest.param("", marks=pytest.mark.skip(reason=f"no parity kit at {folder}; give one with --kit DIR"))
        metafunc.parametrize("architecture", names or [absent], scope="session")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadScopeScheduling":
    """With -n, all tests of an architecture in one worker, which builds and runs it once; other tests by file.

    xdist's own `--dist loadgroup` writes the group into the node ids, which pytest 9.2 does not let it.
    """
    from xdist.scheduler import LoadScopeScheduling

    folder = config.getoption("kit")
    architectures = set(kit_names(folder)) if folder.is_dir() else set()

    class ByArchitecture(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            given = nodeid.rpartition("[")[2].rstrip("]").split("-")
            return next((name for name in given if name in architectures), nodeid.split("::")[0])

    return ByArchitecture(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Most exports are nightly: each traces for a minute, and tests/detector exports every kind of head in its tiny form."""
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {})
        if item.path.name == "test_exports.py" and given.get("architecture", "") not in EXPORTED:
            item.add_marker(pytest.mark.nightly)


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


@pytest.fixture(scope="session")
def built(architecture: str, kit_folder: Path) -> "Case":
    import torch

    from pipeline.detector.pretrained.detectron2.translate import translate
    from tests.parity.case import Case, build, inputs

    kit = Kit(kit_folder, architecture)
    options = kit.manifest["config"]
    cfg = translate(options)
    model = build(kit, cfg, options).eval()
    images, targets = inputs(kit, model.divisor, options.get("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 255))
    with torch.no_grad():
        return Case(kit, options, images, targets, model, model.features(images), model.detect(images))


@pytest.fixture
def case(built: "Case") -> Iterator["Case"]:
    import torch

    with torch.no_grad():
        yield built
