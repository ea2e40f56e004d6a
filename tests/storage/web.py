"""A web server on this machine that misbehaves on request, and counts what it sends."""

import hashlib
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class Site:
    """What the server has and how it behaves; change it while it runs."""

    content: bytes = b""
    ranges: bool = True
    """Heeds Range and If-Range."""
    etag: bool = True
    length: bool = True
    """Says how long the answer is; else the closed connection ends it."""
    stop_after: int | None = None
    """Closes the connection after so many bytes of an answer's body."""
    redirect: str | None = None
    status: int | None = None
    port: int = 0
    sent: int = 0
    """Bytes of bodies, of all answers."""
    asked: list[str] = field(default_factory=list)
    """The Range of each request, or an empty text."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/files/set.zip"

    @property
    def mark(self) -> str:
        return f'"{hashlib.sha1(self.content).hexdigest()}"'


@contextmanager
def serve(site: Site, certificate: Path | None = None) -> Iterator[Site]:
    """`site` at a free port of 127.0.0.1 while the block runs; encrypted with a `certificate` (and key)."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked = self.headers.get("Range", "")
            site.asked.append(asked)
            if site.status or site.redirect:
                self.send_response(site.status or 302)
                if site.redirect:
                    self.send_header("Location", site.redirect)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, stop, content = 0, len(site.content), site.content
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", asked)
            same = self.headers.get("If-Range") in (None, site.mark)
            partial = bool(site.ranges and found and same)
            if partial and found:
                start = int(found[1])
                stop = int(found[2]) + 1 if found[2] else stop
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
            self.send_response(206 if partial else 200)
            body = content[start:stop]
            if partial:
                whole = len(content) if site.length else "*"
                self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{whole}")
            if site.length:
                self.send_header("Content-Length", str(len(body)))
            if site.etag:
                self.send_header("ETag", site.mark)
            self.end_headers()
            if asked != "bytes=0-0" and site.stop_after is not None:
                body = body[: site.stop_after]
            site.sent += len(body)
            with suppress(OSError):
                self.wfile.write(body)
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    site.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
