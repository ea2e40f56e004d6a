"""Keeps one service: `python -m infra.services.keeper PARENT STOP GRACE ACCOUNT FOLDER COMMAND...`; imports no library.

It runs COMMAND in FOLDER as ACCOUNT (`-` for the present one), asks it to end by the signal STOP when it is itself asked, or when
PARENT has died, however it died, kills it GRACE seconds later, and ends whatever the command left in this session. So a server
ends properly even when its supervisor was killed by `kill -9`, and one that forks (MLflow's does) leaves nothing behind. Its exit
status is the command's.
"""

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from pipeline.process import die_with_parent

ORPHANED = signal.SIGUSR1
"""What the kernel sends when the supervisor dies; unlike its SIGTERM, the command does not hear it."""


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


def end_the_rest() -> None:
    """SIGKILL to every other process of this session."""
    own, session = os.getpid(), os.getsid(0)
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != own:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(int(name)) == session:
                    os.kill(int(name), signal.SIGKILL)


def main(words: Sequence[str]) -> int:
    """Keep what the command line names."""
    parent, stop, grace, account, folder, *command = words
    signal.signal(ORPHANED, lambda *_: sys.exit(1))
    die_with_parent(int(parent), ORPHANED)
    return keep(signal.Signals(int(stop)), float(grace), account, folder, command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
