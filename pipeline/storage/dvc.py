"""Data in a git repository with DVC, at a revision: what `dvc get URL PATH --rev REV` brings, through DVC's own API.

The repository is cloned (DVC keeps the clone while the process lives); the data comes from its DVC remote, or from git where git
tracks it. Each file's mark is the MD5 that DVC recorded, so a branch that moves on without touching the data changes nothing.
Keys of the remote are found where DVC finds them (AWS's own places, for one); git's where git does, and nobody is asked for any.
Limit: addresses of repository and remotes are checked before they are used (see `storage.private_addresses`), but git and DVC's
file systems look names up again by themselves, and follow redirects.
"""

import atexit
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import PurePosixPath
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from pipeline.errors import DataError, UserError
from pipeline.storage.addresses import ALLOW, DvcAddress, allowed_addresses, scheme_of, shown
from pipeline.storage.config import StorageConfig
from pipeline.storage.http import CHANGED, LIST_ANEW
from pipeline.storage.objects import BLOCK, Body, RemoteObject

_BY_HOST = {"http", "https", "ssh", "webdav", "webdavs", "hdfs", "webhdfs"}
"""Of a remote: schemes whose address names a machine, not a bucket."""


class DvcServer:
    """One file or folder in one repository."""

    def __init__(self, address: str, single: bool, config: StorageConfig) -> None:
        """`single`: the path is one file; else a folder."""
        self._wanted, self._single, self._config = DvcAddress.of(address), single, config
        self._path, self._place, self._one_at_a_time = self._wanted.path.rstrip("/"), shown(address), Lock()

    def listing(self) -> list[RemoteObject]:
        """The file, or every file below the folder but hidden ones, such as the .gitignore that `dvc add` writes."""
        with self._told(self._path):
            top = self._files.info(self._path)
            if self._single != (top["type"] == "file"):
                kind = "a folder" if self._single else "a file that is no archive by its name"
                raise DataError(self._place, f"is {kind}", "a source is a folder, or an archive such as .zip or .tar")
            found = {self._path: top} if self._single else self._files.find(self._path, detail=True)
            objects = []
            for path, info in sorted(found.items()):
                name = PurePosixPath(path).name if self._single else PurePosixPath(path).relative_to(self._path).as_posix()
                if not any(part.startswith(".") for part in PurePosixPath(name).parts):
                    objects.append(self._object(name, path, info))
        if not objects:
            raise DataError(self._place, "has no file", "check the path")
        if len(objects) > self._config.files:
            raise DataError(self._place, f"has more than {self._config.files} files", "raise storage.files if that is right")
        return sorted(objects, key=lambda entry: entry.name)

    @contextmanager
    def body(self, wanted: RemoteObject, start: int) -> Iterator[Body]:
        """The file from `start` on, if the revision still has it as it was listed."""
        path = self._path if self._single else f"{self._path}/{wanted.name}"
        with self._told(wanted.name), self._one_at_a_time:  # DVC's index, and git's objects, are read by one thread
            try:
                now = self._object(wanted.name, path, self._files.info(path))
            except FileNotFoundError as error:
                raise DataError(self._place, CHANGED, LIST_ANEW) from error
            if now != wanted:
                raise DataError(self._place, CHANGED, LIST_ANEW)
            stream = self._files.open(path)
        try:
            with self._told(wanted.name):
                start = stream.seek(start) if stream.seekable() else 0  # what git packs comes from its beginning
            yield Body(start, self._blocks(stream, wanted.name), wanted.etag)
        finally:
            stream.close()

    def _object(self, name: str, path: str, info: Any) -> RemoteObject:
        """With DVC's own MD5; of a file that git tracks, or that lies in a working tree, with that of its bytes.

        Data that DVC knows by another mark is held to the commit.
        """
        mark = self._digest(path) if "fs_info" in info else info.get("md5")
        return RemoteObject(name, info["size"], mark, None if mark else self._files.repo.get_rev())

    def _digest(self, path: str) -> str:
        with self._files.open(path) as stream:
            return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()

    def _blocks(self, stream: Any, name: str) -> Iterator[bytes]:
        while True:
            with self._told(name):
                block = stream.read(BLOCK)
            if not block:
                return
            yield block

    @cached_property
    def _files(self) -> Any:
        """The repository's files at the revision."""
        from dvc.api import DVCFileSystem
        from dvc.repo.open_repo import clean_repos

        os.environ.setdefault("GIT_TERMINAL_PROMPT", "0")  # nobody may be there to answer
        there = urlsplit(self._wanted.repository)
        if scheme_of(self._wanted.repository):
            allowed_addresses(there.hostname or "", there.port or 0, self._config.private_addresses, self._place)
        elif not os.path.isdir(self._wanted.repository):
            raise DataError(self._place, f"there is no folder {self._wanted.repository}", "check dataset.source")
        atexit.register(clean_repos)  # as the command line of DVC does: the clone is in the system's temporary folder
        files = DVCFileSystem(self._wanted.repository, rev=self._wanted.rev)
        self._check_remotes(files.repo)
        return files

    def _check_remotes(self, repo: Any) -> None:
        """DataError when the repository's own settings send DVC to a machine, or a path, that is not allowed.

        Whoever writes the repository writes these; the user's own settings of DVC are the user's choice.
        """
        if not repo.config.dvc_dir:  # git alone
            return
        for name, remote in repo.config.load_one("repo")["remote"].items():
            for address in filter(None, (remote.get("url"), remote.get("endpointurl"))):
                scheme, place = scheme_of(address), f"{self._place}: its DVC remote {name}"
                if scheme in _BY_HOST:
                    where = urlsplit(address)
                    allowed_addresses(where.hostname or "", where.port or 0, self._config.private_addresses, place)
                elif scheme is None and scheme_of(self._wanted.repository) and not self._config.private_addresses:
                    raise DataError(place, "is a path on this machine", ALLOW)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """What git, DVC and the many libraries below it raise, in one line that names the source."""
        try:
            yield
        except UserError:
            raise
        except FileNotFoundError as error:
            rev = f" at {self._wanted.rev}" if self._wanted.rev else ""
            wrong = f"there is no {name}{rev}, or its data is not in the repository's DVC remote"
            raise DataError(self._place, wrong, "check path and revision, and whether `dvc push` was run there") from error
        except Exception as error:  # each kind of remote has errors of its own; -v shows them whole
            text = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(self._place, f"cannot be read: {text}", "check repository, revision and credentials") from error
