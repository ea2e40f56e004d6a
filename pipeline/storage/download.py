"""Fetch a source from another machine: listed first, then downloaded so that a kill at any moment costs no byte twice.

The listing is what a download is held to: each object must still have the ETag it was listed with, so that a folder never mixes
two versions. `source.json` is a listing kept beside params.yaml: DVC sees the remote data through it (see dvc.yaml).
"""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import DataError
from pipeline.files import digest_bytes, read_json, write_json
from pipeline.storage.addresses import DVC_SCHEMES, scheme_of, shown
from pipeline.storage.config import StorageConfig
from pipeline.storage.objects import BLOCK, Body, RemoteObject, Server

VERSION = 1
_SECONDS_BETWEEN_LINES = 5.0


@dataclass(frozen=True, slots=True)
class Listing:
    """A source and the objects that it has."""

    source: str
    objects: tuple[RemoteObject, ...]
    """By name."""

    @property
    def digest(self) -> str:
        """Of source, names, sizes and marks: the name of the folder that a download of just this goes on in."""
        return digest_bytes(repr((self.source, [asdict(entry) for entry in self.objects])).encode())

    @property
    def size(self) -> int:
        """Bytes of all objects, as far as the server says."""
        return sum(entry.size or 0 for entry in self.objects)


def list_source(source: str, single: bool, config: StorageConfig) -> Listing:
    """What is at `source` now: one object (`single`, an archive) or a prefix. DataError when it is more than the limits allow."""
    listing = Listing(source, tuple(_server(source, single, config).listing()))
    if listing.size > config.gigabytes * 1e9:
        wrong = f"has {listing.size / 1e9:.1f} GB, more than storage.gigabytes={config.gigabytes:g}"
        raise DataError(shown(source), wrong, "raise storage.gigabytes if that is right")
    for entry in listing.objects:
        path = PurePosixPath(entry.name)
        if path.is_absolute() or {"..", ".", ""} & {*entry.name.split("/")} or "\\" in entry.name or "\0" in entry.name:
            raise DataError(shown(source), f"object {entry.name!r} has no name that a file below a folder can have", "rename it")
    return listing


def write_listing(path: Path, listing: Listing) -> None:
    """Record `listing` at `path`: the same listing gives the same bytes."""
    write_json(path, {"version": VERSION, "source": listing.source, "objects": [asdict(entry) for entry in listing.objects]})


def read_listing(path: Path) -> Listing:
    """The listing recorded at `path`. DataError when it is missing or not a listing."""
    todo = "write it anew by: python -m pipeline config --source"
    content: Any = read_json(path)
    try:
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        return Listing(content["source"], tuple(RemoteObject(**entry) for entry in content["objects"]))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"is not a listing of a source ({error})", todo) from error


def fetch(listing: Listing, single: bool, folder: Path, config: StorageConfig, say: Callable[[str], None]) -> None:
    """Bring the objects of `listing` into `folder`, what is there of an earlier call (whole files and parts) included.

    `folder` belongs to this listing alone (see `Listing.digest`). A file is moved to its name when it is whole: its size is the
    listed one and, where the server's mark is an MD5, its content has that. DataError in one line; the parts stay.
    """
    progress = _Progress(listing, say)
    server = _server(listing.source, single, config)

    def one(entry: RemoteObject) -> None:
        _fetch_object(server, entry, folder, shown(listing.source), int(config.gigabytes * 1e9), progress)

    with ThreadPoolExecutor(min(config.workers, len(listing.objects))) as pool:
        waiting = [pool.submit(one, entry) for entry in listing.objects]
        try:
            for task in wait(waiting, return_when=FIRST_EXCEPTION).done:
                task.result()
        except BaseException:  # the pool waits for its threads: Ctrl-C must not wait for gigabytes
            progress.stopped = True
            for task in waiting:
                task.cancel()
            raise


def require_sha256(path: Path, expected: str | None) -> None:
    """DataError when the file at `path` has another SHA-256 than `expected`; None is not checked."""
    if expected is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.lower():
        raise DataError(
            path, f"has sha256 {found}, dataset.sha256 says {expected.lower()}", "one of the two is not the one meant"
        )


# -- one object --


def _fetch_object(server: Server, entry: RemoteObject, folder: Path, place: str, limit: int, progress: "_Progress") -> None:
    target = folder / "whole" / entry.name
    if target.is_file():
        progress.add(target.stat().st_size)
        return
    part = folder / "parts" / digest_bytes(entry.name.encode())
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as file:
            if entry.size is not None and file.tell() > entry.size:
                file.truncate(0)
            start = file.seek(0, os.SEEK_END)
            if entry.size is None or start != entry.size or start == 0:
                with server.body(entry, start) as body:
                    _receive(body, file, entry, place, limit, progress)
            else:  # killed between the last byte and the move
                progress.add(start)
            file.flush()
            os.fsync(file.fileno())
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    except OSError as error:
        if error.errno is None:
            raise
        raise DataError(place, f"{entry.name}: cannot be written: {error.strerror} ({error.filename or part})") from error


def _receive(body: Body, file: Any, entry: RemoteObject, place: str, limit: int, progress: "_Progress") -> None:
    """Append the body to `file`. DataError when it ends early, is too long, or is not what its mark says."""
    if body.start != file.tell():  # the server sends it all
        file.truncate(body.start)
    received = body.start
    progress.add(received)
    most = limit if entry.size is None else entry.size
    for block in body.blocks:
        received += len(block)
        if received > most:
            file.truncate(0)
            raise DataError(place, f"{entry.name}: sends more than {most} bytes", "its owner, or storage.gigabytes, is wrong")
        file.write(block)
        progress.add(len(block))
    if entry.size is not None and received < entry.size:
        wrong = f"{entry.name}: ended after {received} of {entry.size} bytes"
        raise DataError(place, wrong, "run it again: it goes on from where it stopped")
    if body.md5 is not None:
        file.flush()
        found = _md5(Path(file.name), body.part)
        if found != body.md5:
            file.truncate(0)
            raise DataError(
                place, f"{entry.name}: was damaged on its way (MD5 {found}, the server says {body.md5})", "run it again"
            )


def _md5(path: Path, part: int | None) -> str:
    """MD5 of a file; with `part` as S3 marks what was sent in parts of so many bytes: of the parts' MD5s, and their number."""
    with path.open("rb") as file:
        if part is None:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        digests = []
        while part_left := min(part, path.stat().st_size - file.tell()):
            digest = hashlib.md5(usedforsecurity=False)
            while block := file.read(min(part_left, BLOCK)):
                digest.update(block)
                part_left -= len(block)
            digests.append(digest.digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


class _Stopped(Exception):
    """Another object failed, or somebody stopped the run."""


class _Progress:
    """A line now and then; called from several threads."""

    def __init__(self, listing: Listing, say: Callable[[str], None]) -> None:
        self.stopped = False
        """Ends all threads at their next block."""
        self._total, self._done, self._say, self._last = listing.size, 0, say, time.monotonic()

    def add(self, count: int) -> None:
        """`count` more bytes are here. Raises `_Stopped` when there is no more use for them."""
        if self.stopped:
            raise _Stopped
        self._done += count
        if time.monotonic() - self._last > _SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            total = f" of {self._total / 1e6:.0f}" if self._total else ""
            self._say(f"fetching {self._done / 1e6:.0f}{total} MB")


def _server(source: str, single: bool, config: StorageConfig) -> Server:
    if scheme_of(source) == "s3":
        from pipeline.storage.s3 import S3Server  # boto3 takes its time

        return S3Server(source, single, config)
    if scheme_of(source) in DVC_SCHEMES:
        from pipeline.storage.dvc import DvcServer

        return DvcServer(source, single, config)
    from pipeline.storage.http import HttpServer

    return HttpServer(source, config)
