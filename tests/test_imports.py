"""What must start fast must not import torch: checked in a process in which torch and its like cannot be imported."""

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import CHECKOUT

BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "mlflow", "torchao", "onnxscript"):
            raise ImportError(f"{name} is blocked here")
sys.meta_path.insert(0, Blocked())
"""
CONFIGS = sorted(".".join(path.relative_to(CHECKOUT).with_suffix("").parts) for path in CHECKOUT.glob("pipeline/*/config.py"))
COMMANDS = ["pipeline.__main__", "pipeline.settings", "pipeline.tracking", "pipeline.process", "pipeline.commands.predict"]


def run_blocked(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, cwd=CHECKOUT, timeout=120)


def test_the_block_works():
    assert "torch is blocked here" in run_blocked("import torch").stderr


def test_command_line_and_every_config_start_without_torch():
    done = run_blocked("\n".join(f"import {name}" for name in (*COMMANDS, *CONFIGS)))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("flow", sorted(path.stem for path in Path(CHECKOUT / "flows").glob("*.py") if path.stem != "__init__"))
def test_flow_starts_without_torch(flow):
    done = run_blocked(f"import flows.{flow}")
    assert done.returncode == 0, done.stderr


def test_every_command_says_what_it_does(capsys):
    from pipeline.__main__ import COMMANDS, STAGES, main

    for command in (*STAGES, *COMMANDS):
        with contextlib.suppress(SystemExit):  # argparse
            assert main([command, "--help"]) == 0
        said = capsys.readouterr().out
        assert said.startswith("usage: ") and command in said.splitlines()[0] and len(said.splitlines()) > 2, (command, said)


def test_help_is_quick_to_import():
    """--help must not even load Hydra, Prefect or numpy."""
    heavy = "{'hydra', 'prefect', 'numpy', 'dvc'} & sys.modules.keys()"
    done = run_blocked(f"import pipeline.__main__ as m, sys; m.main(['--help']); print(sorted({heavy}))")
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
