"""Where stages read and write, relative to the checkout. dvc.yaml names the same places; a test compares the two."""

import os
from dataclasses import dataclass
from pathlib import Path

TIMING = "timing.json"
"""Beside a stage's metrics: what a rerun does not reproduce. Never a result for DVC."""
RUNS = Path("work/runs")
"""Working copies of runs with overrides, one folder each, below the checkout."""


def home(root: Path) -> Path:
    """The checkout that the working copy `root` works for, and whose MLflow store it therefore shares.

    It is `root` itself, but for the worktree of a run (`work/runs/NAME`) and for DVC's temporary experiments, whose own name for
    the checkout is `DVC_ROOT`.
    """
    root = root.absolute()
    if root.parts[-3:-1] == RUNS.parts and (root / ".git").is_file():  # as worktrees have
        return root.parents[2]
    return Path(os.environ.get("DVC_ROOT", root)) if "DVC_EXP_BASELINE_REV" in os.environ else root


@dataclass(frozen=True, slots=True)
class Layout:
    """The fixed places of one checkout (or, in tests, of a temporary folder)."""

    root: Path = Path(".")

    @property
    def dataset(self) -> Path:
        """The ingested dataset, faults and all."""
        return self.root / "data/dataset"

    @property
    def validated(self) -> Path:
        """The dataset after label checks: what training and evaluation read."""
        return self.root / "data/validated"

    @property
    def detector(self) -> Path:
        """Trained weights with the resolved model config."""
        return self.root / "models/detector"

    @property
    def quantized(self) -> Path:
        """The traced float graph, calibration ranges and the quantization recipe."""
        return self.root / "models/quantized"

    @property
    def onnx(self) -> Path:
        """The files to ship, and what was proven about them."""
        return self.root / "models/onnx"

    @property
    def listing(self) -> Path:
        """The recorded listing of a remote source, beside params.yaml; absent while the source is a path."""
        return self.root / "source.json"

    def reports(self, stage: str) -> Path:
        """Metrics, plots and the HTML page of a stage."""
        return self.root / "reports" / stage

    @property
    def services(self) -> Path:
        """Databases and logs of `make serve`."""
        return self.root / "work/services"

    def work(self, stage: str, digest: str = "") -> Path:
        """Unfinished work of a stage on one set of inputs; ignored by git and DVC."""
        return self.root / "work" / stage / digest
