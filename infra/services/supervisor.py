"""Starts services in order, keeps them running, and ends them in the opposite order; one process, whose death ends them all."""

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from infra.services.keeper import LAST_SECONDS
from infra.services.service import Service, is_well
from infra.services.state import Birth, Entry, State, forget
from pipeline.errors import UserError
from pipeline.process import running

START_SECONDS = 180.0
MOST_RESTARTS, WITHIN = 5, 300.0
"""A service that ends by itself more often than this, in so many seconds, is given up."""
CHECKOUT = Path(__file__).absolute().parents[2]


class Kept:
    """One service and its present process."""

    def __init__(self, service: Service, work: Path) -> None:
        self.service = service
        self.log = work / service.log
        self.ended: deque[float] = deque()
        self.restarts = 0
        self.paused = False
        self._due: float | None = None
        self._stack = ExitStack()
        self._process: Birth | None = None
        self._running: subprocess.Popen[bytes] | None = None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._running is not None and self._running.poll() is None

    @property
    def entry(self) -> Entry:
        """What other processes may know."""
        one = self.service
        return Entry(
            name=one.name,
            health=one.health,
            address=one.address,
            log=str(self.log),
            process=self._process if self.alive else None,
            restarts=self.restarts,
        )

    def start(self) -> None:
        """Start its process; does not wait until it is up."""
        one = self.service
        self._stack.close()
        how = (str(os.getpid()), str(int(one.stop)), str(one.grace), one.account or "-", str(one.folder))
        command = [sys.executable, "-m", "infra.services.keeper", *how, *one.command]
        grace = one.grace + LAST_SECONDS + 1  # what the keeper itself may take
        kept = running(command, self.log, env=one.environment, cwd=CHECKOUT, grace=grace)
        self._running = self._stack.enter_context(kept)
        self._process = Birth.of(self._running.pid)

    def stop(self) -> None:
        """End it, and whatever it started."""
        self._stack.close()
        self._running = None

    def wait(self) -> None:
        """Return when it is well. UserError when it ends, or takes longer than START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        while not is_well(self.service.health):
            if not self.alive or time.monotonic() > deadline:
                raise UserError(f"{self.service.name} did not start; see {self.log}")
            time.sleep(0.1)

    def tend(self, wanted: bool) -> bool:
        """Make it run or not, as `wanted`; whether anything changed. UserError when it keeps ending by itself."""
        if not wanted:
            changed = not self.paused
            self.paused = True
            if changed:
                self.stop()
            return changed
        if self.paused:
            self.paused = False
            self.start()
            return True
        return not self.alive and self.revive()

    def revive(self) -> bool:
        """Start it again after it has ended by itself, each time a little later; whether it did."""
        now = time.monotonic()
        if self._due is None:
            self.ended = deque(moment for moment in (*self.ended, now) if now - moment <= WITHIN)
            if len(self.ended) > MOST_RESTARTS:
                raise UserError(f"{self.service.name} ended {len(self.ended)} times in {WITHIN:.0f} s; see {self.log}")
            self._due = now + 0.5 * 2 ** (len(self.ended) - 1)
        if now < self._due:
            return False
        self._due = None
        self.restarts += 1
        self.start()
        return True


def supervise(waves: Sequence[Sequence[Service]], state: State, work: Path, announce: Callable[[], None]) -> NoReturn:
    """Start the services wave by wave, call `announce`, and keep them until this process is told to end.

    UserError when one cannot start or keeps ending. However this ends, all are ended then, the last started first.
    """
    with ExitStack() as stack:
        stack.callback(forget, work)
        keeping: list[Kept] = []
        state.write(work)
        for wave in waves:
            started = [Kept(service, work) for service in wave]
            for one in started:
                one.service.prepare()
                stack.callback(one.stop)
                one.start()
            keeping += started
            note(keeping, state, work)
            for one in started:
                one.wait()
                one.service.settle()
        state.ready = True
        note(keeping, state, work)
        announce()
        while True:
            changes = [one.tend(wanted=not stop_mark(work, one.service.name).exists()) for one in keeping]
            if any(changes):
                note(keeping, state, work)
            time.sleep(0.2)


def note(keeping: Sequence[Kept], state: State, work: Path) -> None:
    """Let other processes know."""
    state.services = {one.service.name: one.entry for one in keeping}
    state.write(work)


def stop_mark(work: Path, name: str) -> Path:
    """The file whose presence keeps a service down."""
    return work / "stopped" / name
