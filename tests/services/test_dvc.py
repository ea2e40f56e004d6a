"""DVC with a real S3 server: a remote for results, and a source on it whose change DVC notices. The project's own dvc.yaml."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.files import digest_tree
from tests.data.test_yolo import picture, text, yolo
from tests.line.conftest import Clone
from tests.line.conftest import clone as clone  # the fixture
from tests.services.conftest import S3
from tests.services.test_s3 import upload

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
SHAPES = ["dataset.size=64", "dataset.train=6", "dataset.val=3", "tracking=off"]
STAGES = ("ingest", "validate")


def test_push_delete_the_cache_pull_and_nothing_is_to_do(s3: S3, bucket: str, clone: Callable[[str], Clone]):
    made = clone("remote").with_environment(s3.environment())
    made.run("dvc", "remote", "add", "--default", "store", f"s3://{bucket}/dvc")
    made.run("dvc", "remote", "modify", "store", "endpointurl", s3.endpoint)
    made.run("pipeline", "config", *SHAPES)
    made.run("dvc", "repro", *STAGES)
    before = {name: digest_tree(made.folder / name) for name in ("data", "reports/validate/findings.json")}
    made.run("dvc", "push", *STAGES)
    for name in (".dvc/cache", ".dvc/tmp", "data", "reports"):
        shutil.rmtree(made.folder / name)
    made.run("dvc", "status", *STAGES)  # says that all is missing, and that is no failure
    made.run("dvc", "pull", *STAGES)
    assert {name: digest_tree(made.folder / name) for name in before} == before
    assert "up to date" in made.run("dvc", "status", *STAGES)
    assert "Running stage" not in made.run("dvc", "repro", *STAGES)


def test_dvc_notices_a_changed_source_once_it_is_listed_anew(s3: S3, bucket: str, clone: Callable[[str], Clone], tmp_path: Path):
    source = yolo(tmp_path / "set")
    upload(s3, bucket, source, "set")
    offline = clone("source")
    made = offline.with_environment(s3.environment())
    chosen = ["dataset=yolo", f"dataset.source=s3://{bucket}/set", "storage.private_addresses=true", "tracking=off"]
    assert "source.json lists what is there now: 9 objects" in made.run("pipeline", "config", *chosen)
    assert "Running stage 'ingest'" in made.run("dvc", "repro", "ingest")
    first = digest_tree(made.folder / "data/dataset")
    for _ in range(2):  # without keys or endpoint: DVC needs no server to know that nothing is to do
        assert "up to date" in offline.run("dvc", "status", "ingest")
        assert "Running stage" not in offline.run("dvc", "repro", "ingest")
    text(source / "labels/val/1.txt", "1 0.5 0.5 0.5 0.5")
    upload(s3, bucket, source, "set")
    made.run("pipeline", "config", "--source")
    assert "source.json" in offline.run("dvc", "status", "ingest")
    assert "Running stage 'ingest'" in made.run("dvc", "repro", "ingest")
    assert digest_tree(made.folder / "data/dataset") != first
    assert "up to date" in offline.run("dvc", "status", "ingest")
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=made.folder, capture_output=True, text=True, check=True).stdout
    assert sorted(line.split()[-1] for line in changed.splitlines()) == ["dvc.lock", "params.yaml", "source.json"]


def test_a_change_that_nobody_listed_stops_ingest(s3: S3, bucket: str, clone: Callable[[str], Clone], tmp_path: Path):
    """DVC would otherwise note the listed data as the origin of a dataset made of other data."""
    source = yolo(tmp_path / "set")
    upload(s3, bucket, source, "set")
    made = clone("stale").with_environment(s3.environment())
    chosen = ["dataset=yolo", f"dataset.source=s3://{bucket}/set", "storage.private_addresses=true", "tracking=off"]
    made.run("pipeline", "config", *chosen)
    text(source / "labels/val/1.txt", "1 0.5 0.5 0.5 0.5")
    upload(s3, bucket, source, "set")
    output = made.run("dvc", "repro", "ingest", ok=False)
    assert f"s3://{bucket}/set: is no longer what was listed" in output and "python -m pipeline config --source" in output
    assert not (made.folder / "data/dataset").exists()


def test_a_batch_of_pictures_is_a_version_that_can_be_compared_shared_and_brought_back(
    s3: S3, bucket: str, clone: Callable[[str], Clone], tmp_path: Path
):
    """The README's section on data versions, command by command; then the old one is pulled where only its commit is known."""
    source = yolo(tmp_path / "photos")
    made = clone("versions").with_environment(s3.environment())
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    made.run("dvc", "remote", "add", "--default", "store", f"s3://{bucket}/versions")
    made.run("dvc", "remote", "modify", "store", "endpointurl", s3.endpoint)
    made.run("pipeline", "config", "dataset=yolo", f"dataset.source={source}", "tracking=off")
    made.run("dvc", "repro", *STAGES)
    first = digest_tree(made.folder / "data")
    for words in (["add", "dvc.lock", "params.yaml"], ["commit", "--quiet", "--message", "photos"], ["tag", "batch-1"]):
        subprocess.run([*git, *words], cwd=made.folder, check=True)
    made.run("dvc", "push", *STAGES)
    picture(source / "images/train/batch2.png", colour=7)
    text(source / "labels/train/batch2.txt", "0 0.5 0.5 0.25 0.25")
    made.run("dvc", "repro", *STAGES)
    subprocess.run([*git, "commit", "--quiet", "--all", "--message", "more photos"], cwd=made.folder, check=True)
    made.run("dvc", "push", *STAGES)
    differences = json.loads(made.run("dvc", "diff", "batch-1", "HEAD", "--json", "--targets", "data/dataset", "data/validated"))
    paths = {kind: {entry["path"] for entry in entries if entry["path"][-1] != "/"} for kind, entries in differences.items()}
    for name in ("dataset", "validated"):
        assert [path for path in paths["added"] if path.startswith(f"data/{name}/")] == [f"data/{name}/images/train/batch2.png"]
        assert {f"data/{name}/train.json", f"data/{name}/dataset.json"} <= paths["modified"]
        assert f"data/{name}/val.json" not in paths["modified"]
    assert not paths["deleted"]
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "--quiet", "--branch", "batch-1", str(made.folder), str(other)], check=True)
    shutil.copy(made.folder / ".dvc/config", other / ".dvc/config")
    pulled = Clone(other, made.home).with_environment(s3.environment())
    pulled.run("dvc", "pull", *STAGES)
    assert digest_tree(other / "data") == first


def test_a_source_in_another_repository_comes_from_its_remote(s3: S3, bucket: str, clone: Callable[[str], Clone], tmp_path: Path):
    """`dvc repro` of ours, data of theirs: at a tag, from the S3 remote that their repository names."""
    registry = tmp_path / "registry"
    yolo(registry / "set")
    theirs = Clone(registry, tmp_path).with_environment(s3.environment())
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], cwd=registry, check=True)
    theirs.run("dvc", "init", "--quiet")
    theirs.run("dvc", "remote", "add", "--default", "store", f"s3://{bucket}/registry")
    theirs.run("dvc", "remote", "modify", "store", "endpointurl", s3.endpoint)
    theirs.run("dvc", "add", "set")
    theirs.run("dvc", "push")
    for words in (["add", "--all"], ["commit", "--quiet", "--message", "set"], ["tag", "v1"]):
        subprocess.run([*git, *words], cwd=registry, check=True)
    shutil.rmtree(registry / ".dvc/cache")
    made = clone("consumer").with_environment(s3.environment())
    chosen = ["dataset=yolo", f"dataset.source=dvc+file://{registry}#set@v1", "tracking=off"]
    refused = made.run("pipeline", "config", *chosen, ok=False)
    assert "its DVC remote store: 127.0.0.1 is at 127.0.0.1, a private, loopback" in refused
    listed = made.run("pipeline", "config", *chosen, "storage.private_addresses=true")
    assert "source.json lists what is there now: 9 objects" in listed
    made.run("dvc", "repro", "ingest")
    plain = clone("plain")
    plain.run("pipeline", "config", "dataset=yolo", f"dataset.source={registry / 'set'}", "tracking=off")
    plain.run("dvc", "repro", "ingest")
    assert digest_tree(made.folder / "data/dataset") == digest_tree(plain.folder / "data/dataset")
    assert "up to date" in made.run("dvc", "status", "ingest")
