"""What every test may use: the shared pack of real data, when it stands beside the checkout."""

import json
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from pipeline.quiet import be_offline
from tests.faults.outcomes import Noted, Outcome, read

be_offline()  # before a test imports torch, MLflow or Prefect

ROOT = Path(__file__).resolve().parent.parent
NOTED = pytest.StashKey[Noted]()


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def full(root: Path):
    """All services, in a clone: PostgreSQL (sqlite where that is not installed), S3, MLflow, Prefect, a worker, passwords."""
    from tests.services.full import running_services

    with running_services(root) as services:
        yield services


@pytest.fixture(scope="session")
def shared() -> Path:
    """The pack of real pictures and reference numbers; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the shared pack of real data is not beside this checkout")
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--outcomes", type=Path, default=None, help="JSON file that takes the outcomes behind the README's table")
    parser.addoption("--faults", type=Path, default=None, help="JSON file that takes what the tests of faults saw")


def pytest_configure(config: pytest.Config) -> None:
    if (file := config.getoption("--outcomes")) is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Outcomes(file))
    config.stash[NOTED] = Noted()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, str, str], None]:
    """Notes a row of docs/faults.md: the fault, how the run ended, how the next one did. It counts when the test passes."""

    def write(fault: str, run: str, again: str) -> None:
        request.config.stash[NOTED].outcomes[request.node.nodeid] = Outcome(fault, run, again)

    return write


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" and report.passed:
        item.config.stash[NOTED].passed.add(item.nodeid)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (file := session.config.getoption("--faults")) is not None:
        noted = session.config.stash[NOTED].merged(read(file))
        file.write_text(json.dumps(noted, indent=1, ensure_ascii=False) + "\n")


class Outcomes:
    """Keeps how each test ended, and adds it to a file when the run is over."""

    def __init__(self, file: Path) -> None:
        self.file, self.seen = file, dict[str, str]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's own outcome, or that of a set-up or tear-down that went wrong."""
        if report.when == "call" or report.outcome != "passed":
            self.seen[report.nodeid] = report.outcome

    def pytest_sessionfinish(self) -> None:
        from tests.architectures import merged

        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.file.write_text(json.dumps(merged(known, self.seen), indent=1) + "\n")
