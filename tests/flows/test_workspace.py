"""Runs with overrides: a worktree that starts from the checkout as it is, and a commit that says what was made."""

import configparser
import shutil
import subprocess

import pytest

from flows import workspace
from pipeline import settings
from pipeline.errors import ConfigError, DataError, UserError
from pipeline.layout import home
from pipeline.tracking import absolute_uri


def git(folder, *words):
    return subprocess.run(["git", "-C", str(folder), *words], check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def checkout(root, tmp_path, monkeypatch):
    """A repository with this project's conf/ and what it names, in a home without a git identity."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    folder = tmp_path / "checkout"
    shutil.copytree(root / "conf", folder / "conf")
    for name in (".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore", "params.yaml", "pipeline/data/formats/shapes.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, folder / name)
    (folder / "pictures").mkdir()
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", ".")
    git(folder, *workspace._NOBODY, "commit", "-qm", "start")
    return folder


def own(checkout, *overrides):
    return workspace.own_worktree(checkout, "able-heron", overrides)


def test_a_clean_checkout_is_its_own_commit(checkout):
    assert workspace.commit_of(checkout) == git(checkout, "rev-parse", "HEAD")


def test_edits_and_new_code_are_in_the_run_and_pictures_are_not(checkout):
    (checkout / "conf/train/default.yaml").write_text((checkout / "conf/train/default.yaml").read_text() + "# edited\n")
    shutil.copy(checkout / "conf/dataset/shapes.yaml", checkout / "conf/dataset/mine.yaml")
    (checkout / "pictures/huge.png").write_bytes(b"picture")
    before = git(checkout, "status", "--porcelain")
    place = own(checkout, "dataset=mine", "dataset.source=conf")
    assert "# edited" in (place.root / "conf/train/default.yaml").read_text()
    assert not (place.root / "pictures/huge.png").exists()
    assert git(place.root, "rev-parse", "HEAD^") == git(checkout, "rev-parse", "HEAD")
    assert git(checkout, "status", "--porcelain") == before  # index and files of the checkout are as they were


def test_two_runs_have_places_of_their_own_and_the_checkout_keeps_its_settings(checkout):
    snapshot = (checkout / "params.yaml").read_bytes()
    one, other = own(checkout, "train.steps=7"), workspace.own_worktree(checkout, "busy-wren", ["train.steps=8"])
    assert [place.config.train.steps for place in (one, other)] == [7, 8]
    assert [settings.load((), place.root).train.steps for place in (one, other)] == [7, 8]
    assert (checkout / "params.yaml").read_bytes() == snapshot
    assert one.branch.startswith("runs/") and one.branch in git(checkout, "branch", "--list", "runs/*").replace("+ ", "")


def test_the_result_is_one_commit_of_settings_and_record(checkout):
    place = own(checkout, "train.steps=7")
    (place.root / "dvc.lock").write_text("schema: '2.0'\n")
    (place.root / "notes.txt").write_text("not a result")
    commit = workspace.keep(place, "Line: able-heron")
    assert git(checkout, "rev-parse", place.branch) == commit
    assert sorted(git(checkout, "show", "--name-only", "--format=", commit).split()) == ["dvc.lock", "params.yaml"]
    assert "steps: 7" in git(checkout, "show", f"{commit}:params.yaml")
    assert git(checkout, "log", "-1", "--format=%an", commit) == "Detectline"


def test_the_author_is_the_one_that_git_knows(checkout):
    git(checkout, "config", "user.name", "Ada")
    git(checkout, "config", "user.email", "ada@example.org")
    place = own(checkout, "train.steps=7")
    (place.root / "dvc.lock").write_text("schema: '2.0'\n")
    assert git(checkout, "log", "-1", "--format=%an", workspace.keep(place, "Line")) == "Ada"


def test_overrides_come_on_top_of_the_checkouts_own(checkout):
    settings.write_params(["dataset=voc", "dataset.source=pictures", "train.steps=5"], checkout)
    place = own(checkout, "train.steps=7", "seed=3")
    assert (place.config.dataset.kind, place.config.train.steps, place.config.seed) == ("voc", 7, 3)
    assert settings.on_top(["dataset=coco"], checkout) == ["train.steps=5", "dataset=coco"]  # a group takes its settings along
    assert settings.load(["seed=3"], checkout).dataset.kind == "voc"


def test_a_removed_listing_is_committed_as_removed(checkout):
    (checkout / "source.json").write_text("{}")
    git(checkout, "add", "source.json")
    git(checkout, *workspace._NOBODY, "commit", "-qm", "a remote source")
    place = own(checkout, "train.steps=7")
    (place.root / "source.json").unlink()
    (place.root / "dvc.lock").write_text("schema: '2.0'\n")
    commit = workspace.keep(place, "Line")
    assert "source.json" not in git(checkout, "ls-tree", "--name-only", commit)


def test_the_cache_is_shared_and_local_settings_come_along(checkout):
    (checkout / ".dvc/config.local").write_text("['remote \"store\"']\n    secret_access_key = Secret\n")
    place = own(checkout, "train.steps=7")
    local = configparser.RawConfigParser()
    local.read(place.root / ".dvc/config.local")
    assert local["cache"]["dir"] == str(checkout / ".dvc/cache")
    assert local["'remote \"store\"'"]["secret_access_key"] == "Secret"
    assert (place.root / ".dvc/config.local").stat().st_mode & 0o777 == 0o600
    assert "config.local" not in git(place.root, "status", "--porcelain")


def test_a_relative_source_means_the_same_data_in_the_worktree(checkout):
    (checkout.parent / "outside").mkdir()
    committed, ignored, outside = "conf/dataset", "pictures", "../outside"
    assert own(checkout, "dataset=voc", f"dataset.source={committed}").config.dataset.source == committed
    for name, source in (("a-b", ignored), ("c-d", outside)):
        place = workspace.own_worktree(checkout, name, ["dataset=voc", f"dataset.source={source}"])
        assert place.config.dataset.source == str((checkout / source).resolve())


def test_a_run_that_made_nothing_leaves_no_worktree_and_no_branch(checkout):
    place, other = own(checkout, "train.steps=7"), workspace.own_worktree(checkout, "other", ["train.steps=8"])
    (place.root / "new file").write_text("of the run")
    workspace.discard(place, checkout)
    assert not place.root.exists() and other.root.exists()
    assert [word for word in git(checkout, "branch", "--list", "runs/*").split() if word != "+"] == [other.branch]
    workspace.discard(workspace.Workspace(checkout, place.config), checkout)
    assert (checkout / "params.yaml").exists()


def test_a_mistake_leaves_no_worktree(checkout):
    with pytest.raises(ConfigError, match="Did you mean steps"):
        own(checkout, "train.stepps=7")
    with pytest.raises(DataError, match=r"(?s)no/such/folder: no such file or folder.*dataset\.source="):
        own(checkout, "dataset=voc", "dataset.source=no/such/folder")
    assert len(git(checkout, "worktree", "list").splitlines()) == 1


def test_without_git_it_says_what_to_do(checkout):
    shutil.rmtree(checkout / ".git")
    with pytest.raises(UserError, match=r"(?s)needs a git repository.*python -m pipeline config"):
        own(checkout, "train.steps=7")


def test_a_worktree_tracks_into_its_checkouts_store(checkout, monkeypatch):
    place = own(checkout, "train.steps=7")
    assert home(place.root) == checkout and home(checkout) == checkout
    ours = checkout / "work/runs/a-clone"  # of somebody's own, by chance in a folder of this name
    (ours / ".git").mkdir(parents=True)
    assert home(ours) == ours
    assert absolute_uri("sqlite:///mlflow.db", place.root) == f"sqlite:///{checkout}/mlflow.db"
    monkeypatch.setenv("DVC_ROOT", str(checkout))
    monkeypatch.setenv("DVC_EXP_BASELINE_REV", "0" * 40)
    assert home(checkout / ".dvc/tmp/exps/tmp1") == checkout


def test_with_exchange_the_result_goes_to_origin(checkout, tmp_path):
    """A machine that nobody looks at keeps nothing: its branch must be where the others find it."""
    git(tmp_path, "init", "-q", "--bare", "hub.git")
    git(checkout, "remote", "add", "origin", str(tmp_path / "hub.git"))
    place = own(checkout, "storage.exchange=true")
    commit = workspace.keep(place, "result")
    assert git(tmp_path / "hub.git", "rev-parse", place.branch) == commit
    git(checkout, "remote", "set-url", "origin", str(tmp_path / "gone.git"))
    with pytest.raises(UserError, match="git push failed"):
        workspace.keep(place, "again")
