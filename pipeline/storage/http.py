"""An archive at an http(s):// address.

Guarantee: without `storage.private_addresses` no byte is sent to a private, loopback or link-local address, whatever the name
resolves to and wherever redirects lead: each connection is made to a numeric address that was checked. Limit: where the
environment names a proxy (http_proxy, https_proxy) the proxy connects; then only this machine's look-up is checked.
"""

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, MaxRetryError, NewConnectionError, ProtocolError
from urllib3.util import Retry, Timeout, connection

from pipeline.errors import DataError, UserError
from pipeline.storage.addresses import allowed_addresses, scheme_of, shown
from pipeline.storage.config import StorageConfig
from pipeline.storage.objects import BLOCK, Body, RemoteObject

_REDIRECTS = {301, 302, 303, 307, 308}
_HOPS = 5
CHANGED = "is no longer what was listed: it has changed on the server"
LIST_ANEW = "list it anew by: python -m pipeline config --source"


class HttpServer:
    """One archive on a web server."""

    def __init__(self, address: str, config: StorageConfig) -> None:
        self._address, self._private, self._place = address, config.private_addresses, shown(address)
        retries = Retry(
            total=config.attempts - 1,
            redirect=False,
            status_forcelist=(502, 503, 504),
            backoff_factor=0.2,
            respect_retry_after_header=False,
        )
        timeout = Timeout(connect=config.connect_seconds, read=config.read_seconds)
        self._options: dict[str, Any] = {"retries": retries, "timeout": timeout}
        self._pool = urllib3.PoolManager(**self._options)
        self._pool.pool_classes_by_scheme = _checked_pools(config.private_addresses, self._place)

    def listing(self) -> list[RemoteObject]:
        """The archive alone, with what the server says about it. One byte is asked for: some servers refuse HEAD."""
        response = self._request({"Range": "bytes=0-0"})
        try:
            headers = response.headers
            if response.status == 206:
                size = _number(headers.get("Content-Range", "").rpartition("/")[2])
            else:
                size = _number(headers.get("Content-Length"))
            name = PurePosixPath(unquote(urlsplit(self._address).path)).name
            return [RemoteObject(name, size, headers.get("ETag"), headers.get("Last-Modified"))]
        finally:
            response.close()

    @contextmanager
    def body(self, wanted: RemoteObject, start: int) -> Iterator[Body]:
        """The archive from `start` on, if the server can do that for unchanged content; else from 0."""
        mark = wanted.etag if wanted.etag and not wanted.etag.startswith("W/") else wanted.modified
        ranged = {"Range": f"bytes={start}-", "If-Range": mark} if start and mark else {}
        response = self._request(ranged)
        if response.status == 416:  # it was all there: a server that does not tell sizes
            response.close()
            ranged = {}
            response = self._request(ranged)
        try:
            self._require_same(wanted, response.headers)
            at = start if response.status == 206 and ranged else 0
            if at and not response.headers.get("Content-Range", "").startswith(f"bytes {at}-"):
                raise DataError(
                    self._place, f"the server sent another part than the one from byte {at}", "report it to its owner"
                )
            yield Body(at, self._blocks(response), None)
        finally:
            response.close()

    def _blocks(self, response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from response.stream(BLOCK, decode_content=False)
        except (HTTPError, OSError) as error:
            wrong = "the server stopped sending" if isinstance(error, ProtocolError) else f"reading failed ({_brief(error)})"
            raise DataError(self._place, wrong, "run it again: it goes on from where it stopped") from error

    def _require_same(self, wanted: RemoteObject, headers: Any) -> None:
        for then, now in ((wanted.etag, headers.get("ETag")), (wanted.modified, headers.get("Last-Modified"))):
            if then is not None:
                if now is not None and then.removeprefix("W/") != now.removeprefix("W/"):
                    raise DataError(self._place, CHANGED, LIST_ANEW)
                return

    def _request(self, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer to a GET after its redirects: status 200, 206 or, to a later part, 416; body unread. DataError otherwise."""
        address = self._address
        for _ in range(_HOPS + 1):
            response = self._get(address, headers)
            target = response.headers.get("Location")
            if response.status in (200, 206) or (response.status == 416 and "If-Range" in headers):
                return response
            response.close()
            if response.status not in _REDIRECTS or not target:
                raise DataError(self._place, _refusal(response.status), _todo(response.status))
            before, address = address, urljoin(address, target)
            if scheme_of(address) not in ("http", "https"):
                raise DataError(self._place, f"redirects to {scheme_of(address)}://, which is not followed")
            if scheme_of(before) == "https" and scheme_of(address) == "http":
                raise DataError(
                    self._place, f"redirects from https to {shown(address)}, unencrypted", "use that address if it is fine"
                )
        raise DataError(self._place, f"redirects more than {_HOPS} times", "use the address where it ends")

    def _get(self, address: str, headers: dict[str, str]) -> urllib3.BaseHTTPResponse:
        host = urlsplit(address).hostname or ""
        pool = self._proxy(address, host) or self._pool
        try:
            return pool.request(
                "GET", address, headers={"Accept-Encoding": "identity", **headers}, redirect=False, preload_content=False
            )
        except (HTTPError, OSError, UserError) as error:
            if isinstance(error, UserError):
                raise
            raise _connection_error(self._place, address, error) from error

    def _proxy(self, address: str, host: str) -> urllib3.PoolManager | None:
        """The environment's proxy for this address, after a check of the address by name."""
        proxy = urllib.request.getproxies().get(scheme_of(address) or "")
        if not proxy or urllib.request.proxy_bypass(host):
            return None
        allowed_addresses(host, 0, self._private, self._place)
        return urllib3.ProxyManager(proxy, **self._options)


def _checked_pools(private: bool, place: str) -> dict[str, Any]:
    """urllib3's pools with connections that look a name up once, check the answer, and connect to what was checked."""

    def open_socket(made: HTTPConnection) -> Any:
        last: OSError | None = None
        for address in allowed_addresses(made.host, made.port or 0, private, place):
            try:
                return connection.create_connection(
                    (address, made.port), made.timeout, source_address=made.source_address, socket_options=made.socket_options
                )
            except OSError as error:
                last = error
        raise NewConnectionError(made, str(last)) from last

    class Plain(HTTPConnection):
        _new_conn = open_socket

    class Encrypted(HTTPSConnection):
        _new_conn = open_socket

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class EncryptedPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Encrypted

    return {"http": PlainPool, "https": EncryptedPool}


def _connection_error(place: str, address: str, error: Exception) -> DataError:
    server = f"{scheme_of(address)}://{urlsplit(address).netloc.rpartition('@')[2]}"
    reason = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    cause: BaseException = reason
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, ConnectionRefusedError):
        return DataError(place, f"{server} refused the connection. Is it up?")
    if isinstance(cause, TimeoutError) or "timed out" in str(reason):
        return DataError(place, f"{server} did not answer in time", "see storage.connect_seconds and storage.read_seconds")
    return DataError(place, f"{server} cannot be asked ({_brief(cause)})")


def _refusal(status: int) -> str:
    words = {401: "asks for a login", 403: "refuses access", 404: "has no such file", 410: "has no such file any more"}
    return f"the server {words.get(status, 'answers')} (status {status})"


def _todo(status: int) -> str:
    if status in (401, 403):
        return "only files that anybody may read can be fetched by http; use s3:// or a local copy"
    return "check the address" if status in (404, 410) else "try again later, or fetch it by hand and use the file"


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() else None


def _brief(error: BaseException) -> str:
    return " ".join((str(error) or type(error).__name__).split())[:160]
