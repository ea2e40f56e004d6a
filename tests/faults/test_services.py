"""Services that die in the middle of real work: the run ends finished or clearly failed, and a rerun gives the same files."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.files import digest_tree
from tests.line.conftest import Clone
from tests.line.conftest import clone as clone  # the fixture
from tests.line.test_kills import processes_of, wait_for
from tests.services.full import Full, needs_postgresql

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]
SHAPES = ["dataset.size=64", "dataset.train=200", "dataset.val=20"]
SHORT = "tests.faults.short_line"
Note = Callable[[str, str, str], None]
GONE = 30
"""Seconds without S3."""
PLACES = ("data/dataset", "data/validated", "reports/validate/metrics.json")


@dataclass(frozen=True, slots=True)
class Short:
    """A clone in which the short line runs against the services, and what it makes when nothing disturbs it."""

    clone: Clone
    log: Path
    wanted: dict[str, str]

    def clear(self) -> None:
        """As if it had never run."""
        for name in ("data", "reports", "dvc.lock", ".dvc/cache", ".dvc/tmp"):
            path = self.clone.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.log.write_text("")

    def start(self) -> subprocess.Popen[bytes]:
        """The flow, beside the test."""
        return self.clone.start(self.log, SHORT)

    def in_ingest(self) -> None:
        """Return when its first stage is at work."""
        wait_for(lambda: processes_of(self.clone, "ingest"), 120, self.log.read_text)

    def made(self) -> dict[str, str]:
        """Digests of what is there."""
        return {name: digest_tree(self.clone.folder / name) for name in PLACES if (self.clone.folder / name).exists()}

    def whole(self) -> bool:
        """Nothing is half-written: what is there is as it should be, and nothing lies beside it."""
        beside = [path for path in self.clone.folder.rglob("*") if re.fullmatch(r"\..*\.(new|old|tmp)", path.name)]
        return not beside and all(self.wanted[name] == digest for name, digest in self.made().items())


def ended(code: int, said: str) -> str:
    """How a run ended, in a word or two; a failure must be said in words, without a stack trace."""
    assert "Traceback" not in said, said
    if code == 0:
        return "finished"
    assert said.strip().splitlines()[-1].strip()
    return "failed, and said so"


@pytest.fixture(scope="module")
def short(full: Full, clone: Callable[[str], Clone]) -> Short:
    """A clone, and what an undisturbed run makes in it."""
    made = clone("faults").with_environment(full.clients())
    made.run("pipeline", "config", *SHAPES, "tracking=server", f"tracking.uri={full.address('MLflow')}")
    one = Short(made, made.home / "first.log", {})
    made.run(SHORT)
    undisturbed = Short(made, made.home / "log", one.made())
    assert undisturbed.wanted.keys() == set(PLACES)
    return undisturbed


def disturbed(short: Short, fault: Callable[[], None]) -> str:
    """The outcome of a run in whose first stage `fault` happens; what it did not finish, a rerun must."""
    short.clear()
    run = short.start()
    short.in_ingest()
    fault()
    outcome = ended(run.wait(300), short.log.read_text())
    assert short.whole()
    if outcome != "finished":
        short.clone.run(SHORT)
    assert "up to date" in short.clone.run("dvc", "status", "ingest", "validate")
    assert short.made() == short.wanted
    return outcome


def kill(full: Full, name: str) -> Callable[[], None]:
    """kill -9 of a service; its supervisor starts it again."""

    def fault() -> None:
        before = full.state().services[name].restarts
        os.kill(full.process_of(name), signal.SIGKILL)
        wait_for(lambda: full.state().services[name].restarts > before, 60, f"{name} was not started again")

    return fault


def all_is_well(full: Full) -> bool:
    """Whether every service is up again."""
    done = subprocess.run(
        ["python", "-m", "infra.local", "status"],
        cwd=full.clone.folder,
        env=full.clone.environment(),
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_postgresql_is_killed(full: Full, short: Short, note: Note) -> None:
    needs_postgresql()
    outcome = disturbed(short, kill(full, "PostgreSQL"))
    wait_for(lambda: all_is_well(full), 120, "the services did not recover")
    note("PostgreSQL killed and restarted mid-run", outcome, "same files; the servers recover by themselves")


def test_prefects_server_is_killed(full: Full, short: Short, note: Note) -> None:
    outcome = disturbed(short, kill(full, "Prefect"))
    wait_for(lambda: all_is_well(full), 120, "the services did not recover")
    note("Prefect's server killed and restarted mid-run", outcome, "same files; all services are up again")


def test_s3_is_gone_during_a_push(full: Full, short: Short, note: Note) -> None:
    """DVC keeps trying, or says what it could not push; a later push brings the rest, and a pull elsewhere is whole."""
    made = short.clone
    made.run("dvc", "remote", "add", "--force", "--default", "store", "s3://dvc/faults")
    made.run("dvc", "remote", "modify", "store", "endpointurl", full.address("SeaweedFS"))
    log = made.home / "push.log"
    push = made.start(log, "dvc", "push", "ingest", "validate")
    s3 = full.s3()
    wait_for(lambda: s3.list_objects_v2(Bucket="dvc", Prefix="faults").get("KeyCount"), 120, log.read_text)
    assert push.poll() is None, "it was too quick to be disturbed"
    full.local("stop", "SeaweedFS")
    time.sleep(GONE)
    full.local("start", "SeaweedFS")
    outcome = ended(push.wait(240), log.read_text())
    made.run("dvc", "push", "ingest", "validate")
    shutil.rmtree(made.folder / ".dvc/cache")
    shutil.rmtree(made.folder / "data")
    made.run("dvc", "pull", "ingest", "validate")
    assert short.made() == short.wanted
    note(f"S3 gone for {GONE} s during `dvc push`", outcome, "a second push brings the rest, a pull elsewhere is whole")


def test_the_worker_is_killed_mid_stage(full: Full, short: Short, note: Note) -> None:
    short.clear()
    made = short.clone
    named = ["--name", "short", "--pool", "local", "--job-variable", f"working_dir={made.folder}"]
    made.run("prefect", "--no-prompt", "deploy", "tests/faults/short_line.py:line", *named)
    run = made.start(short.log, "prefect", "deployment", "run", "line/short", "--watch")
    short_processes = lambda: [pid for pid, line in stages_in(made.folder)]  # noqa: E731
    wait_for(short_processes, 120, short.log.read_text)
    os.kill(full.process_of("worker"), signal.SIGKILL)
    wait_for(lambda: not short_processes(), 30, "its stage outlived it")
    assert run.wait(240) != 0
    said = short.log.read_text()
    assert "Crashed" in said or "Failed" in said, said
    assert short.whole()
    wait_for(lambda: all_is_well(full), 120, "the worker did not come back")
    assert "Completed" in made.run("prefect", "deployment", "run", "line/short", "--watch")
    assert short.made() == short.wanted
    state = "Crashed" if "Crashed" in said else "Failed"
    note(
        "Worker killed mid-stage",
        f"ends as {state} in Prefect, its stage with it",
        "the worker is back; a rerun completes, same files",
    )


def stages_in(folder: Path) -> list[tuple[int, str]]:
    """Stages at work in a folder, whoever started them."""
    import contextlib

    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if re.search(r"-m pipeline ingest$", command) and Path(process.cwd()) == folder:
                found.append((process.pid, command))
    return found
