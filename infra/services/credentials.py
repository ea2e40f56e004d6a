"""Passwords and keys of the services: made at random at the first start, kept in one file that only its owner reads."""

import json
import os
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pipeline.errors import UserError
from pipeline.files import write_atomically

FILE = "credentials.json"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credentials:
    """Nothing prints them: commands get them by the environment, never by arguments, which every user of a machine can list."""

    postgresql: str
    """Password of PostgreSQL's administrator, `postgres`."""
    prefect_database: str
    """Password of the role `prefect`."""
    mlflow_database: str
    """Password of the role `mlflow`."""
    prefect: str
    """What Prefect's clients send: NAME:PASSWORD."""
    mlflow: str
    """Password of MLflow's user `admin`."""
    mlflow_signing: str
    """Key by which MLflow signs its forms."""
    s3_key: str
    """Name of the S3 key that MLflow and DVC use."""
    s3_secret: str
    """The key itself."""

    def __repr__(self) -> str:
        return "Credentials(...)"


def load_or_make(folder: Path) -> Credentials:
    """Those of this installation; made when `folder` has none. UserError when the file is damaged or others may read it."""
    path = folder / FILE
    if not path.exists():
        write_secret(path, json.dumps(asdict(generated()), indent=1))
    if path.stat().st_mode & 0o077:
        raise UserError(f"{path}: holds passwords and others may read it\n  chmod 600 {path}")
    try:
        return Credentials(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        names = ", ".join(field.name for field in fields(Credentials))
        raise UserError(f"{path}: is damaged; it must hold {names}\n  put a copy back, or begin anew without {folder}") from error


def generated() -> Credentials:
    """New ones."""
    values = {field.name: secrets.token_urlsafe(24) for field in fields(Credentials)}
    values["prefect"] = f"admin:{values['prefect']}"
    values["s3_key"] = secrets.token_hex(10).upper()
    return Credentials(**values)


def write_secret(path: Path, text: str) -> None:
    """`text` in a file that from its first moment only its owner reads."""
    before = os.umask(0o077)
    try:
        write_atomically(path, text.encode())
    finally:
        os.umask(before)
