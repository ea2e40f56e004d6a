"""What a killed DVC leaves in the way of the next one."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from dvc.fs import localfs
from dvc.lock import LockError
from dvc.rwlock import RWLockFileCorruptedError, rwlock

from flows.repro import release_dead_locks


@pytest.fixture
def zombie() -> int:
    """The pid of a process that has ended, and that nobody reaps before the test ends."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    yield process.pid
    process.wait()


@pytest.fixture
def take(tmp_path: Path) -> Callable[[], None]:
    """DVC's own taking of the locks that a stage needs."""
    (tmp_path / ".dvc/tmp").mkdir(parents=True)

    def work() -> None:
        with rwlock(str(tmp_path / ".dvc/tmp"), localfs, "next", [str(tmp_path / "input")], [str(tmp_path / "output")], False):
            pass

    return work


def write(folder: Path, holder: int) -> Path:
    """DVC's record, in which `holder` writes what the next reads, and reads what the next writes."""
    record = folder / ".dvc/tmp/rwlock"
    entry = {"pid": holder, "cmd": "dvc repro"}
    record.write_text(json.dumps({"write": {str(folder / "input"): entry}, "read": {str(folder / "output"): [entry]}}))
    return record


def test_a_killed_holder_that_nobody_reaped_is_released(zombie: int, take: Callable[[], None], tmp_path: Path) -> None:
    write(tmp_path, zombie)
    with pytest.raises(LockError):
        take()
    assert release_dead_locks(tmp_path) == ["dvc repro"]
    take()


def test_a_living_holder_stays(zombie: int, take: Callable[[], None], tmp_path: Path) -> None:
    record = write(tmp_path, os.getppid())
    content = json.loads(record.read_text())
    content["read"][str(tmp_path / "output")].append({"pid": zombie, "cmd": "another"})
    record.write_text(json.dumps(content))
    assert release_dead_locks(tmp_path) == ["another"]
    with pytest.raises(LockError, match=str(os.getppid())):
        take()
    assert release_dead_locks(tmp_path) == []


def test_a_record_cut_off_by_a_kill_is_removed(take: Callable[[], None], tmp_path: Path) -> None:
    record = write(tmp_path, os.getpid())
    record.write_text(record.read_text()[:20])
    with pytest.raises(RWLockFileCorruptedError):
        take()
    assert len(release_dead_locks(tmp_path)) == 1
    take()


def test_nothing_to_release(tmp_path: Path) -> None:
    assert release_dead_locks(tmp_path) == []
