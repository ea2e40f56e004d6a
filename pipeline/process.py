"""Child processes that never outlive their parent, and whose output arrives line by line.

Linux only. A child runs in a session of its own, so that one signal ends it with everything it started; it is also told
to die when its parent does (`PR_SET_PDEATHSIG`), so that even `kill -9` of the parent leaves nothing behind.

Run as a script (`python process.py PARENT COMMAND...`) this file is the launcher: it ties itself to PARENT, then becomes COMMAND.
A `preexec_fn` would do the same in a forked copy of a threaded process, where Python code can deadlock. Standard library only.
"""

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended."""

    code: int
    """Its exit status; negative when a signal ended it."""
    errors: tuple[str, ...]
    """The last lines of its standard error."""


def die_with_parent(parent: int | None = None, sign: signal.Signals = signal.SIGKILL) -> None:
    """From now on the kernel sends `sign` to this process when its parent dies.

    `parent` is the expected parent, by default the present one; when it is already gone, this process exits with status 1.
    The tie is to the thread that started this process, survives `exec`, and is not inherited by children.
    """
    expected = os.getppid() if parent is None else parent
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(sign), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != expected:  # it died between the fork and the line above
        os._exit(1)


def run_streamed(
    command: Sequence[str],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace: float = 10.0,
    keep: int = 40,
) -> Ended:
    """Run `command` to its end and hand each line of its output to `on_line` as it comes, in the calling thread.

    However this call ends (the child's exit, an exception in `on_line`, Ctrl-C, cancellation), every process of the child's
    session is gone afterwards: asked by SIGTERM, killed after `grace` seconds. `keep` bounds the lines kept of standard error.
    """
    process = _start(command, env, cwd, subprocess.PIPE)
    errors: deque[str] = deque(maxlen=keep)
    try:
        _stream(process, on_line, errors)
        code = process.wait()
    finally:
        _end_session(process, grace)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
    return Ended(code, tuple(errors))


@contextmanager
def running(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    grace: float = 10.0,
) -> Iterator[subprocess.Popen[bytes]]:
    """`command` running beside the block, a server for example; what it says is appended to `log`.

    When the block ends, however it ends, every process of the child's session is ended as by `run_streamed`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        process = _start(command, env, cwd, file.fileno())
        try:
            yield process
        finally:
            _end_session(process, grace)


def _start(command: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None, output: int) -> subprocess.Popen[bytes]:
    """`command` in a session of its own, tied to this process by the launcher."""
    launcher = [sys.executable, "-I", str(Path(__file__).absolute()), str(os.getpid())]
    return subprocess.Popen(
        [*launcher, *command],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=env,
        cwd=cwd,
        start_new_session=True,
    )


def _stream(process: subprocess.Popen[bytes], on_line: Callable[[str], None], errors: deque[str]) -> None:
    """Read both pipes until they close, or until the child is gone and nothing more comes (a stray may hold them open)."""
    assert process.stdout is not None  # opened by run_streamed
    assert process.stderr is not None
    error_fd = process.stderr.fileno()
    rests = {process.stdout.fileno(): b"", error_fd: b""}
    with selectors.DefaultSelector() as selector:
        for fd in rests:
            selector.register(fd, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(timeout=0.5)
            if not ready and process.poll() is not None:
                break
            for key, _ in ready:
                piece = os.read(key.fd, 1 << 16)
                if not piece:
                    selector.unregister(key.fd)
                # the carriage return of a progress bar ends a line too
                *lines, rests[key.fd] = (rests[key.fd] + piece).replace(b"\r", b"\n").split(b"\n")
                for line in lines:
                    _hand_over(line, key.fd == error_fd, on_line, errors)
    for fd, rest in rests.items():
        _hand_over(rest, fd == error_fd, on_line, errors)


def _hand_over(line: bytes, is_error: bool, on_line: Callable[[str], None], errors: deque[str]) -> None:
    text = line.decode(errors="replace").rstrip()
    if text:
        if is_error:
            errors.append(text)
        on_line(text)


def _end_session(process: subprocess.Popen[bytes], grace: float) -> None:
    """End what is left of the child's session. SIGKILL is sent even when the wait for SIGTERM is interrupted."""
    try:
        if _signal_group(process, signal.SIGTERM):
            deadline = time.monotonic() + grace
            while time.monotonic() < deadline and _signal_group(process, 0):
                time.sleep(0.05)
    finally:
        while _signal_group(process, signal.SIGKILL):
            time.sleep(0.01)


def _signal_group(process: subprocess.Popen[bytes], sign: int) -> bool:
    """Signal the child's process group; False when nobody is left in it."""
    process.poll()  # reaps the leader: a zombie would count as a member for ever
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        return False
    return True


def _launch(parent: int, command: Sequence[str]) -> None:
    die_with_parent(parent)
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        print(f"{command[0]}: cannot be started: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    _launch(int(sys.argv[1]), sys.argv[2:])
