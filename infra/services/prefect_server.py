"""Prefect's server and worker, the deployments of prefect.yaml on it, and prefect.toml, which tells commands here where it is."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from flows.server import PREFECT_TOML, PREFECT_TOML_HEADER
from infra.services.credentials import Credentials, write_secret
from infra.services.service import HOST, Service
from pipeline import settings
from pipeline.errors import UserError
from pipeline.process import run_streamed

POOL = "local"


def service(
    port: int,
    root: Path,
    database: str,
    environment: Mapping[str, str],
    clients: Mapping[str, str],
    credentials: Credentials | None,
) -> Service:
    """The server over `database`; with `credentials` it answers only those who have them. `clients` is their environment."""
    return Service(
        name="Prefect",
        command=(sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)),
        health=f"http://{HOST}:{port}/api/health",
        address=f"http://{HOST}:{port}",
        environment={
            **environment,
            **client_environment(port, credentials),
            "PREFECT_UI_API_URL": f"http://{HOST}:{port}/api",  # or the page looks for its server at the default port
            "PREFECT_API_DATABASE_CONNECTION_URL": database,
            **({"PREFECT_SERVER_API_AUTH_STRING": credentials.prefect} if credentials else {}),
        },
        folder=root,
        settle=partial(apply_deployments, root, clients),
    )


def worker(port: int, root: Path, environment: Mapping[str, str]) -> Service:
    """The worker that runs deployments in processes of this machine; its state of health is at `port`."""
    return Service(
        name="worker",
        command=(sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--with-healthcheck"),
        health=f"http://{HOST}:{port}/health",
        environment={
            **environment,
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_WEBSERVER_HOST": HOST,
            "PREFECT_WORKER_WEBSERVER_PORT": str(port),
        },
        folder=root,
    )


def client_environment(port: int, credentials: Credentials | None) -> dict[str, str]:
    """What tells Prefect's clients where the server is, and who they are."""
    who = {"PREFECT_API_AUTH_STRING": credentials.prefect} if credentials else {}
    return {"PREFECT_API_URL": f"http://{HOST}:{port}/api", **who}


def apply_deployments(root: Path, environment: Mapping[str, str]) -> None:
    """The work pool, prefect.yaml's deployments, and one slot for the GPU unless somebody has set another number."""
    slot = settings.check(settings.compose(["compute=gpu"], root)).compute.slot
    prefect(root, environment, "work-pool", "create", POOL, "--type", "process", "--overwrite")
    prefect(root, environment, "deploy", "--all", "--no-prompt")
    if slot and not prefect(root, environment, "gcl", "inspect", slot, check=False):
        prefect(root, environment, "gcl", "create", slot, "--limit", "1")


def prefect(root: Path, environment: Mapping[str, str], *words: str, check: bool = True) -> bool:
    """One of Prefect's commands; UserError with its words when it fails and `check` is set. Whether it went well."""
    lines: list[str] = []
    ended = run_streamed([sys.executable, "-m", "prefect", *words], lines.append, env=environment, cwd=root)
    if ended.code and check:
        raise UserError("\n".join([f"prefect {' '.join(words)} failed:", *lines[-15:]]))
    return ended.code == 0


@contextmanager
def announced(root: Path, port: int, credentials: Credentials | None) -> Iterator[None]:
    """prefect.toml names the server while the block runs. UserError when the user has one of their own."""
    path, api = root / PREFECT_TOML, f"http://{HOST}:{port}/api"
    if path.exists() and not path.read_text().startswith(PREFECT_TOML_HEADER):
        raise UserError(f"{path}: is not of make serve; move it away, or set api.url in it by hand to {api}")
    who = f'auth_string = "{credentials.prefect}"\n' if credentials else ""
    write_secret(path, f'{PREFECT_TOML_HEADER}\n[api]\nurl = "{api}"\n{who}')
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
