"""A source as a path on this machine: its own, or that of a copy fetched from a server."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pipeline.data.archive import SUFFIXES, is_archive
from pipeline.data.config import LISTING, DatasetConfig, ShapesDataset, SourceDataset
from pipeline.data.sources import local_path
from pipeline.errors import ConfigError, DataError
from pipeline.layout import Layout
from pipeline.storage.addresses import is_remote, path_of, scheme_of, shown
from pipeline.storage.config import StorageConfig
from pipeline.storage.download import Listing, fetch, list_source, read_listing, require_sha256, write_listing


def record_source(dataset: DatasetConfig, storage: StorageConfig, layout: Layout) -> Listing | None:
    """Write what a remote source has now to `layout.listing`; remove that file where the source is a path.

    DVC cannot watch an address without asking its server at every `dvc status`, and would note the server's mark only after the
    stage ran, of data that may have changed meanwhile. A recorded listing needs no network until somebody asks for news, and
    ingest takes exactly what is recorded, or nothing.
    """
    if isinstance(dataset, ShapesDataset) or not is_remote(dataset.source):
        layout.listing.unlink(missing_ok=True)
        return None
    listing = list_source(dataset.source, _is_single(dataset), storage)
    write_listing(layout.listing, listing)
    return listing


@contextmanager
def local_copy(dataset: SourceDataset, storage: StorageConfig, layout: Layout) -> Iterator[str]:
    """The source as a path. What is fetched is kept in work/ingest/<digest of the listing>/ until the block ends well.

    A call that was killed goes on where it stopped. DataError when the archive is not the one of `dataset.sha256`.
    """
    if not is_remote(dataset.source):
        path = local_path(dataset.source)
        if dataset.sha256 is not None and path.exists():
            if not (path.is_file() and is_archive(path)):
                raise ConfigError("dataset.sha256", dataset.sha256, "is for an archive; a folder has no one digest")
            require_sha256(path, dataset.sha256)
        yield dataset.source
        return
    single = _is_single(dataset)
    listing = _recorded(dataset.source, layout) or list_source(dataset.source, single, storage)
    folder = layout.work("ingest", f"{listing.digest[:16]}.fetched")
    for other in layout.work("ingest").glob("*.fetched"):
        if other != folder:  # of a version of the data that nobody wants any more
            shutil.rmtree(other, ignore_errors=True)
    fetch(listing, single, folder, storage, lambda line: print(f"ingest: {line}", flush=True))
    whole = folder / "whole"
    if single:
        whole = whole / listing.objects[0].name
        try:
            require_sha256(whole, dataset.sha256)
        except DataError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    yield str(whole)
    shutil.rmtree(folder, ignore_errors=True)


def _recorded(source: str, layout: Layout) -> Listing | None:
    """The recorded listing of this source. Under DVC there must be one: it is what DVC believes to have been read."""
    listing = read_listing(layout.listing) if layout.listing.exists() else None
    if listing is not None and listing.source == source:
        return listing
    if "DVC_STAGE" in os.environ:
        wrong = f"does not list {shown(source)}" if listing else "is missing"
        raise DataError(LISTING, wrong, "write it by: python -m pipeline config --source")
    return None


def _is_single(dataset: SourceDataset) -> bool:
    """Whether a remote source is one archive; False for a prefix of a bucket or a folder in a DVC repository.

    ConfigError for what can be neither.
    """
    single = is_archive(Path(PurePosixPath(path_of(dataset.source)).name))
    if not single and scheme_of(dataset.source) in ("http", "https"):
        rule = f"is no archive by its name: it must end in one of {', '.join(SUFFIXES)}; folders come from s3:// and dvc+https://"
        raise ConfigError("dataset.source", shown(dataset.source), rule)
    if not single and dataset.sha256 is not None:
        raise ConfigError("dataset.sha256", dataset.sha256, "is for an archive; a folder has no one digest")
    return single
