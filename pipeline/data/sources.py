"""Where data comes from: a source as a folder to read, the files in it, and names for its pictures."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from pipeline.data.archive import SUFFIXES, is_archive, unpack
from pipeline.data.config import ArchiveLimits
from pipeline.data.dataset import Category, Split
from pipeline.errors import ConfigError, DataError

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


@contextmanager
def open_source(source: str, work: Path, limits: ArchiveLimits) -> Iterator[Path]:
    """The source as a folder, or as a single file that is no archive; an archive is unpacked below `work` and removed again.

    The source itself is only read. ConfigError for a scheme that is not supported, DataError when there is nothing.
    """
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", source)
    if scheme and scheme[1].lower() != "file":
        raise ConfigError("dataset.source", source, f"{scheme[1]}:// is not supported; supported: {_SUPPORTED}")
    path = Path(source[len(scheme[0]) :] if scheme else source).expanduser()
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


def source_title(kind: str, source: str) -> str:
    """Format and bare name of a source: the same for a folder and its archive, wherever they lie."""
    name = PurePosixPath(os.path.abspath(source)).name
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(s)), "")
    return f"{kind}:{name[: len(name) - len(suffix)]}"


def list_files(folder: Path) -> SourceFiles:
    """Every file below `folder`. Links to folders are followed, each real folder once. DataError when it is none or empty."""
    if not folder.is_dir():
        raise DataError(folder, "is not a folder", f"set dataset.source=PATH: {_SUPPORTED}")
    paths: list[PurePosixPath] = []
    seen: set[str] = set()
    for at, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        seen.add(os.path.realpath(at))
        visible = [name for name in folders if not name.startswith(".") and name not in _JUNK]
        folders[:] = sorted(name for name in visible if os.path.realpath(os.path.join(at, name)) not in seen)
        below = PurePosixPath(Path(at).relative_to(folder).as_posix())
        paths += [below / name for name in names if not name.startswith(".") and name not in _JUNK]
    if not paths:
        raise DataError(folder, "is empty", f"set dataset.source=PATH: {_SUPPORTED}")
    return SourceFiles(folder, sorted(paths))


def best_root(
    wanted: Iterable[str], pictures: Sequence[PurePosixPath], preferred: Sequence[str] = (), near: str = "."
) -> tuple[str, int]:
    """The folder below which most of the `wanted` relative names are pictures, and how many are.

    Evidence decides, not folder names: people arrange their data in every way. Ties go to the folder that shares most of its path
    with the folder `near`, then to one whose path has one of the `preferred` words, then to the shallowest.
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

    def rank(root: str) -> tuple[int, int, bool, int, str]:
        parts = PurePosixPath(root).parts
        beside = len(os.path.commonprefix([parts, PurePosixPath(near).parts]))
        words = set(re.split(r"[^a-z]+", root.lower()))
        return -roots[root], -beside, not words & set(preferred), len(parts), root

    best = min(roots, key=rank, default=".")
    return best, roots[best]


def describe_unlisted(paths: Iterable[PurePosixPath]) -> tuple[str, ...]:
    """Files that belong to no split, counted per folder and suffix: a test set of 40,000 pictures is one line."""
    counts = Counter((path.parent / f"*{path.suffix.lower()}").as_posix() for path in paths)
    return tuple(f"{name}: {count}" for name, count in sorted(counts.items()))


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
        renamed[key] = replace(split, images=images).take_images(order)
    return renamed


def _safe(name: str) -> str:
    parts = [re.sub(r"[\x00-\x1f\x7f\\:*?\"<>|]", "_", part) for part in PurePosixPath(name).parts if part not in ("/", "..")]
    return "/".join(part[-150:].lstrip(".-") or "_" for part in parts) or "_"


def _refuse(error: OSError) -> None:
    raise DataError(error.filename, f"cannot be read: {error.strerror}")
