"""An archive in a bucket, or all objects below a prefix, by boto3.

Endpoint and credentials are the usual AWS ones; settings can name another endpoint, profile or region. Limit: the endpoint's
address is checked before it is used (see `storage.private_addresses`), but boto3 looks its name up again by itself. The endpoint
is the operator's choice, never a part of the source's address.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, DataError, UserError
from pipeline.storage.addresses import allowed_addresses, shown
from pipeline.storage.config import StorageConfig
from pipeline.storage.http import CHANGED, LIST_ANEW
from pipeline.storage.objects import BLOCK, Body, RemoteObject

_KEYS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or storage.profile"


class S3Server:
    """One object or one prefix of a bucket."""

    def __init__(self, address: str, single: bool, config: StorageConfig) -> None:
        """`single`: the address is one object; else a prefix, as a folder."""
        bucket, _, key = address.partition("://")[2].partition("/")
        self._bucket, self._key, self._single, self._config = bucket, key, single, config
        self._place = f"s3://{bucket}/{key}".rstrip("/")

    def listing(self) -> list[RemoteObject]:
        """The object, or every object below the prefix but the empty marks that some tools keep for folders."""
        with self._told():
            if self._single:
                head = self._client.get_object(
                    Bucket=self._bucket, Key=self._key
                )  # HEAD's errors have no text: which is missing?
                head["Body"].close()
                return [RemoteObject(PurePosixPath(self._key).name, head["ContentLength"], head["ETag"], None)]
            prefix = f"{self._key.rstrip('/')}/" if self._key.strip("/") else ""
            found: list[RemoteObject] = []
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):
                        found.append(RemoteObject(entry["Key"].removeprefix(prefix), entry["Size"], entry["ETag"], None))
                if len(found) > self._config.files:
                    raise DataError(
                        self._place, f"has more than {self._config.files} objects", "raise storage.files if that is right"
                    )
        if not found:
            raise DataError(self._place, "has no object", "check bucket and prefix; an archive's name ends in .zip, .tar ...")
        return sorted(found, key=lambda entry: entry.name)

    @contextmanager
    def body(self, wanted: RemoteObject, start: int) -> Iterator[Body]:
        """The object from `start` on, on condition that it still has its ETag."""
        key = self._key if self._single else f"{self._key.rstrip('/')}/{wanted.name}".lstrip("/")
        options: dict[str, str] = {"IfMatch": wanted.etag} if wanted.etag else {}
        if start:
            options["Range"] = f"bytes={start}-"
        with self._told():
            answer = self._client.get_object(Bucket=self._bucket, Key=key, **options)
        stream = answer["Body"]
        try:
            if answer["ETag"] != wanted.etag:  # a server that does not heed IfMatch
                raise DataError(self._place, CHANGED, LIST_ANEW)
            if start and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                start = 0
            mark = _md5(answer)
            part = self._part_size(key, answer, start) if mark and "-" in mark else None
            yield Body(start, self._blocks(stream), mark if mark and ("-" not in mark or part) else None, part)
        finally:
            stream.close()

    def _part_size(self, key: str, answer: Any, start: int) -> int | None:
        """Bytes of the parts that an object was sent in; None where the server does not say, or they are of several sizes.

        The first and the last are asked for: tools cut into equal parts and a rest.
        """
        from botocore.exceptions import ClientError

        total, parts = start + answer["ContentLength"], int(answer["ETag"].strip('"').rpartition("-")[2])
        try:
            sizes = [
                self._client.head_object(Bucket=self._bucket, Key=key, IfMatch=answer["ETag"], PartNumber=number)["ContentLength"]
                for number in sorted({1, parts})
            ]
        except ClientError:  # a server that knows no part numbers: its size is checked all the same
            return None
        whole = (parts - 1) * sizes[0] + sizes[-1] == total and 0 < sizes[-1] <= sizes[0]
        return int(sizes[0]) if whole else None

    def _blocks(self, stream: Any) -> Iterator[bytes]:
        from botocore.exceptions import BotoCoreError

        try:
            while block := stream.read(BLOCK):
                yield block
        except (BotoCoreError, OSError) as error:
            wrong = f"the server stopped sending ({type(error).__name__})"
            raise DataError(self._place, wrong, "run it again: it goes on from where it stopped") from error

    @cached_property
    def _client(self) -> Any:
        import boto3
        from botocore.config import Config

        session = boto3.Session(profile_name=self._config.profile, region_name=self._config.region)
        settings = Config(
            connect_timeout=self._config.connect_seconds,
            read_timeout=self._config.read_seconds,
            retries={"total_max_attempts": self._config.attempts, "mode": "standard"},
            max_pool_connections=self._config.workers,
        )
        region = session.region_name or "us-east-1"
        client = session.client("s3", endpoint_url=self._config.endpoint, region_name=region, config=settings)
        endpoint = urlsplit(client.meta.endpoint_url)
        allowed_addresses(endpoint.hostname or "", endpoint.port or 0, self._config.private_addresses, self._place)
        return client

    @contextmanager
    def _told(self) -> Iterator[None]:
        """botocore's errors in one line that names the source; never a key."""
        from botocore import exceptions as boto

        try:
            yield
        except boto.ProfileNotFound as error:
            raise ConfigError("storage.profile", self._config.profile, f"is not there: {error}") from error
        except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
            raise UserError(f"{self._place}: no AWS credentials were found\n  {_KEYS}") from error
        except boto.EndpointConnectionError as error:
            raise UserError(f"{self._place}: endpoint {self._endpoint()} refused the connection. Is it up?") from error
        except (boto.ConnectTimeoutError, boto.ReadTimeoutError) as error:
            todo = "see storage.connect_seconds and storage.read_seconds"
            raise UserError(f"{self._place}: endpoint {self._endpoint()} did not answer in time\n  {todo}") from error
        except boto.ClientError as error:
            raise self._refused(error.response) from error
        except (boto.BotoCoreError, ValueError) as error:
            raise UserError(f"{self._place}: cannot be read ({' '.join(str(error).split())[:200]})") from error

    def _endpoint(self) -> str:
        return shown(str(self._client.meta.endpoint_url))

    def _refused(self, response: Any) -> DataError:
        code, status = str(response["Error"].get("Code")), response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        if code in ("PreconditionFailed", "412") or status == 412:
            return DataError(self._place, CHANGED, LIST_ANEW)
        if code == "NoSuchBucket":
            return DataError(self._place, f"there is no bucket {self._bucket!r} at {self._endpoint()}", "check dataset.source")
        if code in ("NoSuchKey", "404", "NotFound"):
            return DataError(
                self._place, "there is no such object", "check dataset.source; a prefix does not end in .zip, .tar ..."
            )
        if status in (401, 403):
            return DataError(self._place, f"{self._endpoint()} refuses access ({code})", f"check the credentials: {_KEYS}")
        return DataError(self._place, f"{self._endpoint()} answers {code} (status {status})")


def _md5(answer: Any) -> str | None:
    """The MD5 in the ETag: of objects not encrypted with a key of their own it is one, of the whole or of parts."""
    mark = str(answer["ETag"]).strip('"').lower()
    keyed = "kms" in str(answer.get("ServerSideEncryption", "")) or answer.get("SSECustomerAlgorithm")
    return mark if re.fullmatch(r"[0-9a-f]{32}(-[1-9][0-9]*)?", mark) and not keyed else None
