"""Files that are whole or not there: atomic writes, staged folders, digests, locks."""

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from pipeline.errors import DataError, UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` so that a reader, or a crash at any moment, sees the old bytes or the new ones, never a part.

    Durable after return on a local file system that honours fsync. Not safe for two writers at once: the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON with sorted keys, atomically: the same value gives the same bytes."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
    write_atomically(path, orjson.dumps(value, option=options))


def read_json(path: Path) -> object:
    """Parsed JSON of `path`. DataError names the file and the position when it is missing or malformed."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except orjson.JSONDecodeError as error:
        raise DataError(
            path, f"line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})", "repair the file"
        ) from error


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """A folder to fill, moved to `target` when the block ends well and removed when it does not.

    `target` is replaced as a whole by two renames; a crash between them leaves the old folder at `.<name>.old`, which the next
    call puts back before it starts.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside, old = target.with_name(f".{target.name}.new"), target.with_name(f".{target.name}.old")
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, target)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        _sync_tree(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    if target.exists():
        os.replace(target, old)
    os.replace(beside, target)
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def digest_bytes(data: bytes) -> str:
    """BLAKE2b of `data`, 32 hexadecimal digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_file(path: Path) -> str:
    """BLAKE2b of the content of `path`, 32 hexadecimal digits, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_tree(root: Path) -> str:
    """Digest over the names and contents of all files under `root` (or of the one file), in name order."""
    if root.is_file():
        return digest_file(root)
    total = hashlib.blake2b(digest_size=16)
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        total.update(path.relative_to(root).as_posix().encode() + b"\0" + digest_file(path).encode() + b"\n")
    return total.hexdigest()


@contextmanager
def locked(path: Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on `path` while the block runs. UserError(`busy`) when another process has it.

    It is waited for `patience` seconds. The kernel releases the lock when the process dies, however it dies.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        deadline = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise UserError(busy) from error
                time.sleep(0.1)
        yield


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_tree(root: Path) -> None:
    for folder, _, names in os.walk(root):
        for name in names:
            descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_folder(Path(folder))
