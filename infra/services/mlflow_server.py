"""MLflow's server: tables in sqlite or PostgreSQL, artifacts in a folder or S3, which its clients reach through it alone."""

import sys
from collections.abc import Mapping
from pathlib import Path

from infra.services.credentials import Credentials, write_secret
from infra.services.service import HOST, Service

ADMIN = "admin"


def service(port: int, root: Path, store: str, artifacts: str, environment: Mapping[str, str]) -> Service:
    """The server over the tables `store` and the files `artifacts`; `environment` holds what reaches both."""
    guard = ("--app-name", "basic-auth") if "MLFLOW_AUTH_CONFIG_PATH" in environment else ()
    return Service(
        name="MLflow",
        command=(
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", store, "--serve-artifacts", "--artifacts-destination", artifacts, *guard),
        ),
        health=f"http://{HOST}:{port}/health",
        address=f"http://{HOST}:{port}",
        environment={
            **environment,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers would outlive it
        },
        folder=root,
    )


def guarded(work: Path, users: str, credentials: Credentials) -> dict[str, str]:
    """The environment that makes MLflow ask for passwords; `users` is where it keeps them. The first user is ADMIN."""
    settings = work / "mlflow-auth.ini"
    text = (
        f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {users}\nadmin_username = {ADMIN}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    write_secret(settings, text)
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": credentials.mlflow,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": credentials.mlflow_signing,
    }
