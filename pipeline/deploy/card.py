"""The model card: what the detector is, how it was trained, what was measured about its files, and what was not.

Sections after Mitchell et al., "Model Cards for Model Reporting" (2019), in the form of the Hugging Face Hub's model cards. Only
what a rerun reproduces: latencies are added where the card goes to MLflow (`pipeline.deploy.latency`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.dataset import Dataset
from pipeline.deploy.count import Counts
from pipeline.deploy.parity import REFERENCE, Parity
from pipeline.deploy.recipe import Recipe
from pipeline.evaluation.metrics import defined
from pipeline.markdown import Cell, bullets, document, table, text
from pipeline.tasks import FIGURE, TITLE

SHOWN = {"APs": "AP small", "APm": "AP medium", "APl": "AP large"}
LEFT_OUT = ("AR1", "AR10", "ARs", "ARm", "ARl")
"""Figures that the card leaves to metrics.json."""
COLUMNS = {"torch": "as trained", "onnx": "float file", "int8": "INT8 file, this host", "int8_exact": "INT8 file, exact integers"}
FEW = 50
"""Labels of a class in training below which the card warns; AP of such a class moves by points with the seed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the card is written from."""

    model: Mapping[str, Any]
    """The resolved model config, as plain containers."""
    training: Mapping[str, Any]
    """models/detector/training.json: settings, seed, digest of the data."""
    dataset: Dataset
    split: str
    """The split that `parities` were measured on."""
    parities: Sequence[Parity]
    """Of boxes, and of masks where the detector finds them."""
    recipe: Recipe
    counts: Counts
    parameters: int


def model_card(facts: Facts) -> str:
    """Markdown about the exported detector; equal facts give equal bytes."""
    info, input = facts.dataset.info, facts.model["input"]
    found = " and ".join(TITLE[parity.task] for parity in facts.parities)
    described: dict[str, Cell] = {
        "Architecture": f"{facts.model['kind']}, backbone {backbone(facts.model['backbone'])}",
        "Parameters": facts.parameters,
        "Files": "detector.onnx (float32), detector.int8.onnx (INT8, QDQ); deploy.json says how to feed them",
        "Input": f"{input['channels']}, shorter side {input['short_side']} px, longer side at most {input['long_side']} px",
        "Classes": ", ".join(facts.dataset.classes),
    }
    trained: dict[str, Cell] = {
        "Data": info.source,
        "Data version (content digest)": str(facts.training["data"]),
        "Licence of the data": info.licence or "not stated",
        "Pretrained backbone": str(facts.model["backbone"].get("weights") or "none"),
        "Seed": facts.training["seed"],
    }
    return document(
        header(facts),
        f"# Model card: {text(facts.model['kind'])} on {text(info.source)}",
        bullets(described),
        "## Intended use",
        f"Finding objects of the classes above, as {found}, on pictures like those of {text(info.source)}. On others nothing is"
        " known about it: measure it there first.",
        "## Training",
        bullets(trained),
        table(("setting", "value"), [(name, _plain(value)) for name, value in _flat(facts.training["settings"], "train.")]),
        "## Evaluation",
        f"COCO metrics on the split {text(facts.split)}: {len(facts.dataset.split(facts.split).images)} pictures.",
        table(*_numbers(facts.parities)),
        *(_classes(facts, parity) for parity in facts.parities),
        "## INT8",
        bullets(_int8(facts)),
        "## Limits",
        bullets(_limits(facts)),
    )


def header(facts: Facts) -> dict[str, object]:
    """The YAML header that the Hub's tools read: the results of the files that are shipped."""
    info = facts.dataset.info
    results = [
        {
            "task": {"type": "object-detection"},
            "dataset": {"type": info.source, "name": info.source, "split": facts.split, "revision": info.digest},
            "metrics": [
                {
                    "type": "mean_average_precision" if FIGURE[parity.task] == "AP" else FIGURE[parity.task],
                    "name": f"{parity.task} {FIGURE[parity.task]}, {COLUMNS[backend]}",
                    "value": parity.metrics[backend].value,
                }
                for parity in facts.parities
                if parity.metrics[backend].value >= 0
            ],
        }
        for backend in ("onnx", "int8")
    ]
    return {
        "license": "unknown",  # nobody was asked; the data's own licence is in the text
        "library_name": "onnx",
        "pipeline_tag": "object-detection",
        "tags": ["object-detection", str(facts.model["kind"]), "onnx", "int8"],
        "model-index": [{"name": f"{facts.model['kind']} on {info.source}", "results": results}],
    }


def backbone(config: Mapping[str, Any]) -> str:
    """A backbone's name: of timm's models their own, of ResNets the depth."""
    return str(config.get("name") or f"{config['kind']}-{config.get('depth', '')}".rstrip("-"))


def _numbers(parities: Sequence[Parity]) -> tuple[Sequence[str], list[Sequence[Cell]]]:
    backends = [name for name in COLUMNS if name in parities[0].metrics]
    rows: list[Sequence[Cell]] = []
    for parity in parities:
        numbers = {name: parity.metrics[name].numbers for name in backends}
        for name in numbers[REFERENCE]:
            figure = name.removeprefix(f"{parity.task}/")
            if figure not in LEFT_OUT:
                title = f"{parity.task} {SHOWN.get(figure, figure)}"
                rows.append((title, *(defined(numbers[backend][name]) for backend in backends)))
    return ("figure", *(COLUMNS[name] for name in backends)), rows


def _classes(facts: Facts, parity: Parity) -> str:
    backends = [name for name in COLUMNS if name in parity.metrics]
    per_class = {name: parity.metrics[name].per_class for name in backends}
    counts = {name: facts.dataset.split(name).class_counts(len(facts.dataset.classes)) for name in ("train", facts.split)}
    rows = [
        (label, *(int(counts[name][at]) for name in counts), *(per_class[name].get(label) for name in backends))
        for at, label in enumerate(facts.dataset.classes)
    ]
    return table(
        ("class", *(f"labels, {name}" for name in counts), *(f"{parity.figure}, {COLUMNS[name]}" for name in backends)), rows
    )


def _int8(facts: Facts) -> dict[str, Cell]:
    counts, recipe = facts.counts, facts.recipe
    return {
        "Convolutions in INT8": f"{counts.weights_int8} of {counts.weights} (share {counts.share:.4f})",
        "Their runs in INT8": f"{counts.nodes_int8} of {counts.nodes} (share {counts.share_nodes:.4f})",
        "In float": ", ".join(recipe.kept_float) or "none",
        "Calibrated by": recipe.calibrator,
        "Weights": f"{7 if recipe.reduce_range else 8} bits ({recipe.reduce_range_why})",
        **{
            f"Loss of {parity.task} {FIGURE[parity.task]}, {COLUMNS[name]}": parity.loss(name)
            for parity in facts.parities
            for name in ("onnx", "int8", "int8_exact")
            if name in parity.metrics
        },
    }


def _limits(facts: Facts) -> dict[str, Cell]:
    numbers, train = facts.parities[0].metrics[REFERENCE].numbers, facts.dataset.split("train")
    counts = train.class_counts(len(facts.dataset.classes))
    few = [f"{label} ({count})" for label, count in zip(facts.dataset.classes, counts.tolist(), strict=True) if count < FEW]
    unmeasured = [SHOWN[name] for name in ("APs", "APm", "APl") if numbers.get(f"bbox/{name}", -1.0) < 0]
    sides_A2 = train.annotations.boxes_A4[:, 2:] - train.annotations.boxes_A4[:, :2]
    sides_A2 = sides_A2[np.isfinite(sides_A2).all(axis=1)]
    limits: dict[str, Cell] = {}
    if few:
        limits[f"Classes with fewer than {FEW} labels in training"] = ", ".join(few)
    if unmeasured:
        limits[f"Not measured, for want of such labels in {facts.split}"] = ", ".join(unmeasured)
    if len(sides_A2):
        limits["Shortest side of a label in training, px of the stored picture"] = float(sides_A2.min())
    narrow = "7-bit weights, safe on hosts without VNNI too" if facts.recipe.reduce_range else "8-bit weights"
    limits["INT8 and the host"] = f"{narrow}. Measured on the exporting host and as exact integers" + (
        "." if facts.recipe.reduce_range else "; an x86 CPU without VNNI saturates: there export again."
    )
    limits["Not measured"] = "pictures of other sources, other splits, drift, fairness between groups, GPUs and other runtimes"
    return limits


def _flat(values: Mapping[str, Any], prefix: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return found


def _plain(value: object) -> str:
    """A setting as YAML would show it: no rounding."""
    return ", ".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
