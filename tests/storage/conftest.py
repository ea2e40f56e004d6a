"""A small data set in an archive, and the web server that has it."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.conftest import ingest as ingest  # the fixture
from tests.data.test_yolo import yolo
from tests.storage.web import Site, serve


def packed(source: Path, padding: int = 0) -> bytes:
    """The folder as a zip, the same bytes for the same content, with `padding` more bytes that no format reads."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(source.rglob("*.*")):
            archive.writestr(zipfile.ZipInfo(f"set/{path.relative_to(source)}"), path.read_bytes())
        archive.writestr(zipfile.ZipInfo("set/notes.bin"), bytes(i * 7 % 251 for i in range(padding)))
    return buffer.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A YOLO source of four pictures."""
    return yolo(tmp_path / "set")


@pytest.fixture
def site(source: Path) -> Iterator[Site]:
    """A web server with the source as an archive of some 3 MB."""
    with serve(Site(packed(source, padding=3_000_000))) as running:
        yield running
