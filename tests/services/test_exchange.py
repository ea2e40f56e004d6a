"""Two checkouts that share nothing but a git repository and an S3 server make what one machine makes, to the byte."""

import subprocess
from pathlib import Path

import pytest

from flows.workspace import git
from pipeline import settings
from pipeline.layout import Layout
from tests.line.conftest import Clone
from tests.services.conftest import S3
from tests.stages.tiny import TINY, run_stages

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]
SETTINGS = ("dataset.train=8", "dataset.val=4", "train.steps=3", "compute.threads=1")
REMOTE = """['remote "store"']
    url = s3://{bucket}/exchange
    endpointurl = {endpoint}
"""
BRANCH = "runs/two-machines"
NOBODY = ("-c", "user.name=a", "-c", "user.email=a@b")


def machine(hub: Path, folder: Path, s3: S3) -> Clone:
    """A fresh clone of `hub` with a home, a cache and nothing else of its own."""
    home = folder / "home"
    home.mkdir(parents=True)
    subprocess.run(["git", "clone", "--quiet", str(hub), str(folder / "checkout")], check=True)
    return Clone(folder / "checkout", home).with_environment(s3.environment())


def exchange(made: Clone, *stages: str, ok: bool = True) -> str:
    return made.run("flows.exchange", *stages, "--branch", BRANCH, ok=ok)


def contents(root: Path) -> dict[str, bytes]:
    """What the stages are judged by."""
    paths = [
        *(root / "models/detector").rglob("*"),
        *(root / "reports/evaluate").rglob("*.json"),
        root / "reports/train/metrics.json",
    ]
    return {str(path.relative_to(root)): path.read_bytes() for path in paths if path.is_file() and path.name != "timing.json"}


def test_two_machines_make_what_one_makes(s3: S3, bucket: str, root: Path, tmp_path: Path) -> None:
    hub = tmp_path / "hub.git"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(root), str(hub)], check=True)
    first, second = (machine(hub, tmp_path / name, s3) for name in ("first", "second"))
    config = first.folder / ".dvc/config"
    config.write_text(
        config.read_text().replace("[core]", "[core]\n    remote = store") + REMOTE.format(bucket=bucket, endpoint=s3.endpoint)
    )
    settings.write_params([*TINY, *SETTINGS], first.folder)
    git(first.folder, *NOBODY, "commit", "--quiet", "--all", "-m", "a remote, and small settings")
    git(first.folder, "push", "--quiet", "origin", f"HEAD:refs/heads/{BRANCH}")

    missing = exchange(second, "train", ok=False)
    assert missing.startswith("dvc pull data/validated\ntrain: inputs could not be pulled from DVC's remote")
    assert "push them where they were made" in missing and "configuration" not in missing, missing
    exchange(first, "ingest", "validate")
    assert "Results: ingest, validate" in git(hub, "log", "-1", "--format=%s", BRANCH)
    output = exchange(second, "train")
    assert "dvc pull data/validated\n" in output and "dvc push train" in output
    assert sorted(path.name for path in (second.folder / "data").iterdir() if path.is_dir()) == ["validated"]
    output = exchange(first, "train", "evaluate")
    assert "pulled from DVC's remote: another machine has run it" in output and "train: 3 classes" not in output

    alone = Layout(tmp_path / "alone")
    run_stages(root, alone, ("ingest", "validate", "train", "evaluate"), SETTINGS)
    expected = contents(alone.root)
    assert {"models/detector/weights.safetensors", "reports/evaluate/metrics.json"} <= expected.keys()
    assert contents(first.folder) == expected
    assert "up to date" in first.run("dvc", "status", "ingest", "validate", "train", "evaluate")
    assert len(git(hub, "log", "--format=%h", f"HEAD..{BRANCH}").split()) == 4
