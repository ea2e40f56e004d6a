"""One set of real services for the session, an S3 server (SeaweedFS) among them, and buckets in it."""

import os
from dataclasses import dataclass
from typing import Any

import pytest

from infra.services.seaweedfs import client
from tests.data.conftest import ingest as ingest  # the fixture
from tests.services.full import Full


@dataclass(frozen=True, slots=True)
class S3:
    """A running server, and its key."""

    endpoint: str
    key: str
    secret: str

    def environment(self) -> dict[str, str]:
        """The usual AWS settings that reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """boto3's client, with the right keys."""
        return client(self.endpoint, self.key, self.secret)


@pytest.fixture(scope="session")
def s3(full: Full) -> S3:
    """The S3 server of the session's services."""
    return S3(full.address("SeaweedFS"), full.credentials.s3_key, full.credentials.s3_secret)


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
