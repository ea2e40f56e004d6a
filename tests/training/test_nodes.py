"""Training on two machines, each a network namespace with a checkout of its own; they share nothing but a cable between them."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

STEPS, EVERY = 24, 3
SETTINGS = (
    "model=faster_rcnn_tiny",
    "dataset.size=64",
    "dataset.train=16",
    "dataset.val=4",
    f"train.steps={STEPS}",
    f"train.checkpoint_every={EVERY}",
    "train.log_every=1",
    "train.validate_every=0",
    "train.ema=0.95",
    "compute.threads=1",
    "compute.workers=0",
    "compute=nodes",
    "compute.device=cpu",
    "compute.processes=1",
    "compute.nodes=2",
)
PROGRESS = re.compile(r"train (\d+)/")
SECONDS = 200


class Machine:
    """A network namespace and a checkout in it."""

    def __init__(self, name: str, address: str, folder: Path) -> None:
        self.name, self.address, self.folder = f"dl{os.getpid()}{name}", address, folder
        self.interface = f"v{os.getpid()}{name}"

    def start(self, meeting: str, *more: str) -> "Run":
        """`python -m pipeline train` on it, its output in a file."""
        return Run(self, [*SETTINGS, f"compute.rendezvous={meeting}", *more])

    def kill(self) -> None:
        """Every process on it, at once."""
        pids = subprocess.run(["ip", "netns", "pids", self.name], check=True, capture_output=True, text=True).stdout.split()
        assert pids, "it runs nothing"
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)

    def results(self) -> dict[str, bytes]:
        """The bytes that training leaves."""
        paths = [*sorted((self.folder / "models/detector").iterdir()), self.folder / "reports/train/metrics.json"]
        return {path.name: path.read_bytes() for path in paths}

    def checkpoints(self) -> list[str]:
        """Names of the checkpoints on it."""
        return sorted(path.name for path in (self.folder / "work/train").glob("*/step-*.pt"))


class Run:
    """One start of training on one machine."""

    def __init__(self, machine: Machine, settings: list[str]) -> None:
        self.output = ""
        words = ["ip", "netns", "exec", machine.name, sys.executable, "-m", "pipeline", "train", *settings]
        self.process = subprocess.Popen(
            words,
            cwd=machine.folder,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def until(self, step: int) -> None:
        """Return when it reports that step."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if (done := PROGRESS.match(line)) and int(done[1]) >= step:
                return
        pytest.fail(f"it ended before step {step}:\n{self.output}")

    def end(self, code: int) -> str:
        """All of its output, once it has ended with this status."""
        self.output += self.process.communicate(timeout=SECONDS)[0]
        assert self.process.returncode == code, self.output
        return self.output


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def machines(root: Path, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two, with a cable between them and the same data on both."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and the ip command")
    one, two = Machine("a", "10.213.7.1", tmp_path / "one"), Machine("b", "10.213.7.2", tmp_path / "two")
    for name in ("conf", "pipeline", "ops_cuda"):
        shutil.copytree(root / name, one.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "params.yaml", one.folder)
    for stage in ("ingest", "validate"):
        words = [sys.executable, "-m", "pipeline", stage, *SETTINGS, "tracking=off"]
        subprocess.run(words, cwd=one.folder, check=True, capture_output=True, timeout=SECONDS)
    shutil.copytree(one.folder, two.folder)
    try:
        ip("netns", "add", one.name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces are not allowed here: {error.stderr.decode().strip()}")
    try:
        ip("netns", "add", two.name)
        ip("link", "add", one.interface, "netns", one.name, "type", "veth", "peer", "name", two.interface, "netns", two.name)
        for machine in (one, two):
            ip("-n", machine.name, "address", "add", f"{machine.address}/24", "dev", machine.interface)
            for interface in ("lo", machine.interface):
                ip("-n", machine.name, "link", "set", interface, "up")
        yield one, two
    finally:
        for machine in (one, two):
            found = subprocess.run(["ip", "netns", "pids", machine.name], check=False, capture_output=True, text=True)
            for pid in found.stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "delete", machine.name], check=False, capture_output=True)


@pytest.mark.faults
@pytest.mark.timeout(600)
def test_machines_that_are_killed_and_come_back_end_like_undisturbed_ones(
    machines: tuple[Machine, Machine], note: Callable[[str, str, str], None]
) -> None:
    one, two = machines
    meeting = f"{one.address}:29400"
    for run in [machine.start(meeting) for machine in machines]:
        run.end(0)
    undisturbed = one.results()
    assert two.results() == undisturbed  # each has what dvc.yaml says that train makes
    assert [(machine.folder / "mlflow.db").exists() for machine in machines].count(True) == 1  # no empty run on the other
    for machine in machines:
        assert machine.checkpoints() == []
        shutil.rmtree(machine.folder / "models")
        shutil.rmtree(machine.folder / "reports/train")

    # the second one dies, and the first one says so; both are started again
    runs = [machine.start(meeting, "tracking=off") for machine in machines]
    runs[0].until(EVERY + 2)
    two.kill()
    said = runs[0].end(1)
    assert "start the same command on every machine again" in said and "Traceback" not in said
    runs[1].end(-signal.SIGKILL)
    first = f"step-{EVERY:08d}.pt"
    assert first in one.checkpoints() and first in two.checkpoints()  # one of them may have the next already

    # the first one dies, where rank 0 and the meeting point are, and loses its disk
    runs = [machine.start(meeting, "tracking=off") for machine in machines]
    runs[0].until(3 * EVERY + 2)
    assert "goes on after step" in runs[0].output
    one.kill()
    runs[0].end(-signal.SIGKILL)
    runs[1].end(1)
    shutil.rmtree(one.folder / "work")
    assert two.checkpoints()[-1] >= f"step-{3 * EVERY:08d}.pt"

    runs = [machine.start(meeting, "tracking=off") for machine in machines]
    said = "".join(run.end(0) for run in runs)
    assert re.search(rf"goes on after step ({3 * EVERY}|{4 * EVERY})\b", said), said
    assert f"train {STEPS}/{STEPS}" in said
    assert one.results() == undisturbed and two.results() == undisturbed
    note(
        "A machine of a training on two is killed: the second, then the first with its disk",
        "the other one fails, says so and what to do",
        "goes on from the newest checkpoint that is left; the same bytes as undisturbed",
    )


@pytest.mark.faults
@pytest.mark.nightly  # 100 s
@pytest.mark.timeout(600)
def test_a_machine_that_vanished_is_replaced_by_another(machines: tuple[Machine, Machine]) -> None:
    """Power gone: no connection is closed, the first machine waits. Another one comes, at another address, with an empty disk."""
    one, two = machines
    meeting = f"{one.address}:29400"
    runs = [machine.start(meeting, "tracking=off") for machine in machines]
    runs[0].until(EVERY + 2)
    ip("-n", two.name, "link", "set", two.interface, "down")
    two.kill()
    runs[1].end(-signal.SIGKILL)
    assert runs[0].process.poll() is None
    shutil.rmtree(two.folder / "work")
    ip("-n", two.name, "address", "flush", "dev", two.interface)
    ip("-n", two.name, "address", "add", "10.213.7.3/24", "dev", two.interface)
    ip("-n", two.name, "link", "set", two.interface, "up")
    runs[1] = two.start(meeting, "tracking=off")
    said = [run.end(0) for run in runs]
    assert re.search(r"goes on after step \d", said[0]), said
    assert f"train {STEPS}/{STEPS}" in said[0]
    assert one.results() == two.results()
