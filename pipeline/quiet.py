"""Libraries that would call home, fetch something, give up too early or hog the cores: told not to before they are imported."""

import os

_QUIET = {
    "DO_NOT_TRACK": "true",  # MLflow and others; MLflow wants this very word
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # its own 20 s are too few on a slow machine
    "DVC_NO_ANALYTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OMP_WAIT_POLICY": "PASSIVE",  # torch's threads sleep while they wait: spinning, they starve each other on a busy machine
}


def be_offline() -> None:
    """Set what the environment does not already say, for this process and its children. Call before heavy imports."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
