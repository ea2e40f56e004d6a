"""Local services, from one command: Prefect's server, MLflow's server and a worker, on 127.0.0.1. `make serve` runs it.

They live as long as this process: Ctrl-C, SIGTERM and even kill -9 of it end them all. While they run, prefect.toml in the
checkout tells Prefect's commands there, and flows started by hand, which server to talk to.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from pipeline.quiet import be_offline

be_offline()

from flows.server import PREFECT_TOML, PREFECT_TOML_HEADER, free_port, wait_until_up
from pipeline import settings
from pipeline.errors import UserError
from pipeline.files import locked, write_atomically
from pipeline.layout import Layout
from pipeline.process import run_streamed, running
from pipeline.tracking import absolute_uri

CHECKOUT = Path(__file__).absolute().parent.parent
POOL = "local"
BUSY = "make serve runs in this checkout already; stop it, or use its servers"
HOST = "127.0.0.1"


def serve(root: Path) -> int:
    """Start everything, say where it is, and wait until somebody stops it; the exit status."""
    work = Layout(root).services
    with locked(work / "lock", BUSY), ExitStack() as stack:
        prefect_url, mlflow_url = f"http://{HOST}:{free_port(4200)}", f"http://{HOST}:{free_port(5000)}"
        environment = {
            **os.environ,
            "PATH": os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath))),
            "PWD": str(root),  # prefect.yaml asks for it
            "PREFECT_API_URL": f"{prefect_url}/api",
            "PREFECT_UI_API_URL": f"{prefect_url}/api",  # or the page looks for its server at the default port
            "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{work.absolute() / 'prefect.db'}",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers would outlive it
        }
        services = {"Prefect": prefect_server(prefect_url)}
        tracking = settings.load((), root).tracking
        if tracking.enabled and not tracking.uri.startswith("http"):
            services["MLflow"] = mlflow_server(mlflow_url, absolute_uri(tracking.uri, root), tracking.artifacts, root)
        else:
            mlflow_url = tracking.uri if tracking.enabled else "off (tracking=off)"
        started = {
            name: stack.enter_context(running(command, work / f"{name.lower()}.log", env=environment, cwd=root))
            for name, command in services.items()
        }
        for name, url in (("Prefect", f"{prefect_url}/api/health"), ("MLflow", f"{mlflow_url}/health")):
            if name in started:
                failed = f"{name}'s server did not start; see {work / name.lower()}.log"
                wait_until_up(url, partial(lives, started[name]), failed)
        apply_deployments(root, environment)
        worker = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
        started["worker"] = stack.enter_context(running(worker, work / "worker.log", env=environment, cwd=root))
        stack.enter_context(announced(root, f"{prefect_url}/api"))
        print(
            f"Prefect  {prefect_url}\nMLflow   {mlflow_url}\nlogs     {work}\n\n"
            "Runs the line, from another terminal in this folder, with .venv/bin on its PATH:\n"
            "  prefect deployment run line/line --watch\n"
            "  prefect deployment run line/line --param overrides='[\"train.steps=200\"]' --watch\n\nCtrl-C stops all of it.",
            flush=True,
        )
        return wait(started, work)


def lives(process: subprocess.Popen[bytes]) -> bool:
    """Whether it still runs."""
    return process.poll() is None


def prefect_server(url: str) -> list[str]:
    """The command of Prefect's server at `url`."""
    return [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", url.rsplit(":", 1)[1]]


def mlflow_server(url: str, store: str, artifacts: str | None, root: Path) -> list[str]:
    """The command of an MLflow server at `url` over the store that runs in this checkout write to."""
    place = artifacts or "mlartifacts"
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", url.rsplit(":", 1)[1], "--workers", "1"),
        *("--backend-store-uri", store, "--artifacts-destination", place if "://" in place else str((root / place).absolute())),
    ]


def apply_deployments(root: Path, environment: dict[str, str]) -> None:
    """The work pool, prefect.yaml's deployments, and one slot for the GPU unless somebody has set another number."""
    slot = settings.check(settings.compose(["compute=gpu"], root)).compute.slot
    prefect(root, environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    prefect(root, environment, "deploy", "--all", "--no-prompt")
    if slot and not prefect(root, environment, "gcl", "inspect", slot, check=False):
        prefect(root, environment, "gcl", "create", slot, "--limit", "1")


def prefect(root: Path, environment: dict[str, str], *words: str, check: bool = True) -> bool:
    """One of Prefect's commands; UserError with its words when it fails and `check` is set. Whether it went well."""
    lines: list[str] = []
    ended = run_streamed([sys.executable, "-m", "prefect", *words], lines.append, env=environment, cwd=root)
    if ended.code and check:
        raise UserError("\n".join([f"prefect {' '.join(words)} failed:", *lines[-15:]]))
    return ended.code == 0


@contextmanager
def announced(root: Path, api: str) -> Iterator[None]:
    """prefect.toml names the server while the block runs. UserError when the user has one of their own."""
    path = root / PREFECT_TOML
    if path.exists() and not path.read_text().startswith(PREFECT_TOML_HEADER):
        raise UserError(f"{path}: is not of make serve; move it away, or set api.url in it by hand to {api}")
    write_atomically(path, f'{PREFECT_TOML_HEADER}\n[api]\nurl = "{api}"\n'.encode())
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def wait(started: dict[str, subprocess.Popen[bytes]], work: Path) -> int:
    """Until a service ends by itself: UserError names it and its log."""
    while True:
        for name, process in started.items():
            if not lives(process):
                raise UserError(f"{name} ended with status {process.returncode}; see {work / name.lower()}.log")
        time.sleep(0.5)


def main() -> int:
    """Serve until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored otherwise when a shell started this in the background
    try:
        return serve(CHECKOUT)
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped")
        return 0


if __name__ == "__main__":
    sys.exit(main())
