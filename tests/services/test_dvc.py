"""DVC with a real S3 server: a remote for results, and a source on it whose change DVC notices. The project's own dvc.yaml."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.files import digest_tree
from tests.data.test_yolo import text, yolo
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
