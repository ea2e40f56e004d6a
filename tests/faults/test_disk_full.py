"""A disk that is full when a checkpoint is due: one clear message, nothing half-written, and with more room the same weights."""

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.detector.models import tiny_one_stage
from tests.faults.outcomes import record
from tests.training.test_checkpoint import LONG, trained

pytestmark = [pytest.mark.faults]
Resize = Callable[[int], None]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Resize]]:
    """A mounted tmpfs, and what changes its size in bytes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    place = tmp_path / "disk"
    place.mkdir()

    def resize(size: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)

    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield place, resize
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_disk_full_during_a_checkpoint(
    small_disk: tuple[Path, Resize], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    place, resize = small_disk
    cfg = replace(LONG, checkpoint_every=2)
    undisturbed, _ = trained(tiny_one_stage(), cfg, tmp_path / "elsewhere")
    size = max(path.stat().st_size for path in (tmp_path / "elsewhere").iterdir())
    for room in (size // 2, size + size // 2):  # not even the first fits; the second does not
        resize(room)
        with pytest.raises(UserError, match=r"step-\d+\.pt: the disk is full\n  make room"):
            trained(tiny_one_stage(), cfg, place)
        found = sorted(path.name for path in place.iterdir())
        assert found == ([] if room < size else ["step-00000002.pt"])
        assert all(path.stat().st_size > 0.9 * size for path in place.iterdir())
    resize(4 * size)
    capsys.readouterr()
    weights, _ = trained(tiny_one_stage(), cfg, place)
    assert "goes on after step 2" in capsys.readouterr().out, "the checkpoint that was whole is not used"
    assert all(torch.equal(weights[name], value) for name, value in undisturbed.items())
    record(
        "Disk full during a checkpoint",
        "failed, and said so",
        "the checkpoint before is whole; with room a rerun ends in the same weights",
    )
