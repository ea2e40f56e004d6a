"""Keeps one service: `python -m infra.services.keeper PARENT STOP GRACE ACCOUNT FOLDER COMMAND...`; imports no library.

It runs COMMAND in FOLDER as ACCOUNT (`-` for the present one), asks it to end by the signal STOP when it is itself asked, or when
PARENT has died, however it died, kills it GRACE seconds later, and ends whatever the command left, in sessions of their own too
(Prefect's worker gives each flow run one). So a server ends properly even when its supervisor was killed by `kill -9`, and one
that forks (MLflow's does) leaves nothing behind. Its exit status is the command's.
"""

import contextlib
import ctypes
import math
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.process import die_with_parent

ORPHANED = signal.SIGUSR1
"""What the kernel sends when the supervisor dies; unlike its SIGTERM, the command does not hear it."""
REST_SECONDS = 5.0
"""What a process in a session of its own is left to end, once the command has."""
LAST_SECONDS = 15.0
"""When those are given up that no signal ends."""
_PR_SET_CHILD_SUBREAPER = 36


def keep(stop: signal.Signals, grace: float, account: str, folder: str, command: Sequence[str]) -> int:
    """Run `command` until it ends or this process is told to; its exit status, as shells count."""
    asked: list[float] = []
    heard: set[int] = set()

    def listen(number: int, _: object) -> None:
        asked.append(time.monotonic())
        if number == signal.SIGTERM:
            heard.add(number)  # it went to the whole session: the command has it too

    signal.signal(signal.SIGTERM, listen)
    signal.signal(ORPHANED, listen)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    identity = pwd.getpwnam(account) if account != "-" else None
    process = subprocess.Popen(
        command,
        cwd=folder,
        user=identity.pw_uid if identity else None,
        group=identity.pw_gid if identity else None,
        extra_groups=[] if identity else None,
    )
    while process.poll() is None:
        if asked and stop not in heard:
            process.send_signal(stop)
            heard.add(stop)
        if asked and time.monotonic() - asked[0] > grace:
            process.kill()
        time.sleep(0.05)
    end_the_rest()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def adopt_orphans() -> None:
    """From now on a process below this one whose parent ends becomes this one's child, not init's."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")


def end_the_rest() -> None:
    """End every process below this one: SIGKILL where it is of this session, elsewhere REST_SECONDS after a SIGTERM.

    A flow run whose server is gone would go on reporting to it for minutes; a recorder of MLflow marks its run as killed.
    """
    own, session = os.getpid(), os.getsid(0)
    first_seen: dict[int, float] = {}
    deadline = time.monotonic() + LAST_SECONDS
    while (left := below(own)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) == session or time.monotonic() - first_seen.get(pid, math.inf) > REST_SECONDS:
                    os.kill(pid, signal.SIGKILL)
                elif pid not in first_seen:
                    first_seen[pid] = time.monotonic()
                    os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def below(root: int) -> list[int]:
    """All descendants of a process that are not ended, as /proc has them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                # after the command's name, which may hold anything: state, parent
                state, parent = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[:2]
                if state not in "ZX" or int(parent) == root:
                    children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        found += (below := children.get(waiting.pop(), []))
        waiting += below
    return found


def main(words: Sequence[str]) -> int:
    """Keep what the command line names."""
    parent, stop, grace, account, folder, *command = words
    signal.signal(ORPHANED, lambda *_: sys.exit(1))
    adopt_orphans()
    die_with_parent(int(parent), ORPHANED)
    return keep(signal.Signals(int(stop)), float(grace), account, folder, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
