"""One stage as one Prefect task: `dvc repro` of that stage in a child process, its output in the run's log as it comes.

DVC decides whether the stage is up to date and holds the locks; Prefect decides when it runs and whether it is tried again (its
own settings; nothing here retries or caches). Cancelling the task, or any other end of it, ends the whole process session.
"""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.states import Failed

from pipeline.process import Ended, run_streamed

Outcome = Literal["ran", "restored", "up to date"]
CHECKOUT = Path(__file__).absolute().parent.parent
SLOT_SECONDS = 60.0
"""How long a slot stays taken after its holder was killed; a live one renews it."""

# What DVC says around the stage's own words; the patterns are part of its command line since 1.0.
_SKIPPED = re.compile(r"Stage '.*' didn't change, skipping")
_RESTORED = re.compile(r"Stage '.*' is cached - skipping run, checking out outputs")
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


@task(cache_policy=NO_CACHE, persist_result=False)
def run_stage(name: str, root: Path, extra: dict[str, str], slot: str | None) -> Outcome | State[Any]:
    """Bring stage `name` of the dvc.yaml in `root` up to date; `extra` goes into its environment.

    It waits for the concurrency limit `slot` first, if one is named and the server has it: one GPU, one stage at a time.
    A failed stage is a Failed state whose message is the stage's own: Prefect would print a stack trace for an exception.
    """
    logger = get_run_logger()
    outcome: Outcome = "ran"

    def log(line: str) -> None:
        nonlocal outcome
        if _SKIPPED.match(line):
            outcome = "up to date"
        elif _RESTORED.match(line):
            outcome = "restored"
        elif not _NOISE.match(line):
            logger.info(line)

    with concurrency(slot, lease_duration=SLOT_SECONDS, strict=False) if slot else nullcontext():
        ended = run_streamed(repro(name), log, env=child_environment(extra), cwd=root)
    if ended.code != 0:
        return Failed(message=cause(name, ended).message)
    if outcome != "ran":
        logger.info("up to date" if outcome == "up to date" else "restored from DVC's cache: it has run on these inputs before")
    return outcome


def repro(name: str) -> list[str]:
    """The command that brings one stage up to date."""
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]


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
