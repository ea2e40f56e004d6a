"""infra/compose.yaml, without Docker: what its rules promise, and the parts that run here run for real."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.services.full import needs_postgresql

VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")
SECRET = re.compile(r"PASSWORD|SECRET|AUTH$|SIGNING|ACCESS_KEY")


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """As Compose does it. KeyError names a variable that must be set and is not."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if values.get(name):
            return values[name]
        if kind != "-":
            raise KeyError(name)
        return rest

    return VARIABLE.sub(value, text)


@pytest.fixture(scope="module")
def text(root: Path) -> str:
    return (root / "infra/compose.yaml").read_text()


@pytest.fixture(scope="module")
def development(root: Path) -> dict[str, str]:
    lines = (root / "infra/development.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def services(text: str, development: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(interpolated(text, development))["services"]
    return found


def test_all_that_a_team_has_is_there(services: dict[str, Any]) -> None:
    assert {"postgresql", "seaweedfs", "mlflow", "prefect", "worker-cpu", "worker-gpu"} <= services.keys()


def test_every_image_is_of_one_version(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert re.search(r":v?\d+\.\d+[\w.-]*$", service["image"]), name
        assert "latest" not in service["image"]


def test_seaweedfs_is_the_version_that_the_tests_run(services: dict[str, Any]) -> None:
    said = subprocess.run([weed(), "version"], capture_output=True, text=True, check=True).stdout
    assert services["seaweedfs"]["image"].rpartition(":")[2] in said.split()


def test_every_service_has_a_check_or_waits_for_one_that_has(services: dict[str, Any]) -> None:
    for name, service in services.items():
        needed = service.get("depends_on", {})
        if "healthcheck" not in service:
            assert service["restart"] == "no", f"{name}: only what ends by itself goes without"
            assert needed
        for other, condition in needed.items():
            wanted = "service_healthy" if "healthcheck" in services[other] else "service_completed_successfully"
            assert condition == {"condition": wanted}, (name, other)


def test_ports_are_on_loopback_unless_set(text: str, development: dict[str, str]) -> None:
    for bind in ("127.0.0.1", "0.0.0.0"):
        more = {} if bind == "127.0.0.1" else {"BIND": bind}
        found = yaml.safe_load(interpolated(text, development | more))["services"]
        ports = [port for service in found.values() for port in service.get("ports", [])]
        assert len(ports) == 3 and all(port.startswith(f"{bind}:") for port in ports)
    assert not [name for name, service in found.items() if service.get("network_mode") or service.get("privileged")]


def test_no_secret_has_a_default(text: str, development: dict[str, str]) -> None:
    kinds = {(name, kind) for name, kind, _ in VARIABLE.findall(text)}
    secrets = {name for name, _ in kinds if SECRET.search(name)}
    assert secrets == development.keys()
    assert {kind for name, kind in kinds if name in secrets} == {"?"}
    assert {kind for name, kind in kinds if name not in secrets} == {"-"}
    for missing in secrets:
        with pytest.raises(KeyError, match=missing):
            interpolated(text, {name: value for name, value in development.items() if name != missing})


def test_no_secret_stands_in_the_file_or_in_a_command(text: str, services: dict[str, Any], development: dict[str, str]) -> None:
    for name, value in development.items():
        planted = {**development, name: "planted"}
        for service in yaml.safe_load(interpolated(text, planted))["services"].values():
            assert "planted" not in str(service.get("command")) + str(service.get("healthcheck")), name
        assert value in str(services)
    plain = yaml.safe_load(text)["services"]
    for service in plain.values():
        for key, value in service.get("environment", {}).items():
            assert not SECRET.search(key) or str(value).startswith("${"), key


def test_mounted_files_are_there(services: dict[str, Any], root: Path) -> None:
    mounted = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    files = [path for path in mounted if path.startswith("./")]
    assert len(files) == 2 and all((root / "infra" / path).is_file() for path in files)
    assert os.access(root / "infra/compose/databases.sh", os.X_OK)


def test_it_keeps_to_the_specification(text: str, development: dict[str, str]) -> None:
    compose_spec = pytest.importorskip(
        "compose_spec", reason="compose-spec (PyPI), a parser of the specification, is not installed"
    )
    parsed = compose_spec.PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(interpolated(text, development))))
    assert "worker-gpu" in parsed.service_names()


@pytest.mark.services
def test_the_databases_are_made(root: Path) -> None:
    """The script of PostgreSQL's image, by a real server's psql: both roles may enter their databases with their passwords."""
    needs_postgresql()
    import psycopg2

    from infra.services import postgresql
    from infra.services.credentials import generated

    folder, secret, account = Path(tempfile.mkdtemp(prefix="detectline-")), generated(), postgresql.unprivileged_account()
    folder.chmod(0o711)
    port = free_port()
    service = postgresql.service(folder / "postgresql", port, secret, account)
    service.prepare()
    command = [*service.command]
    process = subprocess.Popen(command, user=account or None, extra_groups=[] if account else None, cwd=service.folder, stderr=-3)
    try:
        wait_until(lambda: postgresql.is_ready(port))
        path = os.pathsep.join((str(postgresql.installed()[0]), os.environ["PATH"]))
        where = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGPASSWORD": secret.postgresql}
        passwords = {"PREFECT_DATABASE_PASSWORD": "of 'prefect'", "MLFLOW_DATABASE_PASSWORD": "of mlflow"}
        script = root / "infra/compose/databases.sh"
        subprocess.run([script], env={"PATH": path, **where, **passwords}, check=True, capture_output=True)
        for role, database in (("prefect", "prefect"), ("mlflow", "mlflow"), ("mlflow", "mlflow_users")):
            password = passwords[f"{role.upper()}_DATABASE_PASSWORD"]
            with psycopg2.connect(host="127.0.0.1", port=port, user=role, password=password, dbname=database) as session:
                session.cursor().execute("create table mine (one int)")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
        shutil.rmtree(folder)


@pytest.mark.services
def test_s3_lets_in_the_key_of_the_environment_alone(
    services: dict[str, Any], development: dict[str, str], tmp_path: Path
) -> None:
    """SeaweedFS with the very arguments of the file, and the command that makes the buckets."""
    import urllib.error
    import urllib.request

    from infra.services.seaweedfs import client, inner_ports

    master, volume, filer, gateway = inner_ports(4)
    own = {"-dir": str(tmp_path), "-ip": "127.0.0.1", "-ip.bind": "127.0.0.1", "-s3.port": str(gateway)}
    own |= {"-master.port": str(master), "-volume.port": str(volume), "-filer.port": str(filer)}
    kept = [word for word in services["seaweedfs"]["command"] if word.partition("=")[0] not in own]
    key, secret, address = development["S3_ACCESS_KEY"], "planted", f"http://127.0.0.1:{gateway}"
    environment = {"PATH": os.environ["PATH"], "AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "HOME": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        command = [weed(), *kept, *(f"{name}={value}" for name, value in own.items())]
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        made = [sys.executable, "-m", "infra.services.buckets"]
        subprocess.run(made, env={**environment, "AWS_ENDPOINT_URL": address}, check=True, cwd=Path(__file__).parents[2])
        assert {one["Name"] for one in client(address, key, secret).list_buckets()["Buckets"]} == {"mlflow", "dvc"}
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{address}/mlflow/ready", timeout=10)
        urllib.request.urlopen(f"{address}/healthz", timeout=10).close()
    finally:
        process.kill()
        process.wait()


def weed() -> Path:
    return Path(sys.executable).parent / "weed"


def free_port() -> int:
    from flows.server import free_port as found

    return found()


def wait_until(happened: Any) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.1)
