"""The child process behind a task: its words arrive, its end is total. Real processes, no Prefect server."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from flows.repro import cause
from pipeline.process import Ended, run_streamed

CHECKOUT = Path(__file__).parent.parent.parent

# A child that starts a grandchild, says both pids, and neither of them heeds SIGTERM.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
grandchild = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
grandchild.stdout.readline()
print(os.getpid(), grandchild.pid, flush=True)
time.sleep(600)
"""


class Cancelled(BaseException):
    """What Prefect raises in the main thread when a run is cancelled is no Exception either."""


def gone(pids: list[int], within: float = 10.0) -> bool:
    """Whether all of `pids` are dead (or zombies of somebody else) within some seconds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.05)
    return False


def test_lines_arrive_while_the_child_runs():
    arrived: list[tuple[str, float]] = []
    slow = "import time\nfor i in range(3): print('line', i, flush=True); time.sleep(0.4)\nprint('no newline', end='')"
    ended = run_streamed([sys.executable, "-c", slow], lambda line: arrived.append((line, time.monotonic())))
    assert [line for line, _ in arrived] == ["line 0", "line 1", "line 2", "no newline"]
    assert arrived[1][1] - arrived[0][1] > 0.2, "lines were held back"
    assert ended.code == 0


def test_cancellation_kills_child_and_grandchild_that_ignore_sigterm():
    pids: list[int] = []

    def cancel(line: str) -> None:
        pids.extend(map(int, line.split()))
        raise Cancelled

    with pytest.raises(Cancelled):
        run_streamed([sys.executable, "-c", STUBBORN], cancel, grace=0.3)
    assert len(pids) == 2
    assert gone(pids, within=0.5), "they must be gone when the call returns"


def test_what_a_child_leaves_running_is_ended_with_it():
    pids: list[int] = []
    leaves = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    began = time.monotonic()
    ended = run_streamed([sys.executable, "-c", leaves], lambda line: pids.append(int(line)), grace=1.0)
    assert ended.code == 0
    assert gone(pids, within=0.5)
    assert time.monotonic() - began < 30, "a stray that holds the pipe open must not hold the caller"


def test_kill_9_of_the_parent_ends_the_child():
    parent = (
        "import sys; from pipeline.process import run_streamed\n"
        "run_streamed([sys.executable, '-c', 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'],"
        " lambda line: print(line, flush=True))"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, cwd=CHECKOUT, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    assert gone([child])


def test_child_that_lost_its_parent_before_the_tie_does_not_start():
    launcher = [sys.executable, "-I", str(CHECKOUT / "pipeline/process.py"), "1" if os.getpid() != 1 else "2"]
    done = subprocess.run([*launcher, sys.executable, "-c", "print('ran')"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""


def test_command_that_does_not_exist_is_one_line():
    ended = run_streamed(["no-such-program"], lambda _: None)
    assert ended.code == 127
    assert ended.errors == ("no-such-program: cannot be started: No such file or directory",)


@pytest.mark.parametrize(
    "errors, message",
    [
        (
            (
                "UserWarning: something else",
                "labels/a.xml: object 7: no area",
                "  drop it",
                "ERROR: failed to reproduce 'ingest': failed to run: exec python -m pipeline ingest, exited with 1",
            ),
            "labels/a.xml: object 7: no area\n  drop it",
        ),
        (
            (
                "Traceback (most recent call last):",
                '  File "x.py", line 1',
                "ValueError: bad",
                "ERROR: failed to reproduce 'x': failed to run: exec python -m pipeline x, exited with 1",
            ),
            "ValueError: bad",
        ),
        (("ERROR: failed to reproduce 'ingest': missing data 'source': pictures",), "missing data 'source': pictures"),
        (
            ("ERROR: failed to reproduce 'train': failed to run: exec python -m pipeline train, exited with -9",),
            "ended by signal 9 (out of memory, or somebody stopped it)",
        ),
        ((), "train: exit status 255 and no message; see the log above"),
    ],
)
def test_failure_reads_as_the_one_message_of_who_noticed(errors, message):
    assert cause("train", Ended(255, errors)).message == message


def test_sigterm_alone_is_enough_for_a_willing_child():
    """The grace period is for those who need it: a willing child ends at once."""
    began = 0.0

    def cancel(_: str) -> None:
        nonlocal began
        began = time.monotonic()
        raise Cancelled

    with pytest.raises(Cancelled):
        run_streamed([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"], cancel, grace=20.0)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    "exchange, outcome, done",
    [
        (False, "ran", ["train"]),
        (True, "ran", ["pull for train", "train, or pull it", "push train"]),
        (True, "pulled", ["pull for train", "train, or pull it"]),
    ],
)
def test_with_exchange_a_stage_pulls_before_and_pushes_after(exchange, outcome, done, monkeypatch):
    import logging

    from flows import stage

    seen: list[str] = []

    def bring(name, root, extra, say, *, pull):
        seen.append(f"{name}, or pull it" if pull else name)
        return outcome

    monkeypatch.setattr(stage, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(stage, "bring_up_to_date", bring)
    monkeypatch.setattr(stage, "pull_inputs", lambda names, root, say: seen.append(f"pull for {names[0]}"))
    monkeypatch.setattr(stage, "push_results", lambda names, root, say: seen.append(f"push {names[0]}"))
    assert stage.run_stage.fn("train", CHECKOUT, {}, None, exchange) == outcome
    assert seen == done
