"""From settings to services: which ones, at which ports, with which environment."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.server import free_port
from infra.services import mlflow_server, postgresql, prefect_server, seaweedfs
from infra.services.credentials import Credentials, load_or_make
from infra.services.service import HOST, Service
from pipeline.errors import UserError
from pipeline.layout import Layout
from pipeline.services import ServicesConfig
from pipeline.settings import Settings
from pipeline.tracking import TrackingConfig, absolute_uri

PREFERRED = {"prefect": 4200, "mlflow": 5000, "s3": 8333, "postgresql": 5432}
"""Ports that are taken when they are free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that is going to run."""

    waves: tuple[tuple[Service, ...], ...]
    """Services that start together; each wave waits until the one before it is up."""
    prefect: int
    """Port of Prefect's server."""
    mlflow: str
    """Where MLflow is, in words when it is not ours."""
    credentials: Credentials | None
    """What clients need; none when authentication is off."""

    @property
    def services(self) -> tuple[Service, ...]:
        """All of them, in the order of their start."""
        return tuple(service for wave in self.waves for service in wave)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Ports of one start."""

    prefect: int
    mlflow: int
    s3: int
    postgresql: int
    worker: int


def plan(chosen: Settings, root: Path) -> Plan:
    """The services of `chosen` in the checkout `root`. UserError when something that they need is not installed."""
    config, work = chosen.services, Layout(root).services.absolute()
    work.mkdir(parents=True, exist_ok=True)
    at = Addresses(
        free_port(PREFERRED["prefect"]),
        free_port(PREFERRED["mlflow"]),
        seaweedfs.gateway_port(PREFERRED["s3"]),
        free_port(PREFERRED["postgresql"]),
        free_port(),
    )
    secret = load_or_make(work)
    first: list[Service] = []
    if config.database == "postgresql":
        first.append(postgresql.service(work / "postgresql", at.postgresql, secret, postgresql.unprivileged_account()))
    if config.objects == "s3":
        first.append(seaweedfs.service(work / "seaweedfs", at.s3, secret))
    shown = secret if config.authentication else None
    clients = basis(root) | client_environment(config, at, secret)
    tables, own = prefect_tables(config, work, at), servers(config, root, secret.prefect_database)
    second = [prefect_server.service(at.prefect, root, tables, own, clients, shown)]
    mlflow = f"http://{HOST}:{at.mlflow}"
    tracking = chosen.tracking
    if config.database == "postgresql" or (tracking.enabled and not tracking.uri.startswith("http")):
        second.append(mlflow_service(config, tracking, root, at, secret))
    else:
        mlflow = tracking.uri if tracking.enabled else "off (tracking=off)"
    third = [prefect_server.worker(at.worker, root, clients)] if config.worker else []
    waves = tuple(tuple(wave) for wave in (first, second, third) if wave)
    return Plan(waves=waves, prefect=at.prefect, mlflow=mlflow, credentials=shown)


def basis(root: Path) -> dict[str, str]:
    """The environment of every process: this one's, with this Python's commands first."""
    path = os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)))
    return {**os.environ, "PATH": path, "PWD": str(root)}  # prefect.yaml asks for PWD


def servers(config: ServicesConfig, root: Path, password: str) -> dict[str, str]:
    """The environment of a server with tables in our PostgreSQL: libpq and asyncpg take its `password` from there."""
    return basis(root) | ({"PGPASSWORD": password} if config.database == "postgresql" else {})


def prefect_tables(config: ServicesConfig, work: Path, at: Addresses) -> str:
    """Where Prefect keeps its tables, without a password."""
    if config.database == "postgresql":
        return f"postgresql+asyncpg://prefect@{HOST}:{at.postgresql}/prefect"
    return f"sqlite+aiosqlite:///{work / 'prefect.db'}"


def mlflow_service(config: ServicesConfig, tracking: TrackingConfig, root: Path, at: Addresses, secret: Credentials) -> Service:
    """MLflow's server, over the store that runs in this checkout write to unless it has tables of its own in PostgreSQL."""
    work, environment = Layout(root).services.absolute(), servers(config, root, secret.mlflow_database)
    store, users = absolute_uri(tracking.uri, root), f"sqlite:///{work / 'mlflow-users.db'}"
    if config.database == "postgresql":
        store = f"postgresql://mlflow@{HOST}:{at.postgresql}/mlflow"
        users = f"postgresql://mlflow@{HOST}:{at.postgresql}/mlflow_users"
    place = tracking.artifacts or "mlartifacts"
    artifacts = place if "://" in place else str((root / place).absolute())
    if config.objects == "s3":
        artifacts = "s3://mlflow"
        environment |= seaweedfs.client_environment(f"http://{HOST}:{at.s3}", secret)
        environment["MLFLOW_S3_ENDPOINT_URL"] = f"http://{HOST}:{at.s3}"
    if config.authentication:
        environment |= mlflow_server.guarded(work, users, secret)
    return mlflow_server.service(at.mlflow, root, store, artifacts, environment)


def client_environment(config: ServicesConfig, at: Addresses, secret: Credentials) -> dict[str, str]:
    """What commands and flows need to reach the services; `python -m infra.local env` prints it.

    S3 keys of one's own, in the environment already, stay: sources may lie on another server.
    """
    wanted = prefect_server.client_environment(at.prefect, secret if config.authentication else None)
    if config.authentication:
        wanted |= {"MLFLOW_TRACKING_USERNAME": mlflow_server.ADMIN, "MLFLOW_TRACKING_PASSWORD": secret.mlflow}
    ours = os.environ.get("AWS_ACCESS_KEY_ID") in (None, secret.s3_key)  # a shell that has these lines already gets them again
    if config.objects == "s3" and ours and "AWS_PROFILE" not in os.environ:
        wanted |= seaweedfs.client_environment(f"http://{HOST}:{at.s3}", secret)
    return wanted


def known(addresses: Mapping[str, str], config: ServicesConfig, work: Path) -> dict[str, str]:
    """The environment of clients of services that run already, by their addresses. UserError while they are being started."""
    if "Prefect" not in addresses:
        raise UserError("the services are being started\n  see: python -m infra.local status")
    ports = {name: int(address.rpartition(":")[2]) for name, address in addresses.items() if address}
    at = Addresses(ports["Prefect"], ports.get("MLflow", 0), ports.get("SeaweedFS", 0), ports.get("PostgreSQL", 0), 0)
    tracking = {"MLFLOW_TRACKING_URI": addresses["MLflow"]} if "MLflow" in addresses else {}
    return client_environment(config, at, load_or_make(work)) | tracking
