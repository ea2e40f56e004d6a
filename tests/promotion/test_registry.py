"""The champion in a real MLflow store: moves, the log of them, the way back, the files that a version carries."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import registry, settings, tracking
from pipeline.commands import promote
from pipeline.data.dataset import written_digest
from pipeline.errors import UserError
from pipeline.files import digest_file, write_json
from pipeline.layout import Layout
from tests.data.simple import simple_dataset
from tests.test_tracking import Inline, Whole, config

MODEL, ALIAS = "toy", "champion"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory):
    """Three versions of a model, as the export stage registers them; their client and folder."""
    import onnx
    from mlflow.tracking import MlflowClient
    from onnx import TensorProto, helper

    layout = Layout(tmp_path_factory.mktemp("checkout"))
    uri = tracking.absolute_uri("sqlite:///mlflow.db", layout.root)
    layout.onnx.mkdir(parents=True)
    layout.detector.mkdir(parents=True)
    for number in (1, 2, 3):
        value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [number]) for name in ("x", "y")]
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", value[:1], value[1:])
        file = layout.onnx / "detector.onnx"
        onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), file)
        write_json(layout.onnx / "deploy.json", {"files": {"onnx": {"file": file.name, "digest": digest_file(file)}}})
        (layout.detector / "weights.safetensors").write_bytes(bytes([number]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracking, "Recorder", Inline)
            with tracking.stage_run("export", Whole(config(experiment="registry"), 0), layout):
                pass
    return MlflowClient(uri, uri), uri, layout


def test_a_version_brings_the_very_files_that_were_tested(store, tmp_path: Path) -> None:
    client, uri, layout = store
    (newest,) = registry.versions_of(client, MODEL, digest_file(layout.onnx / "detector.onnx"))
    folder = registry.fetch(uri, MODEL, str(newest.version), tmp_path / "3")
    assert digest_file(folder / "detector.onnx") == json.loads((folder / "deploy.json").read_bytes())["files"]["onnx"]["digest"]
    assert (folder / "weights.safetensors").read_bytes() == bytes([3])
    assert registry.versions_of(client, MODEL, "no such digest") == []


def test_moves_are_kept_and_lead_back(store, monkeypatch: pytest.MonkeyPatch) -> None:
    client, _, _ = store
    assert registry.version_at(client, MODEL, ALIAS) is None and registry.previous(client, MODEL, ALIAS) is None
    registry.move(client, MODEL, ALIAS, None, "1", "promote", "first")
    assert registry.previous(client, MODEL, ALIAS) is None
    registry.move(client, MODEL, ALIAS, "1", "2", "promote", "better by 0.1")
    assert registry.previous(client, MODEL, ALIAS) == "1"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # between the log and the alias
        patch.setattr(type(client), "set_registered_model_alias", killed)
        with pytest.raises(KeyboardInterrupt):
            registry.move(client, MODEL, ALIAS, "2", "3", "promote", "never came to be")
    assert registry.version_at(client, MODEL, ALIAS).version in ("2", 2)
    assert registry.previous(client, MODEL, ALIAS) == "1"

    with pytest.raises(UserError, match="became version 2 meanwhile, it was 1"):  # compared with 1, while another took its place
        registry.move(client, MODEL, ALIAS, "1", "3", "promote", "better than what is gone")
    assert registry.version_at(client, MODEL, ALIAS).version in ("2", 2)

    registry.move(client, MODEL, ALIAS, "2", "1", "rollback", "it misses platelets")
    assert registry.previous(client, MODEL, ALIAS) is None  # nothing was in service before the first
    told = [(one.action, one.before, one.version, one.why) for one in registry.history(client, MODEL)]
    assert told == [
        ("promote", None, "1", "first"),
        ("promote", "1", "2", "better by 0.1"),
        ("promote", "2", "3", "never came to be"),
        ("rollback", "2", "1", "it misses platelets"),
    ]
    assert all(one.who and one.time for one in registry.history(client, MODEL))


@pytest.mark.parametrize(
    "moves, current, expected",
    [
        ("", "1", None),
        ("p-1 p12 p23", "3", "2"),
        ("p-1 p12 p23 r32", "2", "1"),
        ("p-1 p12 p23 r32 r21", "1", None),
        ("p-1 p12 p21", "1", "2"),  # let in again by force
        ("p-1 p12 p21 r12 r21", "1", None),  # and not round and round
        ("p-1 p12 p23", "2", "1"),  # killed before the alias moved
        ("p-1 p12 p23 p24", "4", "2"),
        ("p-1 p72", "2", "7"),  # somebody had moved the alias by hand
        ("p-1", "7", "1"),
    ],
)
def test_the_champion_before_by_the_log(moves: str, current: str, expected: str | None) -> None:
    names = {"p": "promote", "r": "rollback"}
    log = [registry.Move("", names[a], after, None if before == "-" else before, "", "") for a, before, after in moves.split()]
    assert registry.before_it(log, current) == expected


def test_a_registry_that_does_not_answer_is_not_one_without_a_champion(store) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

    client, _, _ = store
    assert registry.version_at(client, "no such model", ALIAS) is None
    assert registry.version_at(client, MODEL, "no-such-alias") is None

    class Down:
        def get_model_version_by_alias(self, *_: object) -> None:
            raise MlflowException("503 from the proxy", TEMPORARILY_UNAVAILABLE)

    with pytest.raises(UserError, match="does not answer: 503 from the proxy"):
        registry.version_at(Down(), MODEL, ALIAS)


def test_a_version_of_before_says_what_it_lacks(store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, uri, _ = store
    monkeypatch.setattr(registry, "CARRIED", ())
    import mlflow

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda *_, dst_path, **__: dst_path)
    with pytest.raises(UserError, match="registered by an earlier version"):
        registry.fetch(uri, MODEL, "1", tmp_path / "1")
    assert not (tmp_path / "1").exists()


def test_a_detector_of_an_untracked_line_becomes_a_version_when_it_is_to_be_promoted(
    store, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line would say that all is up to date, and never register it."""
    client, _, trained = store
    layout = Layout(tmp_path)
    simple_dataset(tmp_path / "made", pictures=2, side=16)
    (tmp_path / "data").mkdir()
    (tmp_path / "made/dataset").rename(layout.validated)
    layout.onnx.mkdir(parents=True)
    file = layout.onnx / "detector.onnx"
    file.write_bytes((trained.onnx / "detector.onnx").read_bytes())
    add_metadata(file)
    write_json(layout.onnx / "deploy.json", {"files": {"onnx": {"file": file.name, "digest": digest_file(file)}}})
    chosen = replace(settings.load([], root), tracking=config(uri=trained_uri(trained), experiment="registry"))
    monkeypatch.setattr(tracking, "Recorder", Inline)
    write_json(layout.detector / "training.json", {"data": "of before"})
    with pytest.raises(UserError, match="was not trained on what"):
        promote.found(client, chosen, layout)
    digest = written_digest(layout.validated)
    write_json(layout.detector / "training.json", {"data": digest})
    challenger, _ = promote.found(client, chosen, layout)
    assert challenger.version == "4" and challenger.tags["validated.digest"] == digest
    assert promote.found(client, chosen, layout)[0].version == "4"


def add_metadata(file: Path) -> None:
    """Another file of the same graph."""
    import onnx

    model = onnx.load(file)
    model.producer_name = "another training"
    onnx.save(model, file)


def trained_uri(layout: Layout) -> str:
    """The store of the fixture."""
    return tracking.absolute_uri("sqlite:///mlflow.db", layout.root)
