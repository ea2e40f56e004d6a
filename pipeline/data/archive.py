"""Unpacking of archives that may be hostile: members are checked before and counted while they are written."""

import stat
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO
from zlib import error as ZlibError

from pipeline.data.config import ArchiveLimits
from pipeline.errors import DataError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_BLOCK = 1 << 20


def is_archive(path: Path) -> bool:
    """Whether the name says that it is one of the supported archives."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, into: Path, limits: ArchiveLimits) -> None:
    """Write the regular files of `archive` into the folder `into`.

    DataError names the member that is a link or a device, leads out of the folder, repeats a name, is damaged or encrypted, or
    goes over a limit. `into` then holds a part: the caller removes it. Owners, modes and times are not restored.
    """
    written, name = _Counter(archive, limits), ""
    try:
        with ExitStack() as stack:
            for name, content in _members(archive, stack, written):
                target = into / _inside(archive, name)
                written.next_file(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with content, target.open("xb") as file:
                    while block := content.read(_BLOCK):
                        written.add(len(block), name)
                        file.write(block)
    except FileExistsError as error:
        raise DataError(archive, f"member {name!r} is there twice, or is a file and a folder", "pack it again") from error
    except OSError as error:
        if error.errno is None:  # damaged content, as gzip and bz2 report it
            raise DataError(archive, f"is damaged ({error})", "fetch it again") from error
        raise DataError(archive, f"cannot be unpacked: {error.strerror} ({error.filename or name})") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, ZlibError, LZMAError, ValueError) as error:
        raise DataError(archive, f"is damaged or not an archive of its name's kind ({error})", "fetch it again") from error
    except (NotImplementedError, RuntimeError) as error:  # zipfile's words for unknown compression and for encryption
        raise DataError(archive, f"cannot be unpacked ({error})", "pack it again, deflated and without a password") from error


@dataclass(slots=True)
class _Counter:
    """What was unpacked so far; counts real bytes, so that a header that lies does not help."""

    archive: Path
    limits: ArchiveLimits
    files: int = 0
    bytes: int = 0

    def next_file(self, name: str) -> None:
        self.files += 1
        if self.files > self.limits.files:
            self._refuse(name, f"is member {self.files}", "files")

    def add(self, count: int, name: str) -> None:
        self.bytes += count
        if self.bytes > self.limits.gigabytes * 1e9:
            self._refuse(name, f"takes the content over {self.limits.gigabytes:g} GB", "gigabytes")
        if self.bytes > self.limits.ratio * max(self.archive.stat().st_size, 1 << 10):
            self._refuse(name, f"takes the content over {self.limits.ratio:g} times the archive's size", "ratio")

    def _refuse(self, name: str, wrong: str, limit: str) -> None:
        raise DataError(self.archive, f"member {name!r} {wrong}", f"if you trust it, raise dataset.archive.{limit}")


def _members(archive: Path, stack: ExitStack, written: _Counter) -> Iterator[tuple[str, IO[bytes]]]:
    return _zip_members(archive, stack) if archive.name.lower().endswith(".zip") else _tar_members(archive, stack, written)


def _zip_members(archive: Path, stack: ExitStack) -> Iterator[tuple[str, IO[bytes]]]:
    opened = stack.enter_context(zipfile.ZipFile(archive))
    for member in opened.infolist():
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(archive, f"member {member.filename!r} is a link or a device", "pack plain files only")
        if not member.is_dir():
            yield member.filename, opened.open(member)


def _tar_members(archive: Path, stack: ExitStack, written: _Counter) -> Iterator[tuple[str, IO[bytes]]]:
    opened = stack.enter_context(tarfile.open(archive, "r:*"))  # noqa: SIM115  (the stack closes it)
    for member in opened:
        if not (member.isreg() or member.isdir()):
            raise DataError(archive, f"member {member.name!r} is a link or a device", "pack plain files only")
        content = opened.extractfile(member) if member.isreg() else None
        if content is not None:
            yield member.name, content
    while opened.fileobj and (
        block := opened.fileobj.read(_BLOCK)
    ):  # up to the compressor's checksum, which tarfile leaves unread
        written.add(len(block), "(after the last)")


def _inside(archive: Path, name: str) -> PurePosixPath:
    """The member's path below the target folder. Backslashes count as separators: some tools write them."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts or path.parts[0].endswith(":"):
        raise DataError(archive, f"member {name!r} leads out of the folder", "pack it again with relative names")
    return path
