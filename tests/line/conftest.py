"""Clean clones of this commit, in which the line runs as its users run it."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from tests.stages.tiny import TINY

SETTINGS = [*(override for override in TINY if override != "tracking=off"), "train.steps=40", "export.gate.int8_ap=0.1"]
STAGES = ("ingest", "validate", "train", "evaluate", "quantize", "export")


@dataclass(frozen=True, slots=True)
class Clone:
    """A clean clone with a home directory of its own, both empty of anything that earlier runs left."""

    folder: Path
    home: Path
    more: Mapping[str, str] = field(default_factory=dict)
    """Added to the environment of every command."""

    def with_environment(self, more: Mapping[str, str]) -> "Clone":
        """The same clone, with more in the environment of its commands."""
        return replace(self, more={**self.more, **more})

    def run(self, *command: str, seconds: float = 900, ok: bool = True) -> str:
        """Output of `python -m command...` in the clone; fails the test with it when the exit code is not as expected."""
        words = [sys.executable, "-m", *command]
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment(), capture_output=True, text=True, timeout=seconds, check=False
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, output
        assert "Traceback" not in output, output
        return output

    def start(self, log: Path, *command: str) -> subprocess.Popen[bytes]:
        """`python -m command...` in the clone, in a session of its own, its output appended to `log`."""
        with log.open("ab") as file:
            words = [sys.executable, "-m", *command]
            return subprocess.Popen(
                words, cwd=self.folder, env=self.environment(), stdout=file, stderr=file, start_new_session=True
            )

    def environment(self) -> dict[str, str]:
        """Of a user who has nothing set."""
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        return {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **self.more}

    def processes(self) -> dict[int, str]:
        """Command lines of the living processes that anything in this clone started, however far removed."""
        found = {}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME") == str(self.home) and process.status() != psutil.STATUS_ZOMBIE:
                    found[process.pid] = " ".join(process.cmdline())
        return found


@pytest.fixture(scope="session")
def clone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Clone]:
    """Makes clones of the checkout's HEAD by name."""

    def make(name: str) -> Clone:
        folder, home = tmp_path_factory.mktemp(name) / "checkout", tmp_path_factory.mktemp(f"{name}_home")
        subprocess.run(["git", "clone", "--quiet", str(root), str(folder)], check=True)
        return Clone(folder, home)

    return make


@pytest.fixture(scope="session")
def by_flow(clone: Callable[[str], Clone]) -> tuple[Clone, str]:
    """A clone in which the flow ran, and what it printed."""
    made = clone("flow")
    made.run("pipeline", "config", *SETTINGS)
    return made, made.run("flows.line")


@pytest.fixture(scope="session")
def warm(clone: Callable[[str], Clone], by_flow: tuple[Clone, str]) -> Callable[[str], Clone]:
    """Makes clones that hold what the flow made, with its cache, and nothing else that it left."""

    def make(name: str) -> Clone:
        made, source = clone(name), by_flow[0].folder
        shutil.copytree(source / ".dvc/cache", made.folder / ".dvc/cache")
        for file in ("params.yaml", "dvc.lock"):
            shutil.copy(source / file, made.folder / file)
        made.run("dvc", "checkout")
        return made

    return make
