"""Passwords: nobody gets in without, and they stand nowhere but in the one file that keeps them."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import psutil
import pytest

from infra.services.credentials import Credentials
from tests.services.full import Full, needs_postgresql

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
SHAPES = ["dataset.size=64", "dataset.train=6", "dataset.val=3"]
STAGES = ("ingest", "validate")
KEEPERS_OF_SECRETS = {"work/services/credentials.json", "work/services/seaweedfs/s3.json", "prefect.toml"}
PUBLIC = {"s3_key"}
"""Names of keys are no secrets."""


@pytest.fixture(scope="module")
def recorded(full: Full) -> Full:
    """Two stages ran with the services: tracked by MLflow through its server, and pushed to the bucket of DVC."""
    clients = full.clients()
    tracked = full.clone.with_environment({name: value for name, value in clients.items() if not name.startswith("AWS_")})
    tracked.run("pipeline", "config", *SHAPES, "tracking=server", f"tracking.uri={full.address('MLflow')}")
    tracked.run("dvc", "repro", *STAGES)
    tracked.run("dvc", "remote", "add", "--default", "store", "s3://dvc/security")
    tracked.run("dvc", "remote", "modify", "store", "endpointurl", full.address("SeaweedFS"))
    full.clone.with_environment(clients).run("dvc", "push", *STAGES)
    return full


def test_prefect_refuses_whoever_does_not_know_the_password(full: Full) -> None:
    address, right = f"{full.address('Prefect')}/api/flows/filter", full.credentials.prefect
    assert [full.status_of(address, who, b"{}") for who in ("", "admin:wrong", right)] == [401, 401, 200]


def test_mlflow_refuses_whoever_does_not_know_the_password(full: Full) -> None:
    address = f"{full.address('MLflow')}/api/2.0/mlflow/experiments/search?max_results=1"
    right = f"admin:{full.credentials.mlflow}"
    assert [full.status_of(address, who) for who in ("", "admin:wrong", right)] == [401, 401, 200]
    artifacts = f"{full.address('MLflow')}/api/2.0/mlflow-artifacts/artifacts?path="
    assert [full.status_of(artifacts, who) for who in ("", right)] == [401, 200]


def test_s3_refuses_whoever_has_no_key(full: Full) -> None:
    assert full.status_of(f"{full.address('SeaweedFS')}/mlflow/ready") == 403


def test_postgresql_refuses_whoever_does_not_know_the_password(full: Full) -> None:
    needs_postgresql()
    import psycopg2

    port = int(full.address("PostgreSQL").rpartition(":")[2])
    for role in ("postgres", "prefect", "mlflow"):
        with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
            psycopg2.connect(host="127.0.0.1", port=port, user=role, password="wrong", dbname="postgres")


def test_artifacts_arrive_in_s3_from_a_client_without_keys(recorded: Full) -> None:
    listed = recorded.s3().list_objects_v2(Bucket="mlflow")["Contents"]
    keys = {entry["Key"]: entry["Key"].partition("/artifacts/")[2] for entry in listed}
    assert {"params.yaml", "reports/validate/index.html"} <= set(keys.values())
    bodies = [
        recorded.s3().get_object(Bucket="mlflow", Key=key)["Body"].read() for key, name in keys.items() if name == "params.yaml"
    ]
    assert (recorded.clone.folder / "params.yaml").read_bytes() in bodies  # other tests may have sent runs of theirs


def test_no_secret_is_written_anywhere(recorded: Full) -> None:
    """Logs, state, results, settings, DVC's record, the stores of both servers and of S3, file by file, in whatever format."""
    secrets = wanted(recorded.credentials)
    folder = recorded.clone.folder
    found, read = [], set()
    for path in (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()):
        name = path.relative_to(folder).as_posix()
        with contextlib.suppress(FileNotFoundError):  # the servers go on working
            content = path.read_bytes()
            read.add(name)
            if name not in KEEPERS_OF_SECRETS:
                found += [(name, secret) for secret, value in secrets.items() if value in content]
    assert not found
    logs = {f"work/services/{name}.log" for name in ("mlflow", "prefect", "seaweedfs", "worker", "supervisor")}
    assert logs | {"dvc.lock", "params.yaml", ".dvc/config", "reports/validate/index.html"} <= read
    for name in KEEPERS_OF_SECRETS:  # they do hold some, for their owner's eyes
        assert any(value in (folder / name).read_bytes() for value in secrets.values()), name
        assert (folder / name).stat().st_mode & 0o077 == 0, name


def test_no_secret_is_in_a_table_or_an_object(recorded: Full) -> None:
    secrets = wanted(recorded.credentials)
    stores = [(f"s3://{bucket}/{key}", body) for bucket in ("mlflow", "dvc") for key, body in objects(recorded, bucket)]
    assert {name.split("/")[2] for name, _ in stores} == {"mlflow", "dvc"} and len(stores) > 10
    stores += [(database, dump(recorded, database)) for database in databases(recorded)]
    assert not [(name, secret) for name, content in stores for secret, value in secrets.items() if value in content]


def test_no_secret_is_among_the_arguments_of_a_process(recorded: Full) -> None:
    secrets = wanted(recorded.credentials)
    arguments = {pid: " ".join(command).encode() for pid, command in commands(recorded)}
    assert len(arguments) > 8
    assert not [(pid, secret) for pid, line in arguments.items() for secret, value in secrets.items() if value in line]


def wanted(credentials: Credentials) -> dict[str, bytes]:
    """What must not be found, by its name; Prefect's without the user's name before it."""
    values = {field.name: getattr(credentials, field.name) for field in fields(Credentials) if field.name not in PUBLIC}
    return {name: value.removeprefix("admin:").encode() for name, value in values.items()}


def objects(full: Full, bucket: str) -> Iterator[tuple[str, bytes]]:
    for entry in full.s3().list_objects_v2(Bucket=bucket)["Contents"]:
        yield entry["Key"], full.s3().get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()


def databases(full: Full) -> list[str]:
    from infra.services.postgresql import DATABASES

    return list(DATABASES) if "PostgreSQL" in full.state().services else []


def dump(full: Full, database: str) -> bytes:
    from infra.services.postgresql import programs

    port = full.address("PostgreSQL").rpartition(":")[2]
    command = [str(programs(Path("absent")) / "pg_dump"), "-h", "127.0.0.1", "-p", port, "-U", "postgres", "--inserts", database]
    done = subprocess.run(command, env={"PGPASSWORD": full.credentials.postgresql}, capture_output=True, check=True)
    assert b"INSERT INTO" in done.stdout
    return done.stdout


def commands(full: Full) -> Iterator[tuple[int, list[str]]]:
    state = full.state()
    keepers = [entry.process.pid for entry in state.services.values() if entry.process is not None]
    for pid in (state.supervisor.pid, *keepers):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            yield process.pid, process.cmdline()
