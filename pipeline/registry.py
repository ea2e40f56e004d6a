"""The model registry: the exported detector as a version of an MLflow model, found by alias (`models:/detectline@candidate`)."""

import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_LONGEST_TAG = 5000


def register(client: "MlflowClient", uri: str, run_id: str, path: str, model: str, alias: str) -> str:
    """Store the ONNX file at `path` as a model of the run, make it the newest version of `model`, move `alias` to it.

    deploy.json and the INT8 file beside it go along; the version carries the parity figures and the file's digest as tags. A file
    that the alias already names is not stored twice. Returns the version.
    """
    import mlflow
    import mlflow.onnx
    import onnx

    deploy = _read(Path(path).with_name("deploy.json"))
    tags = _tags(deploy, client.get_run(run_id).data.tags)
    current = _version_at(client, model, alias)
    if current is not None and tags.get("digest") and current.tags.get("digest") == tags["digest"]:
        return str(current.version)

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    extra = [str(file) for file in sorted(Path(path).parent.iterdir()) if file.name in ("deploy.json", "detector.int8.onnx")]
    with mlflow.start_run(run_id=run_id), redirect_stderr(io.StringIO()):  # it announces each version there
        stored = mlflow.onnx.log_model(
            onnx.load(path),
            name="detector",
            registered_model_name=model,
            pip_requirements=["onnxruntime"],
            extra_files=extra or None,
        )
    version = str(stored.registered_model_version)
    for name, value in tags.items():
        client.set_model_version_tag(model, version, name, value[:_LONGEST_TAG])
    client.set_registered_model_alias(model, alias, version)
    return version


def _tags(deploy: dict[str, object], run_tags: dict[str, str]) -> dict[str, str]:
    """What tells one version from the next: data, commit, digest of the file, AP of each backend."""
    kept: tuple[str, ...] = ("git.commit", "dataset.digest", "validated.digest")
    tags = {name: run_tags[name] for name in kept if name in run_tags}
    files, parity = deploy.get("files"), deploy.get("parity")
    if isinstance(files, dict) and isinstance(files.get("onnx"), dict):
        tags["digest"] = str(files["onnx"].get("digest", ""))
    if isinstance(parity, dict):
        for backend, numbers in parity.items():
            for figure, name in (("bbox/AP", "AP"), ("bbox/AP50", "AP50"), ("segm/AP", "mask_AP"), ("segm/AP50", "mask_AP50")):
                if isinstance(numbers, dict) and figure in numbers:
                    tags[f"{backend}.{name}"] = f"{numbers[figure]:.4f}"
    return tags


def _version_at(client: "MlflowClient", model: str, alias: str) -> "ModelVersion | None":
    """The version that `alias` names; None when there is none yet."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException:
        return None


def _read(path: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads(path.read_bytes()) if path.exists() else {}
    return values
