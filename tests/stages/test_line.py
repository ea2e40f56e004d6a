"""The stages one after the other: what each leaves behind, and that a seed repeats it to the byte."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from pipeline.deploy.replay import open_session, record, replayable
from pipeline.errors import ConfigError, DataError, GateError
from pipeline.files import digest_tree
from pipeline.layout import Layout
from tests.stages.tiny import run_stages

STAGES = ("ingest", "validate", "train", "evaluate", "quantize", "export")


def metrics(layout: Layout, stage: str) -> dict[str, float]:
    return json.loads((layout.reports(stage) / "metrics.json").read_text())


def copied(line: Layout, folder: Path, *parts: str) -> Layout:
    """A line of its own with copies of some of the shared one's folders."""
    for part in parts:
        shutil.copytree(line.root / part, folder / part)
    return Layout(folder)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_leaves_flat_metrics(line: Layout, stage: str) -> None:
    values = metrics(line, stage)
    assert values
    assert all(isinstance(value, int | float) for value in values.values())
    assert all(0 <= value <= 1 for name, value in values.items() if name.startswith("bbox/"))


@pytest.mark.parametrize("stage", ["validate", "evaluate", "quantize", "export"])
def test_reports_are_whole_pages_that_ask_for_nothing_outside(line: Layout, stage: str) -> None:
    page = (line.reports(stage) / "index.html").read_text()
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert not any(mark in page for mark in ('src="http', 'href="http', "<script src"))


def test_the_detector_learnt(line: Layout) -> None:
    assert metrics(line, "evaluate")["bbox/AP50"] > 0.15  # without learning it stays below 0.05
    assert metrics(line, "train")["val/bbox/AP50"] == pytest.approx(metrics(line, "evaluate")["bbox/AP50"], abs=1e-9)


def test_both_files_passed_the_gate_and_are_standard_onnx(line: Layout, root: Path) -> None:
    values = metrics(line, "export")
    assert abs(values["export/onnx/AP_loss"]) <= 0.001
    assert values["export/int8/AP_loss"] <= 0.02 and values["export/int8_exact/AP_loss"] <= 0.02
    assert values["export/torch/AP"] == pytest.approx(metrics(line, "evaluate")["bbox/AP"], abs=1e-9)
    for name in ("detector.onnx", "detector.int8.onnx"):
        model = onnx.load(str(line.onnx / name))
        onnx.checker.check_model(model, full_check=True)
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert next(opset.version for opset in model.opset_import if opset.domain == "") >= 20
        assert [value.name for value in model.graph.input] == ["pixels", "sizes"]
        assert not model.functions
        assert str(root).encode() not in model.SerializeToString()  # no path of the machine that made it


def test_the_recipe_was_followed(line: Layout) -> None:
    recipe = json.loads((line.quantized / "recipe.json").read_text())
    graph = onnx.load(str(line.onnx / "detector.int8.onnx")).graph
    made = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    in_int8, in_float = set(), set()
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        source = made.get(node.input[1])
        if source is not None and source.op_type == "DequantizeLinear":
            assert weights[source.input[0]].data_type == onnx.TensorProto.INT8
            assert made[node.input[0]].op_type == "DequantizeLinear"
            in_int8.add(source.input[0].removesuffix("_quantized"))
        else:
            in_float.add(node.input[1])
    assert in_int8 == set(recipe["quantized"]) and in_float == set(recipe["kept_float"])
    figures = metrics(line, "quantize")
    assert figures["quantize/share_int8"] == len(in_int8) / len(in_int8 | in_float) >= 0.8
    assert figures["quantize/convolutions_int8"] == len(in_int8)


def test_every_convolution_was_measured_and_the_worst_are_those_in_float(line: Layout) -> None:
    recipe = json.loads((line.quantized / "recipe.json").read_text())
    found = json.loads((line.quantized / "sensitivities.json").read_text())
    assert set(found["layers"]) == set(recipe["quantized"]) | set(recipe["kept_float"])
    worst = sorted(found["layers"], key=lambda name: (found["layers"][name], name))
    assert set(worst[: len(recipe["kept_float"])]) == set(recipe["kept_float"])
    assert found["trials"][0]["kept_float"] == [] and set(found["whole"]) == {"int8", "int8_exact"}
    assert any("rpn_head" in end for end in found["measured_at"]) and any("box_predictor" in end for end in found["measured_at"])
    assert all(min(found["layers"].values()) + 3 > value for value in found["whole"].values())  # all together cost more than one


def test_the_replayed_graph_is_the_detector_to_the_bit(line: Layout) -> None:
    """On a real detector with two stages: nothing but quantization may differ from the recorded run."""
    model = onnx.load(str(line.quantized / "detector.onnx"))
    replay = replayable(model)
    pixels = np.random.default_rng(0).integers(0, 255, (1, 3, 64, 96), np.uint8)
    picture = record(model, replay, [{"pixels": pixels, "sizes": np.array([[60, 96]])}], threads=1)[0]
    found = open_session(replay.model, 1, optimize=False).run(replay.outputs, picture.feed)
    for name, value in zip(replay.outputs, found, strict=True):
        np.testing.assert_array_equal(value, picture.ends[name])
    left = {node.op_type for node in replay.model.graph.node}
    assert not {"TopK", "NonMaxSuppression"} & left and {"Conv", "RoiAlign"} <= left


def test_the_quantized_weights_are_close_to_the_trained_ones(line: Layout) -> None:
    """A wrong scale or a shuffled channel would pass every structural check."""
    quantized = onnx.load(str(line.onnx / "detector.int8.onnx")).graph
    trained = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(str(line.onnx / "detector.onnx")).graph.initializer}
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.initializer}
    compared = 0
    for name, weight in trained.items():
        if weight.ndim == 4 and f"{name}_quantized" in stored:
            scale = stored[f"{name}_scale"].reshape(-1, 1, 1, 1)
            again = stored[f"{name}_quantized"].astype(np.float64) * scale
            assert (np.abs(again - weight) <= 0.51 * scale).all()
            compared += 1
    assert compared > 10


def test_deploy_json_tells_all_that_a_program_needs(line: Layout) -> None:
    deploy = json.loads((line.onnx / "deploy.json").read_text())
    dataset = json.loads((line.validated / "dataset.json").read_text())
    assert deploy["classes"] == [category["name"] for category in dataset["categories"]]
    assert deploy["divisor"] % 8 == 0 and deploy["input"]["short_side"] == 64
    assert set(deploy["parity"]) == {"torch", "onnx", "int8", "int8_exact"}


def test_a_second_run_gives_the_same_bytes(line: Layout, root: Path, tmp_path: Path) -> None:
    """For the files of quantize and export see tests/line, where two clones make them."""
    again = Layout(tmp_path)
    run_stages(root, again, STAGES[:4])
    for folder in ("data/dataset", "data/validated", "models/detector"):
        assert digest_tree(again.root / folder) == digest_tree(line.root / folder), folder
    for stage in STAGES[:4]:
        for kind in ("metrics.json", "index.html", "dataset_card.md"):
            there = line.reports(stage) / kind
            if there.exists():
                assert (again.reports(stage) / kind).read_bytes() == there.read_bytes(), f"{stage}/{kind}"


def test_another_seed_gives_other_weights(line: Layout, root: Path, tmp_path: Path) -> None:
    other = copied(line, tmp_path, "data/validated")
    for seed in (0, 1):
        run_stages(root, other, ["train"], [f"seed={seed}", "train.steps=2"])
        first = digest_tree(other.detector) if seed == 0 else first  # noqa: F821
    assert digest_tree(other.detector) != first


def test_a_damaged_float_graph_is_caught_by_the_gate_and_the_old_files_stay(line: Layout, root: Path, tmp_path: Path) -> None:
    """The gate must compare real runs: here the graph to ship no longer holds the trained weights."""
    damaged = copied(line, tmp_path, "data/validated", "models")
    before = digest_tree(damaged.onnx)
    model = onnx.load(str(damaged.quantized / "detector.onnx"))
    for tensor in model.graph.initializer:
        if "cls_score.weight" in tensor.name:
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(-values, tensor.name))
            break
    else:
        pytest.fail("the graph has no classifier weight to damage")
    onnx.save(model, str(damaged.quantized / "detector.onnx"))
    with pytest.raises(GateError, match=r"onnx file differs.*\n  class \w+ lost most"):
        run_stages(root, damaged, ["export"])
    assert digest_tree(damaged.onnx) == before
    assert [path.name for path in damaged.onnx.parent.iterdir() if path.name.startswith(".")] == []


def test_missing_inputs_are_one_clear_message(root: Path, tmp_path: Path) -> None:
    for stage, word in {
        "validate": "ingest",
        "train": "pipeline validate",
        "evaluate": "train",
        "quantize": "train",
        "export": "train",
    }.items():
        with pytest.raises(DataError, match=word) as caught:
            run_stages(root, Layout(tmp_path), [stage])
        assert str(tmp_path) in str(caught.value)
    assert not any(tmp_path.glob("models/*")) and not any(tmp_path.glob("data/*"))


def test_cuda_without_a_device_is_a_wrong_setting(line: Layout, root: Path, tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(ConfigError, match=r"compute\.device='cuda'"):
        run_stages(root, copied(line, tmp_path, "data/validated"), ["train"], ["compute=gpu"])
