"""Sources in git repositories with DVC: equal to what `dvc get` brings, held to the listing, and wrong in one line."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.data.dataset import open_dataset
from pipeline.data.fetching import local_copy, record_source
from pipeline.errors import ConfigError, DataError
from pipeline.files import digest_tree
from pipeline.layout import Layout
from pipeline.storage.addresses import DvcAddress, path_of, require_address, shown
from pipeline.storage.download import list_source
from tests.data.conftest import Ingest, dataset_config, storage_config
from tests.data.test_yolo import text, yolo
from tests.storage.conftest import packed


@dataclass(frozen=True)
class Registry:
    """A repository whose data DVC tracks, with two versions tagged v1 and v2 (the branch's end), its data pushed to a remote."""

    folder: Path

    def git(self, *words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=self.folder, check=True)

    def commit(self, *tracked: str) -> None:
        """Track by DVC, push, and commit."""
        from dvc.repo import Repo

        with Repo(str(self.folder)) as repo:
            repo.add([str(self.folder / name) for name in tracked])
            repo.push()
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "data")

    def get(self, path: str, rev: str | None, out: Path) -> Path:
        """DVC's own download."""
        from dvc.repo import Repo

        Repo.get(str(self.folder), path, out=str(out), rev=rev)
        return out

    def address(self, place: str) -> str:
        return f"dvc+file://{self.folder}#{place}"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    from dvc.repo import Repo

    made = Registry(tmp_path_factory.mktemp("registry"))
    made.git("init", "--quiet", "--initial-branch", "main")
    with Repo.init(str(made.folder)) as repo, repo.config.edit("repo") as settings:
        settings["remote"] = {"store": {"url": str(tmp_path_factory.mktemp("store"))}}
        settings["core"] = {"remote": "store"}
    yolo(made.folder / "raw/set")
    (made.folder / "set.zip").write_bytes(packed(made.folder / "raw/set"))
    yolo(made.folder / "small")  # tracked by git
    made.commit("raw/set", "set.zip")
    made.git("tag", "v1")
    text(made.folder / "raw/set/labels/val/1.txt", "1 0.5 0.5 0.25 0.50")
    made.commit("raw/set")
    made.git("tag", "v2")
    return made


@pytest.mark.parametrize("place", ["raw/set@v1", "raw/set@v2", "raw/set@main", "raw/set", "raw/set/", "small@v1"])
def test_a_folder_is_what_dvc_get_brings(registry: Registry, root: Path, tmp_path: Path, place: str):
    path, _, rev = place.partition("@")
    expected = digest_tree(registry.get(path, rev or None, tmp_path / "expected"))
    with local_copy(dataset_config(root, "yolo", source=registry.address(place)), storage_config(root), Layout(tmp_path)) as here:
        assert digest_tree(Path(here)) == expected
    versions = {rev: digest_tree(registry.get("raw/set", rev, tmp_path / rev)) for rev in ("v1", "v2")}
    assert versions["v1"] != versions["v2"]


def test_folder_and_archive_are_ingested_alike(registry: Registry, ingest: Ingest, tmp_path: Path):
    expected = digest_tree(ingest("yolo", yolo(tmp_path / "set")))
    for place in ("raw/set@v1", "set.zip@v2"):
        made = ingest("yolo", registry.address(place))
        assert digest_tree(made) == expected and open_dataset(made).info.source == "yolo:set"


def test_a_branch_that_moves_on_changes_nothing_until_the_data_does(
    registry: Registry, root: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
):
    folder = tmp_path_factory.mktemp("own") / "registry"
    subprocess.run(["cp", "-r", str(registry.folder), str(folder)], check=True)
    own, layout = Registry(folder), Layout(tmp_path)
    cfg, storage = dataset_config(root, "yolo", source=own.address("raw/set@main")), storage_config(root)
    record_source(cfg, storage, layout)
    once = layout.listing.read_bytes()
    text(folder / "README.md", "of no matter to the data")
    own.git("add", "--all")
    own.git("commit", "--quiet", "--message", "text")
    record_source(cfg, storage, layout)
    assert layout.listing.read_bytes() == once
    text(folder / "raw/set/labels/val/1.txt", "0 0.5 0.5 0.125 0.5")
    own.commit("raw/set")
    with pytest.raises(DataError, match="is no longer what was listed"), local_copy(cfg, storage, layout):
        pass
    record_source(cfg, storage, layout)
    with local_copy(cfg, storage, layout) as here:
        assert digest_tree(Path(here)) == digest_tree(folder / "raw/set")


# -- wrong in one line --


@pytest.mark.parametrize(
    ("place", "wrong"),
    [
        ("raw/set@v9", "cannot be read: .*v9"),
        ("raw/nothing@v1", "there is no raw/nothing at v1"),
        ("raw/set/data.yaml@v1", "is a file that is no archive by its name"),
    ],
)
def test_what_is_not_there(registry: Registry, root: Path, place: str, wrong: str):
    with pytest.raises(DataError, match=wrong) as caught:
        list_source(registry.address(place), False, storage_config(root))
    assert str(caught.value).startswith(f"dvc+file://{registry.folder}#{place}: ") and len(str(caught.value).splitlines()) <= 2


def test_a_repository_that_is_not_there(root: Path, tmp_path: Path):
    with pytest.raises(DataError, match="there is no folder"):
        list_source(f"dvc+file://{tmp_path}/nothing#data", False, storage_config(root))


def test_a_repository_at_a_private_address_is_refused(root: Path):
    with pytest.raises(DataError, match=r"127\.0\.0\.1, a private, loopback"):
        list_source("dvc+http://127.0.0.1:9/a/b.git#data@v1", False, storage_config(root))


def test_a_remote_at_a_private_address_is_refused(registry: Registry, root: Path, tmp_path: Path):
    """Whoever wrote the repository chose it."""
    folder = tmp_path / "registry"
    subprocess.run(["cp", "-r", str(registry.folder), str(folder)], check=True)
    text(folder / ".dvc/config", "[core]\n    remote = store\n['remote \"store\"']\n    url = http://169.254.169.254/latest")
    Registry(folder).git("commit", "--quiet", "--all", "--message", "elsewhere")
    with pytest.raises(DataError, match=r"its DVC remote store: .* 169\.254\.169\.254, a private"):
        list_source(f"dvc+file://{folder}#raw/set@main", False, storage_config(root))


# -- addresses --


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("dvc+https://github.com/o/r.git#data/pictures@v1.2", ("https://github.com/o/r.git", "data/pictures", "v1.2")),
        ("dvc+ssh://git@github.com/o/r.git#data", ("ssh://git@github.com/o/r.git", "data", None)),
        ("dvc+file:///srv/r#a@b@", ("/srv/r", "a@b", None)),
        ("dvc+file://../r#a.zip@feature/x", ("../r", "a.zip", "feature/x")),
    ],
)
def test_parts_of_an_address(source: str, parts: tuple[str, str, str | None]):
    require_address("dataset.source", source)
    found = DvcAddress.of(source)
    assert (found.repository, found.path, found.rev) == parts and path_of(source) == parts[1]
    assert parts[1] in shown(source)


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("dvc+https://github.com/o/r.git", "names no path in the repository: add #PATH"),
        ("dvc+https://github.com/o/r.git#@v1", "names no path in the repository"),
        ("dvc+https://github.com/o/r.git#../x@v1", "names no path in the repository"),
        ("dvc+https://me:secret@github.com/o/r.git#x", "has a user or password"),
        ("dvc+https://token@github.com/o/r.git#x", "has a user or password"),
        ("dvc+ftp://h/r#x", "is not supported; supported: a path, http, https, s3, dvc"),
    ],
)
def test_addresses_that_cannot_be(source: str, wrong: str):
    with pytest.raises(ConfigError) as caught:
        require_address("dataset.source", source)
    assert wrong in str(caught.value) and "secret" not in str(caught.value).replace("leave secrets out", "")
