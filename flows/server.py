"""Prefect's server for one run on this machine, when no other is set: started with the run, gone with it.

Prefect would start one by itself, but in the run's own process group: a Ctrl-C or a SIGTERM to the group ends the server first,
and the run then tries for minutes to report its end to nobody. Here it has a session of its own, and dies with the run even by
kill -9.
"""

import logging
import os
import socket
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pipeline.errors import UserError
from pipeline.files import locked
from pipeline.layout import Layout
from pipeline.process import running

START_SECONDS = 180.0
PREFECT_TOML = "prefect.toml"
PREFECT_TOML_HEADER = (
    "# Written by make serve, which removes it when it ends: Prefect's commands in this folder talk to its server."
)


@contextmanager
def prefect_api(layout: Layout) -> Iterator[None]:
    """Inside the block Prefect has an API to talk to: the one that its settings name, or a temporary server.

    UserError when that server does not come up.
    """
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    left_behind = forget_dead_services(layout)
    if PREFECT_API_URL.value() and not left_behind:
        yield
        return
    log = layout.work("prefect-server.log")
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-services", "--no-ui", "--log-level", "ERROR"]
    with ExitStack() as stack:
        # One at a time: each makes or migrates the same database of this user, and two at once break it.
        with locked(
            PREFECT_HOME.value() / "detectline.lock", f"Prefect's temporary server is being started; see {log}", START_SECONDS
        ):
            port = free_port()
            address = ["--host", "127.0.0.1", "--port", str(port)]
            server = stack.enter_context(running([*command, *address], log, env=quiet_environment()))
            url = f"http://127.0.0.1:{port}/api"
            wait_until_up(f"{url}/health", lambda: server.poll() is None, f"Prefect's temporary server did not start; see {log}")
        stack.enter_context(temporary_settings({PREFECT_API_URL: url}))
        stack.callback(send_logs)
        yield


def forget_dead_services(layout: Layout) -> bool:
    """Remove the prefect.toml that a killed `make serve` left; whether there was one."""
    path = layout.root / PREFECT_TOML
    if not path.exists() or not path.read_text().startswith(PREFECT_TOML_HEADER):
        return False
    try:
        with locked(layout.services / "lock", "it is alive"):
            path.unlink(missing_ok=True)
    except UserError:
        return False
    return True


def send_logs() -> None:
    """Send what Prefect has queued for its server: at exit, when it would do so itself, this server is gone."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            handler.flush()


def quiet_environment() -> dict[str, str]:
    """This process's environment without Prefect's notes about the run in it, which are not the server's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT__")}


def free_port(preferred: int = 0) -> int:
    """`preferred` when nobody listens there on 127.0.0.1, else a port that the system chooses."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise UserError("no free port on 127.0.0.1")


def wait_until_up(url: str, alive: Callable[[], bool], failed: str) -> None:
    """Return when `url` answers 200. UserError(`failed`) when `alive()` turns false or START_SECONDS pass first."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy cannot know this machine's own address
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with direct.open(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass  # not yet
        if not alive():
            break
        time.sleep(0.1)
    raise UserError(failed)
