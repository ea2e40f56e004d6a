"""python -m pipeline convert SOURCE TARGET --to FORMAT [--from FORMAT] [overrides]: labels and pictures as another format.

The source is only read. TARGET must not exist: it is built beside and renamed, so it is whole or not there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from pipeline import settings
from pipeline.data.config import ShapesDataset
from pipeline.data.formats.catalogue import FORMATS, SOURCES, TARGETS, table
from pipeline.data.formats.reading import read_format, read_ingested, resolved
from pipeline.data.formats.writing import write_source
from pipeline.data.sources import local_path, open_source
from pipeline.errors import ConfigError, DataError
from pipeline.files import digest_bytes, staged
from pipeline.layout import Layout
from pipeline.storage.addresses import is_remote


def run(arguments: Sequence[str]) -> None:
    """Write TARGET and print what it could not hold."""
    options, overrides = _parser().parse_known_args(list(arguments))
    if options.formats:
        print(table(), end="")
        return
    if options.source is None or options.target is None or options.to is None:
        raise ConfigError("convert", None, "takes SOURCE TARGET --to FORMAT; --help lists the formats")
    lost = convert(options.source, Path(options.target), options.to, options.source_format, overrides)
    print(f"{options.target} holds {options.source} as {FORMATS[options.to].title}")
    print("\n".join(f"lost: {line}" for line in lost) if lost else "nothing was lost")


def convert(source: str, target: Path, to: str, source_format: str = "auto", overrides: Sequence[str] = ()) -> list[str]:
    """Read `source` and write it as `to` into the new folder `target`; a line for each kind of content that is lost.

    `overrides` such as `dataset.one_based=true` set how the source is read. ConfigError for a target that exists or lies in the
    source, DataError for labels that cannot be read; then there is no target.
    """
    if is_remote(source):
        raise ConfigError("convert SOURCE", source, "is on another machine: fetch it first")
    _require_free(source, target)
    chosen = settings.check(settings.compose([f"dataset={source_format}", f"dataset.source={source}", *overrides]))
    dataset = chosen.dataset
    assert not isinstance(dataset, ShapesDataset)
    work = Layout().work("convert", digest_bytes(source.encode())[:16])
    with open_source(source, work, dataset.archive) as folder:
        if source_format == "auto" and (folder / "dataset.json").is_file():
            print("convert: dataset.json: a dataset that ingest or validate wrote", flush=True)
            found = read_ingested(folder)
        else:
            cfg, evidence = resolved(dataset, folder)
            if evidence:
                print(f"convert: {evidence}", flush=True)
            found = read_format(cfg, folder)
        with staged(target) as out:
            lost = write_source(to, found, out)
            _require_free(source, target)  # somebody may have made it meanwhile
    return lost


def _require_free(source: str, target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise ConfigError("convert TARGET", str(target), "is there already: nothing is overwritten; give another name")
    if local_path(source).is_dir() and target.resolve().is_relative_to(local_path(source).resolve()):
        raise ConfigError("convert TARGET", str(target), "lies in the source, which is only read; give a place outside")
    if not target.absolute().parent.is_dir():
        raise DataError(target.absolute().parent, "no such folder", "make it first")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError("convert", None, f"{message}; --help lists the choices")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser("python -m pipeline convert", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", nargs="?", help="folder, .zip or .tar on this machine")
    parser.add_argument("target", nargs="?", help="folder to make")
    parser.add_argument("--to", choices=TARGETS, help="format to write")
    parser.add_argument("--from", dest="source_format", choices=("auto", *SOURCES), default="auto", help="format to read")
    parser.add_argument("--formats", action="store_true", help="print the table of docs/formats.md")
    return parser
