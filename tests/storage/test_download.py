"""What a download is held to, whatever the server: names, sizes, MD5, and files that are whole or not there."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.errors import DataError
from pipeline.storage import download
from pipeline.storage.objects import Body, RemoteObject
from tests.data.conftest import storage_config


class Shelf:
    """A server in memory. `lies` replaces what it sends of an object."""

    def __init__(self, **contents: bytes) -> None:
        self.contents, self.lies, self.asked = contents, {}, []
        self.names: list[str] = list(contents)

    def listing(self) -> list[RemoteObject]:
        return [RemoteObject(name, len(self.contents.get(name, b"")), f'"{name}"', None) for name in sorted(self.names)]

    @contextmanager
    def body(self, wanted: RemoteObject, start: int) -> Iterator[Body]:
        self.asked.append((wanted.name, start))
        content = self.contents[wanted.name]
        sent = self.lies.get(wanted.name, content)
        yield Body(start, (sent[i : i + 3] for i in range(start, len(sent), 3)), hashlib.md5(content).hexdigest())


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    made = Shelf(a=b"first of all", b=b"", c=b"third")
    monkeypatch.setattr(download, "_server", lambda *_: made)
    return made


def fetched(root: Path, folder: Path) -> dict[str, bytes]:
    config = storage_config(root)
    download.fetch(download.list_source("s3://b/p", False, config), False, folder, config, lambda _: None)
    return {path.relative_to(folder / "whole").as_posix(): path.read_bytes() for path in (folder / "whole").rglob("*")}


def test_all_of_it_and_nothing_twice(root: Path, tmp_path: Path, shelf: Shelf):
    assert fetched(root, tmp_path) == shelf.contents
    shelf.asked.clear()
    assert fetched(root, tmp_path) == shelf.contents and shelf.asked == []


def test_an_object_that_ends_early_goes_on_there(root: Path, tmp_path: Path, shelf: Shelf):
    shelf.lies["a"] = b"first"
    with pytest.raises(DataError, match=r"s3://b/p: a: ended after 5 of 12 bytes"):
        fetched(root, tmp_path)
    shelf.lies.clear()
    shelf.asked.clear()
    assert fetched(root, tmp_path) == shelf.contents and ("a", 5) in shelf.asked


@pytest.mark.parametrize(
    ("sent", "wrong"), [(b"FIRST of all", "was damaged on its way"), (b"first of all!", "sends more than 12")]
)
def test_what_is_not_the_listed_object_is_thrown_away(root: Path, tmp_path: Path, shelf: Shelf, sent: bytes, wrong: str):
    shelf.lies["a"] = sent
    with pytest.raises(DataError, match=wrong):
        fetched(root, tmp_path)
    shelf.lies.clear()
    assert fetched(root, tmp_path) == shelf.contents


def test_a_damaged_part_is_noticed_when_it_is_joined(root: Path, tmp_path: Path, shelf: Shelf):
    shelf.lies["a"] = b"first"
    with pytest.raises(DataError):
        fetched(root, tmp_path)
    part = next(path for path in tmp_path.glob("parts/*") if path.read_bytes() == b"first")
    part.write_bytes(b"worst")
    shelf.lies.clear()
    with pytest.raises(DataError, match="was damaged on its way"):
        fetched(root, tmp_path)
    assert fetched(root, tmp_path) == shelf.contents


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a//b", "..\\evil", "a\0b", ".."])
def test_names_that_lead_out_are_refused(root: Path, tmp_path: Path, shelf: Shelf, name: str):
    shelf.names.append(name)
    with pytest.raises(DataError, match="has no name that a file below a folder can have"):
        fetched(root, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_object_below_another_is_one_line(root: Path, tmp_path: Path, shelf: Shelf):
    """In a bucket `a` and `a/b` can both be objects; on disk a file cannot be a folder."""
    shelf.contents["a/b"] = b"x"
    shelf.names.append("a/b")
    with pytest.raises(DataError, match=r"s3://b/p: a(/b)?: cannot be written"):
        fetched(root, tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 9}', '{"version": 1, "source": "x", "objects": [{"size": 1}]}'])
def test_a_listing_that_is_none_says_how_to_write_it(tmp_path: Path, text: str):
    (tmp_path / "source.json").write_text(text)
    with pytest.raises(DataError, match=r"source.json: "):
        download.read_listing(tmp_path / "source.json")


def test_one_failure_ends_the_others(root: Path, tmp_path: Path, shelf: Shelf):
    """Object `a` fails while `z` has endless bytes to come: the call ends with a's error."""
    shelf.contents["z"] = b"z" * 300_000
    shelf.names.append("z")
    shelf.lies["a"] = b"f"
    with pytest.raises(DataError, match="a: ended after 1 of 12"):
        fetched(root, tmp_path)
    assert not (tmp_path / "whole/z").exists()
