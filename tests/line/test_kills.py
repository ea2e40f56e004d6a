"""kill -9 of the flow, of dvc and of the stage's process, in each stage: nothing survives, and a rerun ends as if nothing was.

Every clone is killed once in every stage, at a random moment of the stage, and started again each time; so the last run stands on
whatever six kills have left. In CI the victims take turns; nightly each is killed in all stages.
"""

import itertools
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable

import psutil
import pytest
import yaml

from pipeline.files import digest_tree
from tests.line.conftest import SETTINGS, STAGES, Clone

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500)]
PLACES = ("data/dataset", "data/validated", "models/detector", "models/quantized", "models/onnx")
METRICS = tuple(f"reports/{stage}/metrics.json" for stage in STAGES)
COMMANDS = {"flow": ("flows.line",), "dvc": ("dvc", "repro"), "stage": ("dvc", "repro")}
"""What is started, by what is killed."""
KILLED = {"flow": "the flow", "dvc": "dvc", "stage": "the stage's process"}


TURNS = [pytest.param(tuple(COMMANDS), id="turns")]
ALONE = [pytest.param((victim,), id=victim, marks=pytest.mark.nightly) for victim in COMMANDS]


@pytest.mark.parametrize("victims", TURNS + ALONE)
def test_killed_in_every_stage_it_ends_the_same(
    victims: tuple[str, ...],
    by_flow: tuple[Clone, str],
    clone: Callable[[str], Clone],
    note: Callable[[str, str, str], None],
) -> None:
    undisturbed, _ = by_flow
    name = "_".join(victims)
    made, chance = clone(f"killed_{name}"), random.Random(os.environ.get("DETECTLINE_TEST_SEED", name))
    log = made.home / "log"
    made.run("pipeline", "config", *SETTINGS)
    for stage, victim in zip(STAGES, itertools.cycle(victims), strict=False):
        started = made.start(log, *COMMANDS[victim])
        wait_for(lambda stage=stage, started=started: processes_of(made, stage) or started.poll() is not None, 240, log.read_text)
        target, family = processes_of(made, stage), set(made.processes())
        assert target, f"no process of {stage}\n{log.read_text()}"
        time.sleep(chance.uniform(0, 0.5) * seconds(undisturbed, stage))
        os.kill(started.pid if victim in ("flow", "dvc") else min(target), signal.SIGKILL)
        assert started.wait(180) != 0
        # the recorder of MLflow marks its run as killed first; a loader's workers look for their parent every five seconds
        wait_for(lambda: not made.processes(), 30, lambda stage=stage: f"{stage}: still there: {made.processes()}")
        # to DVC a process that nobody has reaped still holds its locks; our flow looks closer, `dvc repro` does not
        wait_for(lambda family=family: not any(map(psutil.pid_exists, family)), 30, "the system's first process reaps no orphans")
        for place in (*PLACES, *METRICS):  # there as a whole, or not there
            if (made.folder / place).exists():
                assert digest_tree(made.folder / place) == digest_tree(undisturbed.folder / place), (stage, place)
    made.run(*COMMANDS[victims[0]])
    for place in (*PLACES, *METRICS):
        assert digest_tree(made.folder / place) == digest_tree(undisturbed.folder / place), place
    assert "up to date" in made.run("dvc", "status")
    assert not [path for path in made.folder.rglob("*") if re.fullmatch(r"\..*\.(new|old|tmp)", path.name)]
    assert "Traceback" not in (said := log.read_text()), said
    note(
        f"SIGKILL at a random moment of each stage: {' and '.join(KILLED[victim] for victim in victims)}",
        "ends, and with it every process that it started; results are there as a whole or not there",
        "completes; results and metrics have the same bytes as undisturbed, `dvc status` is clean",
    )


def processes_of(made: Clone, stage: str) -> list[int]:
    """The processes that run `stage`, once they are Python."""
    return [pid for pid, command in made.processes().items() if re.search(rf"python\S* -m pipeline {stage}$", command)]


def seconds(made: Clone, stage: str) -> float:
    """How long `stage` took."""
    return float(json.loads((made.folder / f"reports/{stage}/timing.json").read_text())[f"{stage}/seconds"])


def wait_for(happened: Callable[[], object], seconds: float, otherwise: str | Callable[[], str]) -> object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := happened():
            return found
        time.sleep(0.05)
    raise AssertionError(otherwise if isinstance(otherwise, str) else otherwise())


def test_two_flows_at_once_in_one_checkout(
    by_flow: tuple[Clone, str], warm: Callable[[str], Clone], note: Callable[[str, str, str], None]
) -> None:
    """Quantize and export are to be done: one flow does it, the other waits and finds nothing to do."""
    undisturbed, _ = by_flow
    made = warm("together")
    shutil.rmtree(made.folder / ".dvc/cache/runs")
    record = yaml.safe_load((made.folder / "dvc.lock").read_text())
    for stage in ("quantize", "export"):
        del record["stages"][stage]
    (made.folder / "dvc.lock").write_text(yaml.safe_dump(record, sort_keys=False))
    logs = [made.home / f"{name}.log" for name in ("first", "second")]
    started = [made.start(log, "flows.line") for log in logs]
    said = [log.read_text() for log, one in zip(logs, started, strict=True) if one.wait(600) is not None]
    assert [one.returncode for one in started] == [0, 0], said
    waited = [("waits for it to end" in text, "nothing to do" in text) for text in said]
    assert sorted(waited) == [(False, False), (True, True)], said
    for place in (*PLACES, *METRICS):
        assert digest_tree(made.folder / place) == digest_tree(undisturbed.folder / place), place
    assert "up to date" in made.run("dvc", "status")
    note(
        "Two flows started at once in one checkout",
        "one works, the other waits for it and then finds nothing to do; both complete",
        "nothing to do; the same bytes as undisturbed",
    )
