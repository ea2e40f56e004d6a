"""Where data comes from: a source as a folder to read, the files in it, and names for its pictures."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath

from pipeline.data.archive import SUFFIXES, is_archive, unpack
from pipeline.data.config import ArchiveLimits
from pipeline.data.dataset import Category, Split
from pipeline.errors import DataError
from pipeline.storage.addresses import is_remote, path_of, scheme_of

PICTURES = {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_JUNK = {"__MACOSX", "Thumbs.db"}
_SUPPORTED = f"a folder or an archive ({', '.join(SUFFIXES)})"


@dataclass(slots=True)
class SourceFiles:
    """All files of a source folder, hidden ones and what systems leave behind left out."""

    folder: Path
    paths: list[PurePosixPath]
    """Relative to `folder`, in name order."""

    def with_suffix(self, *suffixes: str) -> list[PurePosixPath]:
        """The files with one of the suffixes, in either case."""
        return [path for path in self.paths if path.suffix.lower() in suffixes]

    @property
    def pictures(self) -> list[PurePosixPath]:
        """The files whose name says that they are pictures."""
        return self.with_suffix(*PICTURES)


@dataclass(slots=True)
class SourceData:
    """What a format's reader found. File names are still relative to the source; `sources` says where each picture lies."""

    categories: tuple[Category, ...]
    splits: dict[str, Split]
    """The source's own splits by name ("train", "val", "test", "trainval"), or one named "all"."""
    unlisted: tuple[str, ...]
    """Pictures and label files that belong to none of the splits."""
    stated_classes: int | None = None
    """Number of classes that the source states beside their names, where it is another than theirs."""
    stuff: tuple[Category, ...] = ()
    """Classes of ground in panoptic maps, ascending id."""
    semantic: tuple[str, ...] = ()
    """Names of the classes of semantic maps."""


@contextmanager
def open_source(source: str, work: Path, limits: ArchiveLimits) -> Iterator[Path]:
    """The source as a folder; an archive is unpacked into `work`, which is removed again.

    The source itself is only read. DataError when there is nothing.
    """
    path = local_path(source)
    if not path.exists():
        raise DataError(path, "no such file or folder", f"set dataset.source=PATH: {_SUPPORTED}")
    if not path.is_file() or not is_archive(path):
        yield path
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        unpack(path, work, limits)
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def local_path(source: str) -> Path:
    """The path of a source on this machine, as such or as file://."""
    return Path(source.partition("://")[2] if scheme_of(source) == "file" else source).expanduser()


def source_title(kind: str, source: str) -> str:
    """Format and bare name of a source: the same for a folder and its archive, wherever they lie."""
    name = PurePosixPath(path_of(source) if is_remote(source) else os.path.abspath(source)).name
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(s)), "")
    return f"{kind}:{name[: len(name) - len(suffix)]}"


def list_files(folder: Path) -> SourceFiles:
    """Every file below `folder`, or below the one folder in it that holds them all: archives come with and without such a shell.

    Links to folders are followed, each real folder once. DataError when it is no folder or holds no file.
    """
    if not folder.is_dir():
        raise DataError(folder, "is not a folder", f"set dataset.source=PATH: {_SUPPORTED}")
    paths: list[PurePosixPath] = []
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        if os.path.realpath(at) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(at))
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in _JUNK)
        below = PurePosixPath(Path(at).relative_to(folder).as_posix())
        paths += [below / name for name in names if not name.startswith(".") and name not in _JUNK]
    if not paths:
        raise DataError(folder, "is empty", f"set dataset.source=PATH: {_SUPPORTED}")
    while len({path.parts[0] for path in paths}) == 1 and len(paths[0].parts) > 1:
        folder = folder / paths[0].parts[0]
        paths = [path.relative_to(path.parts[0]) for path in paths]
    return SourceFiles(folder, sorted(paths))


def best_root(
    wanted: Iterable[str],
    pictures: Sequence[PurePosixPath],
    near: str = ".",
    preferred: Iterable[str] = (),
    avoided: Iterable[str] = (),
) -> tuple[str, int]:
    """The folder below which the `wanted` relative names are pictures, and how many are.

    Evidence decides, not a layout: people arrange their data in every way. The folder with most of them is not always theirs,
    since another split may have equal names and be more complete. So all folders with at least half as many compete: first by how
    much of their path they share with the label file's folder `near`, then by `preferred` words in the path, then by number.
    A folder with one of the `avoided` words (another split's) is taken only if no other folder has any.
    """
    by_name: dict[str, list[PurePosixPath]] = {}
    for picture in pictures:
        by_name.setdefault(picture.name, []).append(picture)
    roots: Counter[str] = Counter()
    for name in wanted:
        for picture in by_name.get(PurePosixPath(name).name, ()):
            if picture.as_posix() == name:
                roots["."] += 1
            elif picture.as_posix().endswith(f"/{name}"):
                roots[picture.as_posix()[: -len(name) - 1]] += 1

    def words(root: str) -> set[str]:
        return set(re.split(r"[^a-z]+", root.lower()))

    def rank(root: str) -> tuple[int, bool, int, int, str]:
        parts = PurePosixPath(root).parts
        beside = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, PurePosixPath(near).parts, strict=False)))
        return -beside, not words(root) & set(preferred), -roots[root], len(parts), root

    free = [root for root in roots if not words(root) & set(avoided) or words(root) & set(preferred)]
    contenders = free or list(roots)
    most = max((roots[root] for root in contenders), default=0)
    best = min((root for root in contenders if 2 * roots[root] >= most), key=rank, default=".")
    return best, roots[best]


def describe_unlisted(paths: Iterable[PurePosixPath]) -> tuple[str, ...]:
    """Files that belong to no split, counted per folder and suffix: a test set of 40,000 pictures is one line."""
    counts = Counter((path.parent / f"*{path.suffix.lower()}").as_posix() for path in paths)
    return tuple(f"{_text(name)}: {count}" for name, count in sorted(counts.items()))


def with_safe_names(splits: dict[str, Split]) -> dict[str, Split]:
    """The splits with file names for `images/`: the folders that all pictures share are left out, characters that trouble other
    tools become `_`, and two pictures never get one name. Images stay in file-name order."""
    originals = sorted({name for split in splits.values() for name in split.images.file_names})
    shared = os.path.commonpath([PurePosixPath("/", name).parent for name in originals]).lstrip("/") if originals else ""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for original in originals:
        name = unique = _safe(original[len(shared) + 1 :] if shared else original)
        number = 2
        while unique in taken:
            stem, dot, suffix = name.rpartition(".")
            unique, number = (f"{stem}-{number}.{suffix}" if dot else f"{name}-{number}"), number + 1
        taken.add(unique)
        names[original] = unique
    renamed = {}
    for key, split in splits.items():
        images = replace(split.images, file_names=[names[name] for name in split.images.file_names])
        order = sorted(range(len(images)), key=images.file_names.__getitem__)
        named = replace(split, images=images)
        renamed[key] = named if order == list(range(len(images))) else named.take_images(order)
    return renamed


def _safe(name: str) -> str:
    kept = [part for part in PurePosixPath(_text(name)).parts if part not in ("/", "..")]
    parts = [re.sub(r"[\x00-\x1f\x7f\\:*?\"<>|]", "_", part) for part in kept]
    return "/".join(part[-150:].lstrip(".-") or "_" for part in parts) or "_"


def _text(name: str) -> str:
    """A file name that may hold bytes that are not UTF-8, as text that JSON can hold."""
    return name.encode("utf-8", "replace").decode()


def _refuse(error: OSError) -> None:
    raise DataError(error.filename, f"cannot be read: {error.strerror}")
