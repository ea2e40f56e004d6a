"""kill -9 of the flow, of dvc and of the stage's process, in each stage: nothing survives, and a rerun ends as if nothing was.

Every clone is killed once in every stage, at a random moment of the stage, and started again each time; so the last run stands on
whatever six kills have left. In CI the victims take turns; nightly each is killed in all stages.
"""

import itertools
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable

import pytest

from pipeline.files import digest_tree
from tests.line.conftest import SETTINGS, STAGES, Clone

pytestmark = [pytest.mark.faults, pytest.mark.timeout(1500)]
PLACES = ("data/dataset", "data/validated", "models/detector", "models/quantized", "models/onnx")
METRICS = tuple(f"reports/{stage}/metrics.json" for stage in STAGES)
COMMANDS = {"flow": ("flows.line",), "dvc": ("dvc", "repro"), "stage": ("dvc", "repro")}
"""What is started, by what is killed."""


TURNS = [pytest.param(tuple(COMMANDS), id="turns")]
ALONE = [pytest.param((victim,), id=victim, marks=pytest.mark.nightly) for victim in COMMANDS]


@pytest.mark.parametrize("victims", TURNS + ALONE)
def test_killed_in_every_stage_it_ends_the_same(
    victims: tuple[str, ...], by_flow: tuple[Clone, str], clone: Callable[[str], Clone]
) -> None:
    undisturbed, _ = by_flow
    name = "_".join(victims)
    made, chance = clone(f"killed_{name}"), random.Random(os.environ.get("DETECTLINE_TEST_SEED", name))
    log = made.home / "log"
    made.run("pipeline", "config", *SETTINGS)
    for stage, victim in zip(STAGES, itertools.cycle(victims), strict=False):
        started = made.start(log, *COMMANDS[victim])
        target = wait_for(lambda stage=stage: processes_of(made, stage), 240, f"no process of {stage}\n{log.read_text()}")
        time.sleep(chance.uniform(0, 0.5) * seconds(undisturbed, stage))
        os.kill(started.pid if victim in ("flow", "dvc") else min(target), signal.SIGKILL)
        assert started.wait(180) != 0
        # the recorder of MLflow marks its run as killed first; a loader's workers look for their parent every five seconds
        wait_for(lambda: not made.processes(), 30, lambda stage=stage: f"{stage}: still there: {made.processes()}")
        for place in (*PLACES, *METRICS):  # there as a whole, or not there
            if (made.folder / place).exists():
                assert digest_tree(made.folder / place) == digest_tree(undisturbed.folder / place), (stage, place)
    made.run(*COMMANDS[victims[0]])
    for place in (*PLACES, *METRICS):
        assert digest_tree(made.folder / place) == digest_tree(undisturbed.folder / place), place
    assert "up to date" in made.run("dvc", "status")
    assert not [path for path in made.folder.rglob("*") if re.fullmatch(r"\..*\.(new|old|tmp)", path.name)]
    assert "Traceback" not in (said := log.read_text()), said


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
