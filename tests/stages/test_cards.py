"""The cards of the tiny line with masks: every figure is one of metrics.json, and the Hub's own reader takes the header."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from pipeline.data.dataset import open_dataset
from pipeline.deploy.latency import PREFIX, with_latency
from pipeline.layout import Layout

pytestmark = pytest.mark.line


def tables(card: str) -> Iterator[list[list[str]]]:
    """Rows of each table of the rendered card."""
    html = MarkdownIt("commonmark").enable("table").render(card.split("---\n", 2)[2])
    for body in re.findall(r"<table>(.*?)</table>", html, re.S):
        yield [re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", row, re.S) for row in re.findall(r"<tr>(.*?)</tr>", body, re.S)]


def table(card: str, first: str) -> dict[str, dict[str, str]]:
    """The table whose first column is headed `first`: row name -> column -> text."""
    found = next(rows for rows in tables(card) if rows[0][0] == first)
    return {row[0]: dict(zip(found[0][1:], row[1:], strict=True)) for row in found[1:]}


def metrics(line: Layout, stage: str) -> dict[str, float]:
    return json.loads((line.reports(stage) / "metrics.json").read_text())


def shown(value: float) -> str:
    return f"{value:.4f}"


COLUMNS = {"torch": "as trained", "onnx": "float file", "int8": "INT8 file, this host", "int8_exact": "INT8 file, exact integers"}


def test_figures_of_the_model_card_are_those_of_the_metrics(mask_line: Layout) -> None:
    card = (mask_line.onnx / "model_card.md").read_text()
    exported, evaluated, quantized = (metrics(mask_line, stage) for stage in ("export", "evaluate", "quantize"))
    numbers, classes = table(card, "figure"), table(card, "class")
    for backend, column in COLUMNS.items():
        assert numbers["bbox AP"][column] == shown(exported[f"export/{backend}/AP"])
        assert numbers["bbox AP50"][column] == shown(exported[f"export/{backend}/AP50"])
    for name, title in {"APs": "small", "APm": "medium", "APl": "large"}.items():
        wanted = evaluated.get(f"bbox/{name}")
        assert numbers[f"bbox AP {title}"]["as trained"] == ("–" if wanted is None else shown(wanted))
    named = {name.removeprefix("bbox/AP/"): value for name, value in evaluated.items() if name.startswith("bbox/AP/")}
    assert {name: row["AP, as trained"] for name, row in classes.items()} == {name: shown(value) for name, value in named.items()}
    for share in ("share_int8", "share_int8_nodes"):
        assert f"(share {shown(quantized[f'quantize/{share}'])})" in card
    for backend in ("onnx", "int8", "int8_exact"):
        assert f"- **Loss of bbox AP, {COLUMNS[backend]}**: {shown(exported[f'export/{backend}/AP_loss'])}" in card
    settings = table(card, "setting")
    assert settings["train.steps"]["value"] == "200" and settings["train.optimizer.lr"]["value"] == "0.002"
    assert open_dataset(mask_line.validated).info.digest in card


def test_the_hub_reads_the_model_cards_header(mask_line: Layout) -> None:
    card = ModelCard.load(mask_line.onnx / "model_card.md")
    results = card.data.eval_results
    assert card.data.pipeline_tag == "object-detection" and card.data.library_name == "onnx"
    exported = metrics(mask_line, "export")
    figures = [f"export/{backend}/{task}AP" for backend in ("onnx", "int8") for task in ("", "segm/")]
    assert [result.metric_value for result in results] == [exported[name] for name in figures]
    assert results[0].dataset_revision == open_dataset(mask_line.validated).info.digest


def test_figures_of_the_dataset_card_are_those_of_the_metrics(mask_line: Layout) -> None:
    card = (mask_line.reports("validate") / "dataset_card.md").read_text()
    figures = metrics(mask_line, "validate")
    splits, classes = table(card, "split"), table(card, "class")
    assert sum(int(row["pictures"]) for row in splits.values()) == figures["validate/images_kept"]
    assert sum(int(row["labels"]) for row in splits.values()) == figures["validate/annotations_kept"]
    assert set(classes) == set(open_dataset(mask_line.validated).classes)
    for split in splits:
        assert sum(int(row[split]) for row in classes.values()) == int(splits[split]["labels"])
    dataset = open_dataset(mask_line.validated)
    assert dataset.info.digest in card and "CC0-1.0 (generated)" in card


def test_latencies_are_in_the_card_for_mlflow_alone(mask_line: Layout) -> None:
    card = (mask_line.onnx / "model_card.md").read_text()
    times = json.loads((mask_line.reports("export") / "timing.json").read_text())
    assert set(times) == {f"{PREFIX}detector.onnx", f"{PREFIX}detector.int8.onnx"} and all(value > 0 for value in times.values())
    timed = with_latency(card, times | {"export/seconds": 3.0})
    assert "Latency" not in card and timed.startswith(card)
    rows = table(timed, "file")
    assert {f"{PREFIX}{name}": row["ms per picture"] for name, row in rows.items()} == {k: shown(v) for k, v in times.items()}
    assert with_latency(card, {"export/seconds": 3.0}) == card


def test_no_place_of_this_machine_is_in_a_card(mask_line: Layout) -> None:
    for path in (mask_line.onnx / "model_card.md", mask_line.reports("validate") / "dataset_card.md"):
        assert str(mask_line.root) not in path.read_text() and str(Path.home()) not in path.read_text()
