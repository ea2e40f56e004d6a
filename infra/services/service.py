"""What a service is to the supervisor: a command to keep running, and how to tell that it is well."""

import signal
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path

HOST = "127.0.0.1"


def nothing() -> None:
    """No preparation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One process that is started, watched and ended."""

    name: str
    command: tuple[str, ...]
    health: str
    """An http address that answers 200 when all is well, or postgresql://HOST:PORT."""
    address: str = ""
    """Where clients reach it, without any password; empty when they do not."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Everything in the environment of the process."""
    folder: Path
    """Its working directory."""
    stop: signal.Signals = signal.SIGTERM
    """How it is asked to end."""
    grace: float = 8.0
    """Seconds that it is left to do so."""
    account: str = ""
    """The unprivileged account that it runs under; empty for the present one."""
    prepare: Callable[[], None] = nothing
    """Before the first start. UserError when it cannot start."""
    settle: Callable[[], None] = nothing
    """Once it is up for the first time: what the services after it need. UserError when that fails."""

    @property
    def log(self) -> str:
        """Its log's name in the folder of the services."""
        return f"{self.name.lower()}.log"


def is_well(health: str) -> bool:
    """Whether a service answers at its address of health."""
    if health.startswith("postgresql://"):
        from infra.services.postgresql import is_ready

        return is_ready(int(health.rpartition(":")[2]))
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot know this machine's own address
    try:
        with direct.open(health, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):
        return False
