"""All services of a clone, by `infra.local up services=full`, as a team has them; with passwords that are known here."""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from infra.services import state as states
from infra.services.credentials import FILE, Credentials, write_secret
from infra.services.postgresql import installed
from tests.line.conftest import Clone

NO_POSTGRESQL = "PostgreSQL is not installed here: apt-get install postgresql"


@dataclass(frozen=True, slots=True)
class Full:
    """A clone whose services run."""

    clone: Clone
    credentials: Credentials

    @property
    def work(self) -> Path:
        """Logs and state."""
        return self.clone.folder / "work/services"

    def state(self) -> states.State:
        """What runs now."""
        state = states.read(self.work)
        assert state is not None
        return state

    def address(self, name: str) -> str:
        """Where a service is."""
        return self.state().services[name].address

    def local(self, *words: str, ok: bool = True) -> str:
        """Output of `python -m infra.local words...`."""
        return self.clone.run("infra.local", *words, ok=ok)

    def clients(self) -> dict[str, str]:
        """What `infra.local env` tells a shell."""
        lines = self.local("env").splitlines()
        return dict(line.removeprefix("export ").split("=", 1) for line in lines)

    def status_of(self, address: str, who: str = "", body: bytes | None = None) -> int:
        """How a server answers `who` (NAME:PASSWORD)."""
        headers = {"content-type": "application/json"}
        if who:
            headers["authorization"] = f"Basic {b64encode(who.encode()).decode()}"
        try:
            with urllib.request.urlopen(urllib.request.Request(address, body, headers), timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    def s3(self) -> Any:
        """boto3's client."""
        from infra.services.seaweedfs import client

        return client(self.address("SeaweedFS"), self.credentials.s3_key, self.credentials.s3_secret)

    def process_of(self, name: str) -> int:
        """The pid of a service itself, not of its keeper."""
        import psutil

        keeper = self.state().services[name].process
        assert keeper is not None
        return int(psutil.Process(keeper.pid).children()[0].pid)


def planted() -> Credentials:
    """Passwords that occur nowhere else."""
    values = {field.name: f"planted-{field.name.replace('_', '-')}-{secrets.token_hex(8)}" for field in fields(Credentials)}
    return Credentials(**values | {"prefect": f"admin:{values['prefect']}"})


@contextmanager
def running_services(root: Path) -> Iterator[Full]:
    """A clone of HEAD with everything up; all of it is gone afterwards.

    PostgreSQL, which does not run as root, must be able to reach its folder: pytest's own temporary folders are closed to others.
    """
    place = Path(tempfile.mkdtemp(prefix="detectline-"))
    place.chmod(0o711)
    made = Clone(place / "checkout", place / "home")
    subprocess.run(["git", "clone", "--quiet", str(root), str(made.folder)], check=True)
    made.home.mkdir()
    (made.folder / "work/services").mkdir(parents=True)
    credentials = planted()
    write_secret(
        made.folder / "work/services" / FILE, json.dumps({f.name: getattr(credentials, f.name) for f in fields(Credentials)})
    )
    full = Full(made, credentials)
    try:
        said = full.local("up", "services=full", *([] if installed() else ["services.database=sqlite"]))
        assert all(name in said for name in ("Prefect", "MLflow", "SeaweedFS", "worker")), said
        yield full
    finally:
        subprocess.run([sys.executable, "-m", "infra.local", "down"], cwd=made.folder, env=made.environment(), check=False)
        left = made.processes()
        for pid in left:
            os.kill(pid, 9)
        shutil.rmtree(place, ignore_errors=True)
        assert not left, left


def needs_postgresql() -> None:
    """Skip the test where there is none."""
    if not installed():
        pytest.skip(NO_POSTGRESQL)
