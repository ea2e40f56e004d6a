"""Where the pictures are that a label file names: by evidence, since paths in label files are often another machine's."""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import PurePosixPath

from pipeline.data.sources import PICTURES, best_root
from pipeline.data.splits import WORDS
from pipeline.errors import DataError

LONGEST = 255
"""Bytes of a name that file systems take."""


def find_pictures(
    stated: list[str], split: str, label_file: PurePosixPath, pictures: list[PurePosixPath], only: bool
) -> list[str]:
    """Each of the `stated` names (see `stated_name`) as a path below the source, where the picture is or would be.

    `pictures` are the source's, `label_file` named them; `only`: it is the source's only one.
    """
    spelled = _one_spelling(stated, pictures)
    there = {PurePosixPath(spelled(picture.as_posix())): picture.as_posix() for picture in pictures}
    found = _below_roots([spelled(name) for name in stated], split, label_file, list(there), only)
    return [there.get(PurePosixPath(name), name) for name in found]


def with_suffixes(names: list[str], pictures: list[PurePosixPath]) -> list[str]:
    """Names that lack the suffix of the picture, as identifiers do, with that of the one picture of this stem, else `.jpg`."""
    known = {picture.name for picture in pictures}
    by_stem: dict[str, set[str]] = {}
    for picture in pictures:
        by_stem.setdefault(picture.stem, set()).add(picture.suffix)
    found = []
    for name in names:
        last = PurePosixPath(name).name
        if last not in known and (last in by_stem or PurePosixPath(name).suffix.lower() not in PICTURES):
            name += min(by_stem.get(last, {".jpg"}))
        found.append(name)
    return found


def _below_roots(stated: list[str], name: str, path: PurePosixPath, pictures: list[PurePosixPath], only: bool) -> list[str]:
    """Each stated name as a path below the source, where the picture is or would be.

    If no folder fits the names as they are (absolute paths of another machine), their last parts decide. With one label file in
    the source a picture outside the best folder is taken too if its name is unique; with several it could be another split's.
    """
    own = [word for word, split in WORDS.items() if split == name]
    others = [word for word in WORDS if word not in own and name != "all"]
    near = path.parent.as_posix()
    root, fitting = best_root(stated, pictures, near, own, others)
    if not fitting:
        last = [PurePosixPath(file_name).name for file_name in stated]
        root, fitting = best_root(last, pictures, near, own, others)
        stated = last if fitting and len(set(last)) == len(last) else stated
    there = {picture.as_posix() for picture in pictures}
    by_name: dict[str, list[str]] = {}
    for picture in pictures:
        by_name.setdefault(picture.name, []).append(picture.as_posix())
    found = [(PurePosixPath(root) / file_name).as_posix() for file_name in stated]
    free = there.difference(found)
    for row, expected in enumerate(found):
        elsewhere = by_name.get(PurePosixPath(expected).name, [])
        if only and expected not in there and len(elsewhere) == 1 and elsewhere[0] in free:
            found[row] = elsewhere[0]
            free.discard(elsewhere[0])
    return found


def _one_spelling(stated: list[str], pictures: list[PurePosixPath]) -> Callable[[str], str]:
    """Names in Unicode's composed form (NFC): a Mac writes é as e and an accent into file names, label files have one letter.

    The function given back leaves a name alone when that would make two files, or two stated names, one.
    """

    def composed(text: str) -> str:
        return unicodedata.normalize("NFC", text)

    times = Counter(composed(picture.as_posix()) for picture in pictures)
    wanted = Counter(composed(file_name) for file_name in stated)
    unclear = {PurePosixPath(name).name for counts in (times, wanted) for name, count in counts.items() if count > 1}
    return lambda name: name if composed(PurePosixPath(name).name) in unclear else composed(name)


def stated_name(file_name: str, place: object) -> str:
    """Forward slashes, no `./`, and never out of the source folder: a path that tries is taken by its last part.

    DataError for a name that no file can have.
    """
    path = PurePosixPath(file_name.replace("\\", "/"))
    outside = path.is_absolute() or ".." in path.parts or (path.parts and path.parts[0].endswith(":"))
    if len(os.fsencode(path.name)) > LONGEST or len(file_name) > 4000 or "\0" in file_name:
        raise DataError(
            place, f"no file can have the name {file_name[:60]!r} ({len(file_name)} characters)", "name the picture's file"
        )
    return path.name or "_" if outside else path.as_posix()
