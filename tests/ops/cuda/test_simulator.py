"""Every case of this folder in the CUDA simulator, in one child process: kernels equal their CPU twins without a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.cuda.device import SIMULATED


@pytest.mark.kernels
@pytest.mark.skipif(SIMULATED, reason="this is the simulator's process")
def test_kernels_equal_their_cpu_twins_in_the_simulator(root: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "--durations=5", "tests/ops/cuda"]
    child = subprocess.run(command, cwd=root, env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}, capture_output=True, text=True)
    print(child.stdout[-6000:])
    assert child.returncode == 0, child.stdout[-6000:] + child.stderr[-2000:]
