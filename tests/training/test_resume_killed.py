"""Training as a real process, killed at random moments and started again, ends to the byte like an undisturbed run."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

STEPS, EVERY = 60, 4
SETTINGS = (
    "model=faster_rcnn_tiny",
    "dataset.size=64",
    "dataset.train=32",
    "dataset.val=8",
    f"train.steps={STEPS}",
    f"train.checkpoint_every={EVERY}",
    "train.log_every=1",
    "train.validate_every=25",
    "train.ema=0.95",
    "compute.threads=1",
    "compute.workers=1",
    "tracking=off",
)
PROGRESS = re.compile(r"train (\d+)/")


class Checkout:
    """A copy of the code, its data made, and `python -m pipeline train` in it with every process marked."""

    def __init__(self, root: Path, folder: Path, processes: int) -> None:
        self.folder, self.mark = folder, f"detectline-test-{uuid.uuid4().hex}"
        self.settings = (*SETTINGS, f"compute.processes={processes}")
        for name in ("conf", "pipeline", "ops_cuda"):
            shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(root / "params.yaml", folder)
        for stage in ("ingest", "validate"):
            subprocess.run(self.command(stage), cwd=folder, check=True, capture_output=True, timeout=200)

    def command(self, stage: str) -> list[str]:
        return [sys.executable, "-m", "pipeline", stage, *self.settings]

    def train(self, kill_at: int | None = None, pause: float = 0.0, fails: bool = False) -> str:
        """The output of one start, which is killed `pause` seconds after it reports step `kill_at`, or fails by itself."""
        environment = os.environ | {"PYTHONUNBUFFERED": "1", "MARK": self.mark}
        process = subprocess.Popen(
            self.command("train"), cwd=self.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            done = PROGRESS.match(line)
            if kill_at is not None and done and int(done[1]) >= kill_at:
                time.sleep(pause)
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.close()
        code = process.wait(200)
        output = "".join(lines)
        assert code == (int(fails) if kill_at is None else -signal.SIGKILL), output
        assert self.survivors(within=10) == []
        return output

    def survivors(self, within: float) -> list[str]:
        """Command lines of the processes that this checkout's training has left, once `within` seconds have passed."""
        deadline = time.monotonic() + within
        while (left := self._marked()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return left

    def _marked(self) -> list[str]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("MARK") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline()))
            except psutil.Error:
                continue  # gone meanwhile, or another user's
        return found

    def results(self) -> dict[str, bytes]:
        """The bytes that training leaves."""
        paths = [*sorted((self.folder / "models/detector").iterdir()), self.folder / "reports/train/metrics.json"]
        return {path.name: path.read_bytes() for path in paths}

    def forget(self) -> None:
        """Remove the results."""
        shutil.rmtree(self.folder / "models")
        shutil.rmtree(self.folder / "reports/train")


@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_a_run_killed_three_times_ends_like_an_undisturbed_one(
    processes: int, root: Path, tmp_path: Path, note: Callable[[str, str, str], None]
) -> None:
    chance = random.Random(os.environ.get("DETECTLINE_TEST_SEED"))
    checkout = Checkout(root, tmp_path, processes)
    checkout.train()
    undisturbed = checkout.results()
    assert set(undisturbed) == {"weights.safetensors", "model.json", "training.json", "pictures.json", "metrics.json"}
    assert not list((tmp_path / "work/train").glob("*/step-*"))
    checkout.forget()
    for third in range(3):
        kill_at, pause = 20 * third + chance.randint(EVERY + 1, 13), chance.random() / 4
        print(f"killed {pause:.3f} s after step {kill_at}")
        output = checkout.train(kill_at, pause)
        assert ("goes on after step" in output) == (third > 0), output
        assert not (tmp_path / "models/detector").exists()
        assert 1 <= len(list((tmp_path / "work/train").glob("*/step-*.pt"))) <= 2
    newest = max((tmp_path / "work/train").glob("*/step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1000])  # damaged: the one before takes its place
    output = checkout.train()
    assert f"{newest.name} is damaged and left out" in output and "goes on after step" in output
    assert checkout.results() == undisturbed
    assert not list((tmp_path / "work/train").glob("*/step-*"))
    note(
        f"SIGKILL of a training with {processes} ranks at random steps; the newest checkpoint damaged",
        "ends, and with it every rank and worker; at most two checkpoints, both whole or named as damaged",
        "goes on from the last whole checkpoint; the same bytes as undisturbed",
    )
