"""The champion of the registry as a folder that `predict` opens."""

import shutil
from pathlib import Path

import onnx
import pytest

from pipeline.errors import UserError
from pipeline.files import read_json
from pipeline.monitor.champion import assemble
from pipeline.predict.session import Detector
from tests.predict.toy import write_toy


def kept_by_mlflow(folder: Path, toy: Path) -> Path:
    """As MLflow lays a version out: the weights in a file beside the graph, deploy.json under extra_files."""
    (folder / "extra_files").mkdir(parents=True)
    shutil.copy(toy / "deploy.json", folder / "extra_files")
    onnx.save_model(
        onnx.load(str(toy / "detector.onnx")),
        str(folder / "model.onnx"),
        save_as_external_data=True,
        location="w.data",
        size_threshold=0,
    )
    return folder


def test_graph_and_weights_are_joined_and_open_under_their_own_digest(tmp_path):
    toy = write_toy(tmp_path / "toy")
    kept = kept_by_mlflow(tmp_path / "kept", toy)
    assert (kept / "w.data").stat().st_size > 0
    (tmp_path / "out").mkdir()
    assemble(kept, tmp_path / "out")
    shutil.rmtree(kept)
    champion, own = Detector.open(tmp_path / "out"), Detector.open(toy)
    assert champion.classes == own.classes and champion.input == own.input
    assert read_json(tmp_path / "out/deploy.json")["divisor"] == 32


def test_a_version_without_deploy_json_is_refused(tmp_path):
    kept = kept_by_mlflow(tmp_path / "kept", write_toy(tmp_path / "toy"))
    (kept / "extra_files/deploy.json").unlink()
    with pytest.raises(UserError, match=r"without deploy\.json"):
        assemble(kept, tmp_path)
