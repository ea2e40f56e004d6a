"""`python -m pipeline predict` as a user runs it, in a process where torch cannot be imported."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.commands import predict
from pipeline.errors import ConfigError, UserError
from tests.predict.toy import write_toy

WITHOUT_TORCH = """
import sys
for name in ("torch", "torchvision", "timm", "torchao", "mlflow", "prefect", "pydantic", "hydra"):
    sys.modules[name] = None  # makes `import name` fail
from pipeline.errors import UserError
from pipeline.commands.predict import run
try:
    run(sys.argv[1:])
except UserError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    """A red picture, one that is not there, a text file, and a second `red.png` in another folder."""
    image = Image.fromarray(np.tile(np.array([255, 0, 0], np.uint8), (64, 96, 1)))
    (tmp_path / "other").mkdir()
    image.save(tmp_path / "red.png")
    image.save(tmp_path / "other/red.png")
    (tmp_path / "text.jpg").write_text("no picture")
    return [str(tmp_path / name) for name in ("red.png", "nowhere.png", "text.jpg", "other/red.png")]


def test_good_pictures_go_on_past_bad_ones_without_torch(tmp_path, pictures, root):
    out, model = tmp_path / "out", write_toy(tmp_path / "onnx")
    command = [sys.executable, "-c", WITHOUT_TORCH, *pictures, "--model", str(model), "--out", str(out), "--threshold", "0.5"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"{pictures[0]}: 1 plate, 1 cell; best 1.00"
    assert lines[-1] == "predict: 2 of 4 pictures could not be read"
    assert done.stderr.splitlines() == [
        f"{pictures[1]}: no such picture",
        f"{pictures[2]}: cannot be read as a picture (unknown or damaged format)",
    ]
    assert sorted(path.name for path in out.iterdir()) == ["predictions.json", "red-2.png", "red.png"]
    records = json.loads((out / "predictions.json").read_text())
    assert [record["image"] for record in records] == [pictures[0], pictures[3]]
    assert records[0]["width"] == 96
    assert records[0]["height"] == 64
    assert records[0]["detections"][0] == {"class": "plate", "score": 1.0, "box": [0, 0, 48, 32]}
    drawn = np.asarray(Image.open(out / "red.png"))
    assert drawn.shape == (448, 672, 3)
    assert (drawn[200, :] != [255, 0, 0]).any()


def test_good_pictures_alone_end_well(tmp_path, pictures, capsys):
    predict.run([pictures[0], "--model", str(write_toy(tmp_path / "onnx")), "--threshold", "1", "--int8"])
    assert capsys.readouterr().out == f"{pictures[0]}: 1 plate; best 1.00\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["onnx", "other", "red.png", "text.jpg"]


@pytest.mark.parametrize(
    "arguments", [["a.png", "--threshold", "2"], ["a.png", "--threshold", "high"], [], ["a.png", "--colour"]]
)
def test_wrong_options_are_settings_errors(arguments):
    with pytest.raises(ConfigError, match="predict"):
        predict.run(arguments)


def test_an_output_folder_that_is_a_file_is_said(tmp_path, pictures):
    with pytest.raises(UserError, match="cannot be written"):
        predict.run([pictures[0], "--model", str(write_toy(tmp_path / "onnx")), "--out", pictures[2]])


def test_masks_are_drawn_and_written(tmp_path, pictures):
    from pycocotools import mask as coco_mask

    model, out = write_toy(tmp_path / "onnx", masks=True), tmp_path / "out"
    predict.run([pictures[0], "--model", str(model), "--out", str(out), "--threshold", "1"])
    detection = json.loads((out / "predictions.json").read_text())[0]["detections"][0]
    assert detection["mask"]["size"] == [64, 96]
    assert coco_mask.toBbox(detection["mask"]).tolist() == [0, 0, 48, 32]
    assert 0.97 * 48 * 32 < coco_mask.area(detection["mask"]) < 48 * 32, "all but the corners"
    drawn = np.asarray(Image.open(out / "red.png"))
    assert (drawn[100, 100] != [255, 0, 0]).any(), "inside the mask the picture is tinted"
    assert drawn[400, 600].tolist() == [255, 0, 0]
