"""DVC's command line as the flows use it: the command that brings a stage up to date, and what its words mean. No Prefect."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from pipeline.errors import UserError
from pipeline.files import locked, write_json
from pipeline.process import Ended, run_streamed

Outcome = Literal["ran", "restored", "pulled", "up to date"]
WORDS: dict[Outcome, str] = {
    "restored": "restored from DVC's cache: it has run on these inputs before",
    "pulled": "pulled from DVC's remote: another machine has run it on these inputs",
    "up to date": "up to date",
}
CHECKOUT = Path(__file__).absolute().parent.parent

EDIT_SECONDS = 10.0
"""For how long another DVC may read and write its record of locks; it takes milliseconds."""

# What DVC says around the stage's own words; the patterns are part of its command line since 1.0.
_SKIPPED = re.compile(r"Stage '.*' didn't change, skipping")
_RESTORED = re.compile(r"Stage '.*' is cached - skipping run, checking out outputs")
_PULLED = re.compile(r"Pulling data for stage: '.*'")
_NOT_PULLED = re.compile(r"Unable to pull data for stage: '.*'")
_FAILED = re.compile(r"ERROR: failed to reproduce '[^']*': (?:failed to run: .*, exited with (?P<code>-?\d+)|(?P<own>.*))")
_NOISE = re.compile(
    r"(Data and pipelines are up to date\.|Use `dvc push` to send.*|To track the changes with git, run:|\s+git add .*"
    r"|To enable auto staging, run:|\s+dvc config core\.autostage true|(Updating|Generating) lock file.*"
    r"|> exec python -m pipeline .*|Running stage .*)$"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a child failed, in the words of the one who noticed."""

    message: str
    code: int


class StageFailed(UserError):
    """A stage failed; the message is its own."""


def release_dead_locks(root: Path) -> list[str]:
    """Take from DVC's record of who works on which file those that were killed; their commands.

    DVC does so itself once a process is gone, but not while it waits to be reaped by its parent: for ever in a container whose
    first process reaps none. A record that a kill cut off is removed: DVC would refuse to work on.
    """
    record = root / ".dvc/tmp/rwlock"
    if not record.exists():
        return []
    with locked(record.with_name("rwlock.lock"), f"another DVC keeps {record}.lock; end it first", EDIT_SECONDS):
        try:
            content = json.loads(record.read_text())
        except json.JSONDecodeError:
            record.unlink()
            return ["a command that was killed while it wrote the record"]
        killed = {one["cmd"] for one in holders(content) if not works(one["pid"])}
        if killed:
            content = {
                "write": {path: one for path, one in content.get("write", {}).items() if works(one["pid"])},
                "read": {path: [one for one in many if works(one["pid"])] for path, many in content.get("read", {}).items()},
            }
            write_json(record, content)
        return sorted(killed)


def holders(content: dict[str, Any]) -> list[dict[str, Any]]:
    """Everybody in DVC's record of locks."""
    return [*content.get("write", {}).values(), *(one for many in content.get("read", {}).values() for one in many)]


def works(pid: int) -> bool:
    """Whether a process runs, and does not only wait to be reaped."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return False


def bring_up_to_date(
    name: str, root: Path, extra: Mapping[str, str], say: Callable[[str], None], *, pull: bool = False
) -> Outcome:
    """Bring stage `name` of the dvc.yaml in `root` up to date; `extra` goes into its environment, its words go to `say`.

    With `pull`, results that dvc.lock names for these very inputs come from the remote and are not made again. StageFailed.
    """
    for command in release_dead_locks(root):
        say(f"was killed and held files; released: {command}")
    outcome: Outcome = "ran"

    def hear(line: str) -> None:
        nonlocal outcome
        if _SKIPPED.match(line):
            outcome = "up to date"
        elif _PULLED.match(line):
            outcome = "pulled"
        elif _NOT_PULLED.match(line):
            outcome = "ran"
        elif _RESTORED.match(line):
            outcome = "restored"
        elif not _NOISE.match(line):
            say(line)

    ended = run_streamed(repro(name, pull=pull), hear, env=child_environment(extra), cwd=root)
    if ended.code != 0:
        raise StageFailed(cause(name, ended).message)
    if outcome != "ran":
        say(WORDS[outcome])
    return outcome


def repro(name: str, *, pull: bool = False) -> list[str]:
    """The command that brings one stage up to date."""
    words = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    return [*words, "--pull"] if pull else words


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment, in which `python` is this very interpreter whether or not its environment is activated."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", **extra}


def cause(name: str, ended: Ended) -> Cause:
    """The stage's own last message, out of what it and DVC wrote to standard error.

    A message is a line with the indented lines that follow it; a crash's is its last line, the stack stays in the log.
    """
    code, own = ended.code, ""
    lines: list[str] = []
    for line in ended.errors:
        if match := _FAILED.match(line):
            code, own = int(match["code"] or ended.code), match["own"] or ""
        else:
            lines.append(line)
    message = own or _last_message(lines)
    if ended.code < 0 or code < 0:
        message = message or f"ended by signal {-min(ended.code, code)} (out of memory, or somebody stopped it)"
    return Cause(message or f"{name}: exit status {code} and no message; see the log above", code)


def _last_message(lines: Sequence[str]) -> str:
    starts = [number for number, line in enumerate(lines) if not line.startswith((" ", "\t"))]
    return "\n".join(lines[starts[-1] :]) if starts else "\n".join(lines)
