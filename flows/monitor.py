"""Monitoring as a Prefect flow: `python -m pipeline monitor` on a folder of new pictures, on a schedule.

`python -m flows.monitor PICTURES [overrides]` runs it here; the deployment `monitor/monitor` of prefect.yaml does elsewhere, with
the parameter `pictures`. Exit 0 without drift, 3 with; else as the command. A run that finds drift is completed too, and says so:
the alarm is an event (`monitor.emit`), not a failure.
"""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).absolute().parent.parent))  # run from a checkout, never installed

from pipeline.quiet import be_offline

be_offline()  # before Prefect reads the environment

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from flows.command import as_command
from flows.repro import CHECKOUT, cause, child_environment
from pipeline.layout import Layout
from pipeline.markdown import table, text
from pipeline.process import run_streamed

DRIFT = 3
USAGE = """usage: python -m flows.monitor PICTURES [overrides]

Compares the pictures of the folder PICTURES with validation pictures, as a Prefect flow: python -m pipeline monitor --help"""


@flow(name="monitor", persist_result=False)
def monitor(pictures: str, overrides: list[str] | None = None) -> State[Any]:
    """Whether the pictures of the folder `pictures` differ from what the detector knows, beyond chance.

    The run is completed in both cases; its state's message, and the artifact `drift`, say which.
    """
    logger = get_run_logger()
    command = [sys.executable, "-m", "pipeline", "monitor", pictures, *(overrides or [])]
    ended = run_streamed(command, logger.info, env=child_environment(api_of_this_run()), cwd=CHECKOUT)
    if ended.code not in (0, DRIFT):
        return Failed(message=cause("monitor", ended).message)
    found = json.loads((Layout(CHECKOUT).reports("monitor") / "monitor.json").read_bytes())
    create_markdown_artifact(markdown(found), key="drift", description="New pictures against held-out ones")
    return Completed(message=found["outcome"], name="Drift" if found["drift"] else "Completed", data=found["drift"])


def api_of_this_run() -> dict[str, str]:
    """The child's events go where this run's do."""
    url = PREFECT_API_URL.value()
    return {"PREFECT_API_URL": url} if url and "PREFECT_API_URL" not in os.environ else {}


def markdown(found: dict[str, Any]) -> str:
    """What monitor.json says, as a page for Prefect."""
    rows = [
        [
            one["name"],
            f"{one['p']:.4g}",
            f"{one['adjusted']:.4g}",
            f"{one['effect']:.2f}",
            "drift" if one["drifted"] else "no alarm",
        ]
        for one in found["statistics"]
    ]
    unreadable = found["pictures"]["unreadable"]
    lines = [f"# {'Drift' if found['drift'] else 'No drift'}", "", text(found["outcome"]), ""]
    lines += [table(["statistic", "p", "corrected p", "effect", "verdict"], rows), "", "Page: `reports/monitor/index.html`"]
    return "\n".join([*lines, *(f"- left out: {text(wrong)}" for wrong in unreadable)])


def main(arguments: Sequence[str]) -> int:
    """Run the flow in this process; returns the exit status."""
    if {"-h", "--help"} & set(arguments) or not arguments:
        print(USAGE)
        return 0 if arguments else 2
    return as_command(lambda: None, lambda: run_here(arguments[0], list(arguments[1:])))


def run_here(pictures: str, overrides: list[str]) -> int:
    """One comparison, and its last words; the exit status."""
    state = monitor(pictures, overrides, return_state=True)
    if not state.is_completed():
        print(f"\n{state.message or state.name}", file=sys.stderr)
        return 1
    print(f"\n{state.message}")
    return DRIFT if state.name == "Drift" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
