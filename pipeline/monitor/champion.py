"""The registry's detector as a folder like models/onnx: what MLflow keeps of a version, in the form that `predict` opens.

MLflow stores the graph as model.onnx with the weights beside it, and deploy.json under extra_files. The graph is joined with its
weights again, so its bytes are others than those that export tested; deploy.json gets their digest.
"""

import io
import os
import shutil
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import digest_file, read_json, staged, write_json

KNOWN = "a run of the line registers it; another one by monitor.detector=local"


def fetch(uri: str, model: str, alias: str, work: Path) -> Path:
    """The folder, below `work`, of the version of `model` that `alias` names; fetched once per version.

    UserError when there is no such version, or the store at `uri` cannot be reached.
    """
    import mlflow
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        version = MlflowClient(uri, uri).get_model_version_by_alias(model, alias)
        target = work / f"{model}-{version.version}-{version.tags.get('digest', '')}"
        if not (target / "deploy.json").exists():
            mlflow.set_tracking_uri(uri)
            mlflow.set_registry_uri(uri)
            with staged(target) as out, redirect_stderr(io.StringIO()):
                kept = out / "kept"
                mlflow.artifacts.download_artifacts(f"models:/{model}/{version.version}", dst_path=str(kept))
                assemble(kept, out)
                shutil.rmtree(kept)
    except MlflowException as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"monitor.detector=champion: models:/{model}@{alias} in {uri}: {reason}\n  {KNOWN}") from error
    return target


def assemble(kept: Path, out: Path) -> None:
    """detector.onnx and deploy.json in `out` from what MLflow `kept`. UserError when a version was stored without deploy.json."""
    import onnx

    said = kept / "extra_files/deploy.json"
    if not said.exists():
        raise UserError(f"monitor.detector=champion: the version was registered without deploy.json\n  {KNOWN}")
    onnx.save(onnx.load(str(kept / "model.onnx")), str(out / "detector.onnx"))
    deploy: Any = read_json(said)
    entry = {"file": "detector.onnx", "digest": digest_file(out / "detector.onnx")}
    write_json(out / "deploy.json", deploy | {"files": deploy["files"] | {"onnx": deploy["files"]["onnx"] | entry}})
