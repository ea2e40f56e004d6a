"""Retraining as a Prefect flow: new data in, a challenger trained, held against the champion, promoted only by the rules.

`python -m flows.retrain [overrides]` runs it here; deployments (prefect.yaml) run it by cron, by the events `dataset.changed` and
`dataset.drifted`, or by hand. A run that finds no new data, and one whose challenger is refused, complete and say so; the next
one on the same data does not train and compare it again.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))  # run from a checkout, never installed

from pipeline.quiet import be_offline

be_offline()  # before Prefect reads the environment

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.command import as_command
from flows.line import bring_up_to_date, own_settings, run_line, workspace
from flows.repro import CHECKOUT, cause, child_environment
from flows.workspace import Workspace, discard, require_source
from pipeline import settings
from pipeline.errors import ConfigError, UserError
from pipeline.files import digest_bytes, read_json, write_json
from pipeline.layout import Layout, home
from pipeline.overrides import as_text
from pipeline.process import run_streamed
from pipeline.promotion.markdown import decision_markdown

USAGE = """usage: python -m flows.retrain [overrides]

Ingests and checks the data; when it is not what the champion was trained on, trains a challenger, exports it, and holds it
against the champion by the rules of retrain.* (conf/retrain). What was refused is tried again when data, settings or champion
changed, or with retrain.force=true. With overrides it works in a git worktree of its own."""


@flow(name="retrain", persist_result=False)
def retrain(overrides: list[str] | None = None, why: str = "by hand") -> State[Any]:
    """New data to a new champion, or to the reasons why not. `why` says what started it, for the log."""
    try:
        get_run_logger().info("retraining: %s", why)
        words = list(overrides or [])
        known = ask("champion", words, CHECKOUT)
        champion = json.loads(known[-1])
        chosen = chosen_settings(words)
        if champion is not None and chosen.retrain.start == "champion":
            fetched = json.loads(ask("champion", [*words, "--fetch"], CHECKOUT)[-1])
            words.append(f"model.weights={as_text(fetched['folder'] + '/weights.safetensors')}")
        with workspace(words) as place:
            return retrain_in(place, champion)
    except UserError as error:
        return Failed(message=str(error))  # an exception would come with Prefect's stack trace


def chosen_settings(words: Sequence[str]) -> settings.Settings:
    """The settings that the run will have. ConfigError where nothing can be promoted by them."""
    chosen = settings.check(settings.compose(settings.on_top(words, CHECKOUT), CHECKOUT)) if words else own_settings()
    if not chosen.tracking.enabled:
        raise ConfigError("tracking.enabled", False, "leaves no registry to promote in; use tracking=sqlite or tracking=server")
    return chosen


def retrain_in(place: Workspace, champion: dict[str, str] | None) -> State[Any]:
    """Ingest, check, and only with new data the rest."""
    for stage in ("settings", "ingest", "validate"):
        bring_up_to_date(stage, place, None)
    layout = Layout(place.root)
    content = read_json(layout.validated / "dataset.json")
    digest = str(content["digest"]) if isinstance(content, dict) else ""
    if champion is not None and champion.get("validated.digest") == digest and not place.config.retrain.force:
        told = f"no new data since the champion (version {champion['version']}) was trained: digest {digest}"
        return nothing_new(place, told)
    before = outcome_file(place, champion)
    if before.exists() and not place.config.retrain.force:
        kept = read_json(before)
        told = kept["message"] if isinstance(kept, dict) else ""
        told = f"the same data, settings and champion as before, and the answer then was: {told}\n  retrain.force=true asks again"
        return nothing_new(place, told)
    run_line(place)
    report = layout.reports("retrain") / "decision.json"
    report.unlink(missing_ok=True)
    told = ask("promote", [], place.root)[-1]
    if not report.exists():
        write_json(before, {"message": told})
        return Completed(name="NothingNew", message=told)
    decision = read_json(report)
    assert isinstance(decision, dict)
    if not decision["promoted"]:
        write_json(before, {"message": told})
    create_markdown_artifact(
        decision_markdown(decision), key="decision", description="The challenger against the champion, by the rules"
    )
    get_run_logger().info(told)
    return Completed(name="Promoted" if decision["promoted"] else "Refused", message=told)


def nothing_new(place: Workspace, told: str) -> State[Any]:
    """The end of a run that had nothing to train; a worktree of its own goes: triggers would pile them up."""
    get_run_logger().info(told)
    discard(place, CHECKOUT)
    return Completed(name="NothingNew", message=told)


def outcome_file(place: Workspace, champion: dict[str, str] | None) -> Path:
    """Where a checkout keeps that a challenger was not promoted, by all that the answer depends on.

    That is: the checked data, the settings of the stages and of the rules, the code, and the champion.
    """
    layout, config = Layout(place.root), place.config
    data = [layout.validated / "dataset.json"]  # with a digest of labels and pictures
    stages = ("train", "evaluate", "quantize", "export")
    parts = [settings.stage_config(stage, config, layout).digest(data) for stage in stages]
    parts += [
        json.dumps(asdict(replace(config.retrain, force=False)), sort_keys=True),
        config.tracking.uri,
        config.tracking.model,
    ]
    parts += [champion["version"], champion.get("digest", "")] if champion is not None else []
    return Layout(home(place.root)).work("retrain") / f"{digest_bytes('|'.join(parts).encode())}.json"


def ask(command: str, words: Sequence[str], root: Path) -> list[str]:
    """What `python -m pipeline COMMAND` prints, its lines in the log as they come. UserError in its words when it fails.

    What it says on standard error, a warning of a library for example, is logged and is no answer.
    """
    lines: list[str] = []
    as_json = ["--json"] if command == "champion" else []

    def log(line: str) -> None:
        lines.append(line)
        if not as_json:
            get_run_logger().info(line)

    ended = run_streamed([sys.executable, "-m", "pipeline", command, *as_json, *words], log, env=child_environment({}), cwd=root)
    said = [line for line in lines if line not in ended.errors]
    if ended.code != 0 or not said:
        raise UserError(cause(command, ended).message)
    return said


def main(arguments: Sequence[str]) -> int:
    """Run the flow in this process; returns the exit status: 0 also where nothing was new or the challenger was refused."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE)
        return 0
    words = list(arguments)

    def check() -> None:
        chosen = settings.check(settings.compose(settings.on_top(words, CHECKOUT), CHECKOUT))
        require_source(chosen.dataset.source, CHECKOUT)

    return as_command(check, lambda: run_here(words))


def run_here(words: list[str]) -> int:
    """One run of the flow, and its last words; the exit status."""
    state = retrain(words, return_state=True)
    good = state.is_completed()
    print(f"\n{state.name}: {state.message}", file=sys.stdout if good else sys.stderr, flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
