"""What every kind of server is asked for: its objects with their marks, and the bytes of one from a position on."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

BLOCK = 1 << 20
"""Bytes that are asked of a connection at a time."""


@dataclass(frozen=True, slots=True)
class RemoteObject:
    """One file on a server, as it was when it was listed."""

    name: str
    """Path below the source, with forward slashes."""
    size: int | None
    """Bytes; None where the server does not say."""
    etag: str | None
    """The server's mark of this content, as sent; a changed object has another."""
    modified: str | None
    """Last-Modified as sent; the mark where there is no ETag."""


@dataclass(slots=True)
class Body:
    """The bytes of an object from `start` on."""

    start: int
    """Where they really start: 0 when the server cannot start elsewhere."""
    blocks: Iterator[bytes]
    md5: str | None
    """MD5 of the whole object, 32 hexadecimal digits, where the server's mark is known to be one; of an object that was sent in
    parts (see `part`) the MD5 of the parts' MD5s, a dash, and their number."""
    part: int | None = None
    """Bytes of each part but the last, of an object that was sent in parts."""


class Server(Protocol):
    """One source on one server. Every method raises a UserError in one line that names the source."""

    def listing(self) -> list[RemoteObject]:
        """All objects of the source, by name; never empty."""

    def body(self, wanted: RemoteObject, start: int) -> AbstractContextManager[Body]:
        """Open `wanted` at byte `start`. DataError (see `changed`) when it is no longer what was listed."""
