"""The services of this checkout as plain processes of this machine, on 127.0.0.1, without Docker.

`serve` runs them in the foreground, until Ctrl-C; `up` leaves them running, `status` and `down` find them again. However the
process that watches over them ends, by kill -9 too, they end with it. While they run, prefect.toml in the checkout tells
Prefect's commands there, and flows started by hand, which server to talk to.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from pipeline.quiet import be_offline

be_offline()

from flows.server import forget_dead_services
from infra.services import state as states
from infra.services.plan import Plan, known, plan
from infra.services.prefect_server import announced
from infra.services.state import Birth, Entry, State
from infra.services.supervisor import stop_mark, supervise
from infra.services.table import table
from pipeline import settings
from pipeline.errors import ConfigError, UserError, did_you_mean
from pipeline.files import locked
from pipeline.layout import Layout

USAGE = """usage: python -m infra.local COMMAND [overrides]

  serve [overrides]   start the services and stay, until Ctrl-C; without a COMMAND the same
  up [overrides]      start them and leave them running
  down                end them
  status              what runs: exit status 0 when all is well, 1 when not
  env                 lines for a shell, with passwords: eval "$(python -m infra.local env)"
  stop NAME           end one of them, start NAME brings it back

services=small (the default: Prefect and MLflow on sqlite, a worker) or services=full (PostgreSQL, S3 and passwords besides), or
any of conf/services, such as services.authentication=true."""
CHECKOUT = Path(__file__).absolute().parent.parent
BUSY = "the services of this checkout run already; see: python -m infra.local status"
STOP_SECONDS = 90.0


def serve(root: Path, overrides: Sequence[str]) -> NoReturn:
    """Start everything, say where it is, and watch over it until somebody ends this process."""
    chosen, work = settings.load(overrides, root), Layout(root).services.absolute()
    with locked(work / "lock", BUSY):
        for mark in stop_mark(work, "any").parent.glob("*"):
            mark.unlink()
        planned = plan(chosen, root)
        state = State(supervisor=Birth.of(os.getpid()), settings=chosen.services)
        with announced(root, planned.prefect, planned.credentials):
            supervise(planned.waves, state, work, lambda: print(welcome(planned, chosen, work), flush=True))


def welcome(planned: Plan, chosen: settings.Settings, work: Path) -> str:
    """Where everything is, and what to do with it."""
    lines = [f"{service.name:<11}{service.address}" for service in planned.services if service.address]
    if not any(service.name == "MLflow" for service in planned.services):
        lines.append(f"{'MLflow':<11}{planned.mlflow}")
    lines += [f"{'logs':<11}{work}", "", "Runs the line, from another terminal in this folder, with .venv/bin on its PATH:"]
    lines += [
        "  prefect deployment run line/line --watch",
        "  prefect deployment run line/line --param overrides='[\"train.steps=200\"]' --watch",
    ]
    if chosen.services.authentication or chosen.services.objects == "s3":
        lines += ["", 'Passwords and keys for that terminal: eval "$(python -m infra.local env)"']
    if chosen.services.database == "postgresql":
        lines += ["", f"Runs go to this MLflow by: python -m pipeline config tracking=server tracking.uri={planned.mlflow}"]
    return "\n".join([*lines, "", "Ctrl-C stops all of it, python -m infra.local down too."])


def up(root: Path, overrides: Sequence[str]) -> int:
    """Start the services, unless they run already, and return when all are up; the exit status."""
    work = Layout(root).services.absolute()
    wanted = settings.load(overrides, root).services
    running = states.read(work)
    if running is not None and running.supervisor.lives():
        if running.settings != wanted:
            raise UserError(f"other services run here: {running.settings}\n  end them first: python -m infra.local down")
        return when_ready(root, running.supervisor.lives, work / "supervisor.log")
    down(root, quiet=True)
    log = work / "supervisor.log"
    work.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        command = [sys.executable, "-m", "infra.local", "serve", *overrides]
        process = subprocess.Popen(command, cwd=root, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    return when_ready(root, lambda: process.poll() is None, log)


def when_ready(root: Path, alive: Callable[[], bool], log: Path) -> int:
    """Print what runs once everything is up; the exit status. UserError with what `log` says when `alive` turns false first."""
    work = Layout(root).services.absolute()
    while alive():
        state = states.read(work)
        if state is not None and state.ready and state.supervisor.lives():
            return status(root)
        time.sleep(0.2)
    said = log.read_text(errors="replace").strip() if log.exists() else ""
    raise UserError(said or f"the services ended while they were being started; see {work}")


def down(root: Path, quiet: bool = False) -> int:
    """End the services, also those of a supervisor that was killed; the exit status. Nothing to do is no failure."""
    work = Layout(root).services.absolute()
    state = states.read(work)
    if state is None:
        forget_dead_services(Layout(root))
        say("nothing runs", quiet)
        return 0
    family = [state.supervisor, *(entry.process for entry in state.services.values() if entry.process is not None)]
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if state.supervisor.lives():
            os.kill(state.supervisor.pid, sign)
        deadline = time.monotonic() + STOP_SECONDS
        while any(one.lives() for one in family) and time.monotonic() < deadline:
            time.sleep(0.1)
    if left := [one.pid for one in family if one.lives()]:
        raise UserError(f"still running: {', '.join(map(str, left))}")
    states.forget(work)
    forget_dead_services(Layout(root))
    say("stopped", quiet)
    return 0


def status(root: Path) -> int:
    """Print what runs; 0 when everything is well."""
    work = Layout(root).services.absolute()
    state = states.read(work)
    if state is None:
        print(f"nothing runs\n  start it by: python -m infra.local up\n  logs of earlier times: {work}")
        return 1
    if not state.supervisor.lives():
        print("the services ended without a word (a reboot, a kill -9)\n  start them by: python -m infra.local up")
        return 1
    text, well = table(state)
    print(text)
    return 0 if well and state.ready else 1


def env(root: Path) -> int:
    """Print what a shell has to know to use the services; the only command that prints passwords."""
    state, work = running(root)
    addresses = {name: entry.address for name, entry in state.services.items()}
    for name, value in known(addresses, state.settings, work).items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def switch(root: Path, name: str, on: bool) -> int:
    """End one service, or bring it back, and return when that is done."""
    state, work = running(root)
    found = {entry.name.lower(): entry.name for entry in state.services.values()}
    if name.lower() not in found:
        raise ConfigError(name, None, f"is no service of this checkout. {did_you_mean(name.lower(), found)}")
    mark = stop_mark(work, found[name.lower()])
    mark.parent.mkdir(exist_ok=True)
    if on:
        mark.unlink(missing_ok=True)
    else:
        mark.touch()
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and running(root)[0].supervisor.lives():
        if done(running(root)[0].services[found[name.lower()]], on):
            return 0
        time.sleep(0.1)
    raise UserError(f"{name} is not {'up' if on else 'down'} after {STOP_SECONDS:.0f} s; see {work}")


def done(entry: Entry, on: bool) -> bool:
    """Whether a service is as it was asked to be."""
    from infra.services.service import is_well

    return (entry.process is not None and is_well(entry.health)) if on else entry.process is None


def running(root: Path) -> tuple[State, Path]:
    """What runs, and its folder. UserError when nothing does."""
    work = Layout(root).services.absolute()
    state = states.read(work)
    if state is None or not state.supervisor.lives():
        raise UserError("nothing runs\n  start it by: python -m infra.local up")
    return state, work


def say(text: str, quiet: bool) -> None:
    """Print, or not."""
    if not quiet:
        print(text)


def dispatch(arguments: Sequence[str]) -> int:
    """Do what the command line says."""
    command, *rest = arguments or ["serve"]
    if command == "serve":
        serve(CHECKOUT, rest)
    if command == "up":
        return up(CHECKOUT, rest)
    if command in ("stop", "start") and len(rest) == 1:
        return switch(CHECKOUT, rest[0], on=command == "start")
    if rest or command not in ("down", "status", "env"):
        print(USAGE, file=sys.stderr)
        return 2
    return {"down": down, "status": status, "env": env}[command](CHECKOUT)


def main() -> int:
    """The exit status: 0, 1 with one message, or 2 for a wrong setting or command."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(USAGE)
        return 0
    signal.signal(signal.SIGTERM, end_once)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored otherwise when a shell started this in the background
    try:
        return dispatch(sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped")
        return 0


def end_once(*_: object) -> None:
    """SIGTERM: unwind, and let no second one interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
