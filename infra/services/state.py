"""What runs: one file that the supervisor writes and every other command reads. No secret is in it."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.schema import schema
from pipeline.services import ServicesConfig

FILE = "state.json"


@dataclass(frozen=True, slots=True)
class Birth:
    """A process and no other that gets its number later, after a reboot for example."""

    pid: int
    boot: str
    """The kernel's name of this start of the machine."""
    ticks: int
    """When it began, in the kernel's ticks since then: a wall clock that is set does not change it."""

    @classmethod
    def of(cls, pid: int) -> "Birth":
        """The process that has this number now. ProcessLookupError when there is none."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except FileNotFoundError as error:
            raise ProcessLookupError(f"no process {pid}") from error
        return cls(pid, Path("/proc/sys/kernel/random/boot_id").read_text().strip(), int(stat.rpartition(")")[2].split()[19]))

    def lives(self) -> bool:
        """Whether it still runs."""
        try:
            return Birth.of(self.pid) == self and bool(psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE)
        except (ProcessLookupError, psutil.Error):
            return False


@schema
class Entry:
    """One service, as other processes see it."""

    name: str
    health: str
    address: str
    log: str
    process: Birth | None = None
    """Its keeper; none while it is stopped."""
    restarts: int = 0
    """How often it ended by itself and was started again."""


@dataclass(kw_only=True, slots=True)
class State:
    """All services of a checkout."""

    supervisor: Birth
    settings: ServicesConfig
    ready: bool = False
    """Whether all of them were up once, with what they need from each other."""
    services: dict[str, Entry] = field(default_factory=dict)

    def write(self, work: Path) -> None:
        """Replace the file."""
        write_json(work / FILE, asdict(self))


def read(work: Path) -> State | None:
    """What the file says; None without one. UserError when another version of this program wrote it."""
    from pydantic import TypeAdapter, ValidationError

    path = work / FILE
    if not path.exists():
        return None
    known: TypeAdapter[Any] = TypeAdapter(State)
    try:
        state: State = known.validate_python(read_json(path))
    except ValidationError as error:
        todo = "end those services by it, or remove the file when nothing of them runs"
        raise UserError(f"{path}: was written by another version of this checkout\n  {todo}") from error
    return state


def forget(work: Path) -> None:
    """Remove the file."""
    (work / FILE).unlink(missing_ok=True)
