"""No room left while a checkpoint is written."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.training.test_resume_killed import EVERY, Checkout

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB: two checkpoints of 5 MB find room, a third beside them does not."""
    folder = tmp_path / "checkout/work/train"
    folder.mkdir(parents=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("a small file system can be mounted by root alone")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_disk_full_during_a_checkpoint(
    processes: int, root: Path, tmp_path: Path, small_disk: Path, note: Callable[[str, str, str], None]
) -> None:
    checkout = Checkout(root, tmp_path / "checkout", processes)
    said = checkout.train(fails=True)
    assert "no space left on the device; nothing was left half-written" in said and "Traceback" not in said
    kept = [path.name for path in sorted(small_disk.rglob("*")) if path.is_file() and path.name not in ("lock", "settings.json")]
    assert kept == [f"step-{step:08d}.pt" for step in (EVERY, 2 * EVERY)]  # whole ones, no part of the third
    assert not (checkout.folder / "models/detector").exists()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    said = checkout.train()
    assert f"goes on after step {2 * EVERY}" in said
    resumed = checkout.results()
    checkout.forget()
    checkout.train()
    assert resumed == checkout.results()
    note(
        "Disk full during a checkpoint",
        "fails with one message that names the file; the two checkpoints before it stay",
        "goes on from the last checkpoint; the same bytes as undisturbed",
    )
