"""The flow's own decisions, without Prefect's server: what the command's exit status means, and what is shown."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from prefect.states import State

from flows import monitor as flow
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.process import Ended

FOUND = {
    "drift": True,
    "outcome": "drift in scores: 24 new pictures",
    "statistics": [{"name": "scores", "p": 0.0001, "adjusted": 0.0008, "effect": 0.5, "drifted": True}],
    "pictures": {"unreadable": ["a|b.png: broken"]},
}
Ran = Callable[..., State]


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ran:
    """`ran(code, errors, found)`: the state of a flow whose command ends so; it keeps `artifacts` and `commands`."""

    def go(code: int, errors: tuple[str, ...] = (), found: dict | None = None) -> State:
        def command(words: list[str], *_: object, **__: object) -> Ended:
            go.commands.append(words)
            return Ended(code, errors)

        if found is not None:
            write_json(Layout(tmp_path).reports("monitor") / "monitor.json", found)
        monkeypatch.setattr(flow, "run_streamed", command)
        return flow.monitor.fn("new pictures", ["monitor.emit=true"])

    go.artifacts, go.commands = [], []
    monkeypatch.setattr(flow, "CHECKOUT", tmp_path)
    monkeypatch.setattr(flow, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(flow, "create_markdown_artifact", lambda text, **_: go.artifacts.append(text))
    return go


def test_drift_is_a_completed_run_that_says_so(ran: Ran) -> None:
    state = ran(3, found=FOUND)
    assert state.is_completed() and state.name == "Drift" and state.message == FOUND["outcome"]
    assert ran.commands[0][-4:] == ["pipeline", "monitor", "new pictures", "monitor.emit=true"]
    [page] = ran.artifacts
    assert "| scores | 0.0001 | 0.0008 | 0.50 | drift |" in page and "a\\|b.png" in page


def test_no_drift_is_a_plain_completed_run(ran: Ran) -> None:
    state = ran(0, found=FOUND | {"drift": False, "outcome": "no drift"})
    assert state.is_completed() and state.name == "Completed" and "# No drift" in ran.artifacts[0]


def test_a_mistake_fails_in_the_words_of_the_command(ran: Ran) -> None:
    """An old monitor.json must not stand in for the run that failed."""
    state = ran(1, ("new pictures: no such folder", "  name the folder"), found=FOUND)
    assert state.is_failed() and state.message == "new pictures: no such folder\n  name the folder" and not ran.artifacts


def test_the_deployment_names_the_flow_its_parameters_and_a_paused_schedule(root: Path) -> None:
    deployments = yaml.safe_load((root / "prefect.yaml").read_text())["deployments"]
    [own] = [one for one in deployments if one["entrypoint"] == "flows/monitor.py:monitor"]
    assert own["parameters"].keys() == flow.monitor.fn.__annotations__.keys() - {"return"}
    assert [schedule["active"] for schedule in own["schedules"]] == [False]
