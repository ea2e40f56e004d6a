"""What a run of the line has to show, and where: for the terminal, for Prefect's artifacts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.labels.checks import CHECKS
from pipeline.layout import Layout, home
from pipeline.tracking import TrackingConfig

HEADLINES = {"bbox/AP": "AP", "bbox/AP50": "AP50", "bbox/AP75": "AP75", "segm/AP": "mask AP", "segm/AP50": "mask AP50"}
"""Figures of the evaluated detector by their names for people; those of masks are there when it finds masks."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures and places of a finished run."""

    title: str
    figures: Mapping[str, float]
    """AP of the evaluated detector, then of each exported file."""
    classes: list[dict[str, Any]]
    """Rows of AP per class, one column per backend."""
    places: Mapping[str, str]
    """What to look at: label -> path or command."""
    findings: list[dict[str, Any]]
    """What the label checks found: a row per code."""

    def text(self) -> str:
        """Plain lines."""
        width = max(map(len, (*self.figures, *self.places)))
        figures = [f"  {name:<{width}}  {value:.3f}" for name, value in self.figures.items()]
        return "\n".join([self.title, *figures, *(f"  {label:<{width}}  {place}" for label, place in self.places.items())])

    def markdown(self) -> str:
        """The same as Markdown."""
        rows = [f"| {name} | {value:.4f} |" for name, value in self.figures.items()]
        table = ["| figure | |", "|---|---|", *rows, ""] if rows else []
        return "\n".join([f"# {self.title}", "", *table, *(f"- {label}: `{place}`" for label, place in self.places.items())])


def summarise(
    layout: Layout, config: TrackingConfig, run_id: str | None, *, nothing_to_do: bool, branch: str | None = None
) -> Summary:
    """Collect from reports/ and models/onnx what the line made."""
    metrics, deploy = _read(layout.reports("evaluate") / "metrics.json"), _read(layout.onnx / "deploy.json")
    parity = deploy.get("parity", {})
    figures = {shown: float(metrics[name]) for name, shown in HEADLINES.items() if name in metrics}
    for backend in ("onnx", "int8"):
        for figure in ("bbox/AP", "segm/AP"):
            if figure in parity.get(backend, {}):
                figures[f"{HEADLINES[figure]}, {backend} file"] = float(parity[backend][figure])
    title = "Nothing to do: everything is up to date" if nothing_to_do else "The line is done"
    findings = _findings(_read(layout.reports("validate") / "metrics.json"))
    return Summary(title, figures, _classes(metrics, parity), _places(layout, config, run_id, branch), findings)


def _findings(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The codes in the order of the checks."""
    prefix = "validate/findings/"
    return [
        {"code": code, "findings": int(metrics[prefix + code]), "what it is": check.explanation()}
        for code, check in CHECKS.items()
        if metrics.get(prefix + code)
    ]


def _classes(metrics: Mapping[str, Any], parity: Mapping[str, Any]) -> list[dict[str, Any]]:
    prefix = "bbox/AP/"
    rows = []
    for name in (key.removeprefix(prefix) for key in metrics if key.startswith(prefix)):
        row: dict[str, Any] = {"class": name, "AP": round(float(metrics[prefix + name]), 4)}
        for backend, numbers in parity.items():
            if name in numbers.get("per_class", {}):
                row[backend] = round(float(numbers["per_class"][name]), 4)
        rows.append(row)
    return rows


def _places(layout: Layout, config: TrackingConfig, run_id: str | None, branch: str | None) -> dict[str, str]:
    def shown(path: Path) -> str:
        return str(path.absolute().relative_to(home(layout.root)))

    pages = {f"report of {stage}": layout.reports(stage) / "index.html" for stage in ("validate", "evaluate", "export")}
    files = {"ONNX file": layout.onnx / "detector.onnx", "ONNX file, INT8": layout.onnx / "detector.int8.onnx"}
    places = {label: shown(path) for label, path in (pages | files).items() if path.exists()}
    if config.enabled:
        served = config.uri.startswith("http")
        places["MLflow"] = config.uri if served else f"mlflow ui --backend-store-uri {config.uri}"
        if run_id:
            places["MLflow run"] = run_id
        places["registered model"] = f"models:/{config.model}@{config.alias}"
    if branch is not None:
        places["branch"] = branch
    model = "" if branch is None else f" --model {shown(layout.onnx)}"
    return places | {"try it on a picture": f"python -m pipeline predict PICTURE{model}"}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.exists() else {}
