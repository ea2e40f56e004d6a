"""The retraining's own decisions, without a server: when it ends early, how its state is called, who hears of new data."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows import line, retrain
from flows.workspace import Workspace
from pipeline import settings
from pipeline.errors import UserError
from pipeline.files import write_json
from pipeline.layout import Layout
from pipeline.process import Ended

RULE = {"name": "better", "holds": True, "figure": "AP +0.1", "limit": "above 0"}


class Steps:
    """Stands for the stages and the commands: notes them, and lets `promote` decide as it was told."""

    def __init__(self, layout: Layout, promoted: bool | None) -> None:
        self.layout, self.promoted, self.done = layout, promoted, list[str]()

    def stage(self, name: str, *_: object) -> None:
        self.done.append(name)

    def line(self, _: Workspace) -> None:
        self.done.append("line")

    def ask(self, command: str, *_: object) -> list[str]:
        self.done.append(command)
        if self.promoted is not None:
            decision = {"promoted": self.promoted, "detectors": ["challenger 4", "champion 3"], "rules": [RULE]}
            write_json(self.layout.reports("retrain") / "decision.json", decision)
        return ["the last line"]


def run(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    champion: dict[str, str] | None,
    promoted: bool | None,
    force: bool,
) -> tuple[Any, list[str], list[str]]:
    """The state, what was done, and the artifacts."""
    layout, shown = Layout(tmp_path), list[str]()
    write_json(layout.validated / "dataset.json", {"digest": "new"})
    write_json(layout.reports("retrain") / "decision.json", {"promoted": True, "detectors": ["of", "before"], "rules": []})
    chosen = settings.load([], root)
    place = Workspace(tmp_path, replace(chosen, retrain=replace(chosen.retrain, force=force)))
    steps = Steps(layout, promoted)
    monkeypatch.setattr(retrain, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(retrain, "bring_up_to_date", steps.stage)
    monkeypatch.setattr(retrain, "run_line", steps.line)
    monkeypatch.setattr(retrain, "ask", steps.ask)
    monkeypatch.setattr(retrain, "create_markdown_artifact", lambda text, **_: shown.append(text))
    return retrain.retrain_in(place, champion), steps.done, shown


OLD, NEW = {"version": "3", "validated.digest": "old"}, {"version": "3", "validated.digest": "new"}
CHECKED = ["settings", "ingest", "validate"]

COMPOSE = settings.compose


@pytest.mark.parametrize(
    "champion, promoted, force, name, done",
    [
        (NEW, None, False, "NothingNew", CHECKED),
        (NEW, False, True, "Refused", [*CHECKED, "line", "promote"]),
        (OLD, True, False, "Promoted", [*CHECKED, "line", "promote"]),
        (OLD, False, False, "Refused", [*CHECKED, "line", "promote"]),
        (None, True, False, "Promoted", [*CHECKED, "line", "promote"]),
        (OLD, None, False, "NothingNew", [*CHECKED, "line", "promote"]),  # the same detector came out; no old decision is shown
    ],
)
def test_what_a_run_does_and_how_it_ends(
    root, tmp_path, monkeypatch, champion: dict[str, str] | None, promoted: bool | None, force: bool, name: str, done: list[str]
) -> None:
    state, seen, shown = run(root, tmp_path, monkeypatch, champion, promoted, force)
    assert (state.type.value, state.name, seen) == ("COMPLETED", name, done)
    assert bool(shown) == (promoted is not None) and all("AP +0.1" in text for text in shown)
    assert state.message == (
        "the last line" if "promote" in done else "no new data since the champion (version 3) was trained: digest new"
    )


def test_what_was_refused_is_not_trained_again_until_something_changes(root, tmp_path, monkeypatch) -> None:
    def again(champion: dict[str, str] | None, force: bool = False, promoted: bool = False) -> tuple[str, str, bool]:
        state, seen, _ = run(root, tmp_path, monkeypatch, champion, promoted, force)
        return state.name, state.message, "line" in seen

    assert again(OLD) == ("Refused", "the last line", True)
    name, message, trained = again(OLD)
    assert (name, trained) == ("NothingNew", False)
    assert "the answer then was: the last line" in message and "retrain.force=true" in message
    assert again(OLD, force=True) == ("Refused", "the last line", True)
    assert again(OLD | {"version": "4"}) == ("Refused", "the last line", True)  # another champion to be held against
    assert again(None)[2] and not again(None)[2]
    for chosen in (settings.load(["train.steps=7"], root), settings.load(["retrain.margin=0.1"], root)):
        with monkeypatch.context() as patch:  # other settings of a stage, and of the rules
            patch.setattr(settings, "load", lambda *_, chosen=chosen: chosen)
            assert again(OLD)[2] and not again(OLD)[2]


def test_a_promoted_challenger_leaves_no_refusal(root, tmp_path, monkeypatch) -> None:
    assert run(root, tmp_path, monkeypatch, OLD, True, False)[0].name == "Promoted"
    assert not list(tmp_path.glob("work/retrain/*.json"))


def test_a_changed_dataset_is_told_and_a_deaf_server_costs_no_run(root, tmp_path, monkeypatch, caplog) -> None:
    layout, told = Layout(tmp_path), list[Any]()
    monkeypatch.setattr(line, "get_run_logger", lambda: logging.getLogger("test"))
    assert line.dataset_digest(layout) is None
    write_json(layout.dataset / "dataset.json", {"digest": "abc"})
    place = Workspace(tmp_path, settings.load([], root))
    monkeypatch.setattr(line, "emit", lambda *words: told.append(words))
    line.tell_of_change(place)
    assert [(event, resource, payload["digest"]) for event, resource, payload in told] == [
        ("dataset.changed", "detectline.dataset.shapes", "abc")
    ]

    def deaf(*_: object) -> None:
        raise UserError("nobody hears")

    monkeypatch.setattr(line, "emit", deaf)
    with caplog.at_level(logging.WARNING):
        line.tell_of_change(place)
    assert "nobody hears" in caplog.text


@pytest.mark.parametrize(
    "words, branch, before, told",
    [
        ([], None, None, False),  # data seen first: nothing changed
        ([], None, "abc", False),
        ([], None, "old", True),
        (["train.steps=7"], "runs/a", None, False),
        (["train.steps=7"], "runs/a", "abc", False),  # begins without data, and has the checkout's
        (["train.steps=7"], "runs/a", "old", True),  # on a schedule: the source has changed
        (["dataset.size=64"], "runs/a", "old", False),  # other data, by choice
        (["seed=7"], "runs/a", "old", False),
    ],
)
def test_only_data_that_changed_are_told_of(root, tmp_path, monkeypatch, words, branch, before, told: bool) -> None:
    checkout, heard = tmp_path / "checkout", list[Workspace]()
    place = tmp_path / "run" if branch else checkout
    monkeypatch.setattr(line, "CHECKOUT", checkout)
    monkeypatch.setattr(line.settings, "on_top", lambda more, _: list(more))
    monkeypatch.setattr(line.settings, "compose", lambda more, _: COMPOSE(more, root))
    if before:
        write_json(Layout(checkout).dataset / "dataset.json", {"digest": before})

    def ingested(stage: str, where: Workspace, run: object) -> str:
        if stage == "ingest":
            write_json(Layout(place).dataset / "dataset.json", {"digest": "abc"})
        return "ran"

    for name, stand_in in {
        "drop_broken_record": lambda _: None,
        "up_to_date": lambda _: False,
        "bring_up_to_date": ingested,
        "keep": lambda *_: "commit",
        "get_run_logger": lambda: logging.getLogger("test"),
        "tell_of_change": heard.append,
        "summarise": lambda *_, **__: Quiet(),
        "create_markdown_artifact": lambda *_, **__: None,
    }.items():
        monkeypatch.setattr(line, name, stand_in)
    line.run_line(Workspace(place, settings.load([*words, "tracking=off"], root), branch))
    assert len(heard) == told


class Quiet:
    """A summary with nothing in it."""

    findings = classes = ()

    def markdown(self) -> str:
        return ""


def test_without_tracking_nothing_can_be_promoted(root, monkeypatch, capsys) -> None:
    from pipeline.errors import ConfigError

    with pytest.raises(ConfigError, match="leaves no registry"):
        retrain.chosen_settings(["tracking=off"])
    assert retrain.main(["retrain.confidence=2"]) == 2
    assert "retrain.confidence" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["/work/champion/3-ab", "/my, sets/(a)=b/3-ab"])
def test_a_challenger_begins_with_the_champions_weights_wherever_the_checkout_lies(root, monkeypatch, place: str) -> None:
    words: list[list[str]] = []

    def stop(given: list[str]) -> None:
        words.append(given)
        raise UserError("far enough")

    monkeypatch.setattr(retrain, "get_run_logger", lambda: logging.getLogger("test"))
    monkeypatch.setattr(retrain, "ask", lambda *_: [json.dumps({"version": "3", "folder": place})])
    monkeypatch.setattr(retrain, "workspace", stop)
    assert retrain.retrain.fn(["retrain.start=champion"]).message == "far enough"
    [given] = words
    assert settings.check(settings.compose(given, root)).model.weights == f"{place}/weights.safetensors"


def test_the_deployments_listen_to_what_is_told(root) -> None:
    """The trigger's pattern and names are those that `emit` uses."""
    import fnmatch

    import yaml

    from pipeline.events import CHANGED, DRIFTED, RESOURCE

    deployments = {one["name"]: one for one in yaml.safe_load((root / "prefect.yaml").read_text())["deployments"]}
    (trigger,) = deployments["on-change"]["triggers"]
    assert set(trigger["expect"]) == {CHANGED, DRIFTED}
    assert fnmatch.fnmatch(f"{RESOURCE}shapes", trigger["match"]["prefect.resource.id"])
    assert [one["active"] for one in deployments["retrain"]["schedules"]] == [False]
    assert json.dumps(deployments["on-change"]["parameters"]["overrides"]) == "[]"


def test_what_a_library_says_on_standard_error_is_no_answer(root, monkeypatch) -> None:
    """The answer is the command's last line on standard output, whatever is said around it."""

    def command(_: object, log: Any, **__: object) -> Ended:
        for said in ("a warning", '{"version": "3"}', "another warning"):
            log(said)
        return Ended(0, ("a warning", "another warning"))

    monkeypatch.setattr(retrain, "run_streamed", command)
    monkeypatch.setattr(retrain, "get_run_logger", lambda: logging.getLogger("test"))
    assert retrain.ask("champion", [], root) == ['{"version": "3"}']
