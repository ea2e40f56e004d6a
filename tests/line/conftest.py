"""Clean clones of this commit, in which the line runs as its users run it."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest


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
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {"PATH": path, "HOME": str(self.home), "LANG": "C.UTF-8", **self.more}
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == ok, output
        assert "Traceback" not in output, output
        return output


@pytest.fixture(scope="module")
def clone(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Clone]:
    """Makes clones of the checkout's HEAD by name."""

    def make(name: str) -> Clone:
        folder, home = tmp_path_factory.mktemp(name) / "checkout", tmp_path_factory.mktemp(f"{name}_home")
        subprocess.run(["git", "clone", "--quiet", str(root), str(folder)], check=True)
        return Clone(folder, home)

    return make
