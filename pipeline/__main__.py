"""python -m pipeline COMMAND [overrides]: run one stage of the line, or a command beside it.

Exit 0 when it went well; 1 with one message when it did not; 2 when a setting is wrong; 3 when `monitor` finds drift. `-v`
shows the traceback.
"""

import importlib
import os
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import did_you_mean, for_user
from pipeline.process import die_with_parent
from pipeline.quiet import be_offline

STAGES = ("ingest", "validate", "train", "evaluate", "quantize", "export")
COMMANDS = {
    "config": "write params.yaml from conf/ and overrides; --check fails when it is stale, --source lists a remote source anew",
    "advise": "what to train on this dataset, with reasons and the overrides to copy",
    "suspects": "labels that the detector contradicts: overlooked, badly located, of the wrong class",
    "champion": "which detector is in service; with --fetch also its files",
    "promote": "hold models/onnx against the champion; it takes its place when every rule of retrain.* holds",
    "rollback": "put the champion before the present one back; why=TEXT goes into the audit log",
    "notify": "tell Prefect that the dataset changed, so that the retraining runs",
    "monitor": "whether new pictures differ from what the detector knows; exit 3 when they do; --help says how",
    "zoo": "a public Detectron2 YAML config as a file of conf/model",
    "convert": "labels and pictures of one format as another, and what that loses; --help lists the formats",
    "predict": "run the exported detector on pictures; --help lists its options",
}
EXPLAIN_THEMSELVES = ("convert", "monitor", "predict")
"""Commands with options of their own."""
USAGE = f"""usage: python -m pipeline COMMAND [overrides] [-v]

stages, in order (settings from params.yaml; with overrides such as train.steps=500 from conf/):
  {"  ".join(STAGES)}

commands:
{chr(10).join(f"  {name:<9} {does}" for name, does in COMMANDS.items())}
"""


def main(arguments: Sequence[str]) -> int:
    """Dispatch one command line; returns the exit code."""
    be_offline()
    verbose = "-v" in arguments
    words = [word for word in arguments if word != "-v"]
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if words else 2
    command, rest = words[0], words[1:]
    if command in STAGES:
        die_with_dvc()
    try:
        asks = {"-h", "--help"} & set(rest)
        if command in STAGES and asks:
            print(f"usage: python -m pipeline {command} [overrides] [-v]\n\nA stage; dvc.yaml has what it reads and makes.")
        elif command in STAGES:
            run_stage(command, rest)
        elif command in COMMANDS:
            if asks and command not in EXPLAIN_THEMSELVES:
                print(help_of(command))
                return 0
            status = importlib.import_module(f"pipeline.commands.{command}").run(rest)
            return int(status or 0)
        else:
            print(f"{command!r} is no command. {did_you_mean(command, (*STAGES, *COMMANDS))}", file=sys.stderr)
            return 2
    except Exception as error:
        known = for_user(error)
        if known is None:
            raise
        if verbose:
            traceback.print_exc()
        print(known, file=sys.stderr)
        return known.exit_code
    except KeyboardInterrupt:
        print(f"{command}: interrupted; nothing was left half-written", file=sys.stderr)
        return 130
    return 0


def help_of(command: str) -> str:
    """What a command's module says of itself."""
    usage, _, rest = (importlib.import_module(f"pipeline.commands.{command}").__doc__ or "").partition(": ")
    return f"usage: {usage}\n\n{rest[:1].upper()}{rest[1:]}".strip()


def die_with_dvc() -> None:
    """Tie a stage to the process that started it, before anything slow: a kill of DVC must not leave its stage behind.

    A stage of DVC that finds itself a child of the first process was left already: DVC is nobody's init.
    """
    die_with_parent()
    if "DVC_STAGE" in os.environ and os.getppid() == 1 and b"dvc" not in Path("/proc/1/cmdline").read_bytes():
        os._exit(1)


def run_stage(stage: str, overrides: Sequence[str]) -> None:
    """One stage under its lock, with its figures in MLflow and its duration in reports/<stage>/timing.json."""
    from pipeline import settings, tracking
    from pipeline.files import locked, read_json, write_json
    from pipeline.layout import TIMING, Layout

    layout = Layout(Path("."))
    config = settings.load(overrides, layout.root)
    stage_config = settings.stage_config(stage, config, layout)
    busy = f"{stage}: another process is running this stage in this checkout; wait for it, or stop it"
    shared_out = stage == "train" and config.compute.nodes > 1
    with locked(layout.work(stage) / "lock", busy), tracking.stage_run(stage, config, layout, shared_out):
        timing = layout.reports(stage) / TIMING
        timing.unlink(missing_ok=True)  # of an earlier run; a stage may write times of its own into it
        began = time.monotonic()
        importlib.import_module(f"pipeline.stages.{stage}").run(stage_config)
        seconds = round(time.monotonic() - began, 3)
        write_json(timing, {**(read_json(timing) if timing.exists() else {}), f"{stage}/seconds": seconds})  # type: ignore[dict-item]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
