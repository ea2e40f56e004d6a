"""Start the training processes of this machine by torchrun, and hear what they report. No torch: the processes import it.

A rank is `python -m pipeline.training.launch MODULE:FUNCTION FILE`: it runs FUNCTION(FILE). torchrun gives each rank a session of
its own, so each ties itself to torchrun's life before anything else; torchrun itself dies with the stage (pipeline/process.py).
What a rank reports is a line of JSON on its standard output behind a mark; all other lines are passed on as they are.
"""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError, for_user
from pipeline.process import die_with_parent, run_streamed
from pipeline.training.config import ComputeConfig
from pipeline.training.nodes import Place, place_of

_MARK = "\x1edetectline "
_TORCHRUN = "torch.distributed.run"
LATEST, SILENT = 1800, 300
"""Seconds that a machine waits for the others, which a cluster starts one by one, and for a word of the one where they meet."""
AGAIN = (
    "when a machine was lost, or did not come: start the same command on every machine again; training goes on from the newest "
    "checkpoint that any of them has"
)


class RankFailed(UserError):
    """A training process failed; the message is its own."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def launch(entry: str, settings: Path, compute: ComputeConfig, on_report: Callable[[dict[str, Any]], None]) -> None:
    """Run `entry` ("module:function") with the file `settings` in every process that `compute` asks for on this machine.

    Returns when all have ended well; `on_report` is given what they `report`. RankFailed has the message of the first that
    failed; the others are then gone.
    """
    failed: list[dict[str, Any]] = []
    place = place_of(compute.rendezvous) if compute.nodes > 1 else None

    def hear(line: str) -> None:
        if line.startswith(_MARK):
            said = json.loads(line.removeprefix(_MARK))
            (failed.append if "failed" in said else on_report)(said)
        elif not failed:  # torchrun's own account of the failure says nothing that the rank has not said
            print(line, flush=True)

    ended = run_streamed(torchrun(entry, settings, compute, place), hear, env=environment(compute, place))
    if ended.code != 0:
        # A rank that the failure of another one broke may be heard first: a message for the user outweighs the rest.
        told = sorted(failed, key=lambda said: ("lost" in said, "trace" in said))
        advice = f"\n  {AGAIN}" if place and (not told or "lost" in told[0] or "trace" in told[0]) else ""
        if not told:
            raise UserError(
                f"train: a training process was ended from outside, or crashed (status {ended.code}); see the lines above{advice}"
            )
        if "trace" in told[0]:
            print(told[0]["trace"], file=sys.stderr, flush=True)
        raise RankFailed(told[0]["failed"] + advice, told[0]["code"])


def report(values: Mapping[str, Any]) -> None:
    """Tell the stage something, from a rank: one short line, so that the ranks' lines do not mix."""
    sys.stdout.write(f"{_MARK}{json.dumps(values)}\n")
    sys.stdout.flush()


def torchrun(entry: str, settings: Path, compute: ComputeConfig, place: Place | None) -> list[str]:
    """The command that starts this machine's ranks; they meet on 127.0.0.1, or as one `place` where `compute.rendezvous` says."""
    words = [sys.executable, "-m", _TORCHRUN, f"--nnodes={compute.nodes}", f"--nproc-per-node={compute.processes or 'gpu'}"]
    if place is None:
        words += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"]
    else:
        words += ["--rdzv-backend=c10d", f"--rdzv-endpoint={compute.rendezvous}", "--rdzv-id=detectline"]
        patience = f"join_timeout={LATEST},read_timeout={SILENT}"
        words += [f"--local-addr={place.address}", f"--rdzv-conf=is_host={int(place.holds)},{patience}"]
    return [*words, "--max-restarts=0", "-m", "pipeline.training.launch", entry, str(settings)]


def environment(compute: ComputeConfig, place: Place | None) -> dict[str, str]:
    """The ranks' environment: the interface they talk by, and as many threads as each rank will use."""
    threads = str(compute.threads_each(max(1, compute.processes)))
    talk = {"GLOO_SOCKET_IFNAME": "lo" if place is None else os.environ.get("GLOO_SOCKET_IFNAME", place.interface)}
    if place is not None:
        # A store of its own for each round: in torchrun's, ranks that start anew would find the addresses of those before.
        talk["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    return {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1", **talk}


def lost(error: Exception) -> bool:
    """Whether the error is another process's end as this one sees it: a connection of torch's that broke."""
    return any(kind.__name__ == "DistError" for kind in type(error).__mro__) or "gloo" in str(error).lower()


def main(entry: str, settings: str) -> int:
    """Be a rank."""
    die_with_parent()
    if _TORCHRUN.encode() not in Path(f"/proc/{os.getppid()}/cmdline").read_bytes():
        return 1  # torchrun died while this process was starting
    module, _, function = entry.partition(":")
    try:
        getattr(importlib.import_module(module), function)(Path(settings))
    except Exception as error:
        if known := for_user(error):
            report({"failed": str(known), "code": known.exit_code})
        elif lost(error):
            report({"failed": f"train: the connection to another training process broke: {error}", "code": 1, "lost": True})
        else:
            report({"failed": f"{type(error).__name__}: {error}", "code": 1, "trace": traceback.format_exc()})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
