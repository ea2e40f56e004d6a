"""What a stage needs from elsewhere, and how the record of results travels by git. Real repositories, no DVC, no server."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from flows.exchange import inputs, main, merged_record, publish, receive
from flows.workspace import git
from pipeline.errors import ConfigError, UserError

BRANCH = "runs/shared"


def quiet(line: str) -> None:
    """Nobody listens."""


@pytest.mark.parametrize(
    "stages, needed",
    [
        (["ingest"], []),
        (["validate"], ["data/dataset"]),
        (["train"], ["data/validated"]),
        (["evaluate"], ["data/validated", "models/detector"]),
        (["export"], ["data/validated", "models/detector", "models/quantized"]),
        (["ingest", "validate"], []),
        (["train", "evaluate"], ["data/validated"]),
    ],
)
def test_a_stage_needs_what_others_make_and_no_more(root: Path, stages: list[str], needed: list[str]) -> None:
    assert inputs(stages, root) == needed


@pytest.fixture
def project(root: Path, tmp_path: Path) -> Path:
    """A folder with this project's stages, whose source is photos/june."""
    shutil.copy(root / "dvc.yaml", tmp_path)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["dataset"] |= {"source": "photos/june", "watched": "photos/june"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    return tmp_path


@pytest.mark.parametrize("tracked", ["photos/june.dvc", "photos.dvc"])
def test_a_source_that_dvc_tracks_is_needed(project: Path, tracked: str) -> None:
    assert inputs(["ingest"], project) == []  # git's, or of this machine
    (project / tracked).parent.mkdir(exist_ok=True)
    (project / tracked).touch()
    assert inputs(["ingest"], project) == ["photos/june"]
    assert inputs(["validate"], project) == ["data/dataset"]


def test_an_unknown_stage_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"stage='tarin' is none of dvc.yaml; its stages: settings, ingest"):
        inputs(["tarin"], root)
    assert main(["train", "--branch"]) == 2
    assert capsys.readouterr().err == "config: --branch needs a value\n"
    assert main(["--branch", "runs/x"]) == 2
    assert "name at least one, such as train" in capsys.readouterr().err


@pytest.fixture
def clones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two clones of one repository, by people whom git does not know."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    hub, first, second = tmp_path / "hub.git", tmp_path / "first", tmp_path / "second"
    subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(hub)], check=True)
    subprocess.run(["git", "clone", "--quiet", str(hub), str(first)], check=True, capture_output=True)
    record(first, ingest="1")
    (first / "code.py").write_text("old")
    git(first, "add", ".")
    git(first, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "start")
    git(first, "push", "--quiet", "origin", "HEAD:main")
    subprocess.run(["git", "clone", "--quiet", str(hub), str(second)], check=True)
    return first, second


def record(root: Path, **stages: str) -> None:
    """A dvc.lock with these entries in place of the present ones."""
    path = root / "dvc.lock"
    content = yaml.safe_load(path.read_text()) if path.exists() else {"schema": "2.0", "stages": {}}
    content["stages"] |= {name: {"cmd": name, "outs": [{"path": name, "md5": md5}]} for name, md5 in stages.items()}
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def recorded(root: Path) -> dict[str, str]:
    """The entries of a dvc.lock."""
    return {name: entry["outs"][0]["md5"] for name, entry in yaml.safe_load((root / "dvc.lock").read_text())["stages"].items()}


def test_the_record_goes_from_clone_to_clone(clones: tuple[Path, Path]) -> None:
    first, second = clones
    receive(second, BRANCH)  # not there yet: nothing to do
    record(first, train="2")
    (first / "notes.txt").write_text("mine")
    commit = publish(first, BRANCH, ["train"], quiet)
    receive(second, BRANCH)
    assert recorded(second) == {"ingest": "1", "train": "2"} and git(second, "rev-parse", "HEAD") == commit
    assert not (second / "notes.txt").exists()
    assert publish(second, BRANCH, ["train"], quiet) == commit  # the same result again is no commit


def test_the_branch_that_was_checked_out_stays_where_it_is(clones: tuple[Path, Path]) -> None:
    """Both when the branch is new and when it is there: a later `git push` of main would publish results."""
    for number, clone in enumerate(clones):
        before = git(clone, "rev-parse", "main")
        receive(clone, BRANCH)
        record(clone, train=str(number))
        commit = publish(clone, BRANCH, ["train"], quiet)
        assert git(clone, "rev-parse", "main") == before != commit == git(clone, "rev-parse", "HEAD")


def test_two_who_push_at_once_keep_each_others_results(clones: tuple[Path, Path]) -> None:
    first, second = clones
    for clone in clones:
        publish(clone, BRANCH, [], quiet)
        receive(clone, BRANCH)
    record(first, evaluate="3")
    (first / "code.py").write_text("new")
    git(first, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "code", "code.py")
    publish(first, BRANCH, ["evaluate"], quiet)
    record(second, quantize="4", ingest="stale")  # ingest is not what it ran
    publish(second, BRANCH, ["quantize"], quiet)
    assert recorded(second) == {"ingest": "1", "evaluate": "3", "quantize": "4"}
    assert (second / "code.py").read_text() == "new" and git(second, "status", "--porcelain") == ""
    receive(first, BRANCH)
    assert recorded(first) == recorded(second)


def test_two_who_made_the_same_leave_one_commit(clones: tuple[Path, Path]) -> None:
    """As the machines of one training do."""
    first, second = clones
    for clone in clones:
        record(clone, train="2")
        (clone / "dvc.lock").write_text(f"# {clone.name}'s way to write\n{(clone / 'dvc.lock').read_text()}")
    commit = publish(first, BRANCH, ["train"], quiet)
    assert publish(second, BRANCH, ["train"], quiet) == commit


def test_a_push_that_fails_for_another_reason_is_said_and_not_tried_again(clones: tuple[Path, Path]) -> None:
    first, _ = clones
    hook = Path(git(first, "remote", "get-url", "origin")) / "hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho called >> calls\necho no room >&2\nexit 1\n")
    hook.chmod(0o755)
    record(first, train="2")
    with pytest.raises(UserError, match="no room"):
        publish(first, BRANCH, ["train"], quiet)
    assert (hook.parent.parent / "calls").read_text().splitlines() == ["called"]


def test_work_in_the_way_is_not_lost(clones: tuple[Path, Path]) -> None:
    first, second = clones
    record(first, train="2")
    publish(first, BRANCH, ["train"], quiet)
    record(second, validate="mine")
    with pytest.raises(UserError, match=r"git merge failed"):
        receive(second, BRANCH)
    assert recorded(second) == {"ingest": "1", "validate": "mine"}


def test_entries_of_others_stay_theirs() -> None:
    theirs, ours = {"schema": "2.0", "stages": {"a": 1, "b": 1}}, {"schema": "2.0", "stages": {"a": 2, "b": 2, "c": 2}}
    assert merged_record(theirs, ours, ["b", "d"]) == {"schema": "2.0", "stages": {"a": 1, "b": 2}}
    assert merged_record({}, ours, ["c"]) == {"schema": "2.0", "stages": {"c": 2}}
