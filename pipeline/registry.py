"""The model registry: the exported detector as a version of an MLflow model, found by alias (`models:/detectline@candidate`)."""

import getpass
import io
import json
import os
import platform
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pipeline.errors import UserError

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

_LONGEST_TAG = 5000
CARRIED = (
    *("detector.onnx", "detector.int8.onnx", "deploy.json"),
    *("weights.safetensors", "model.json", "training.json", "pictures.json"),
)
"""Files of models/onnx and models/detector that a version brings along."""
AUDIT = "audit."
"""Begins the names of the registered model's tags that keep its moves: everybody who sees the model on the server sees them."""
ROLLED_BACK = "rolled_back"
"""Tag of a version that was taken out of service, with the reason."""
_LONGEST_WHY = 2000
_UNKNOWN = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's answers for a model that there is not, and for an alias that a model has not."""


def register(client: "MlflowClient", uri: str, run_id: str, path: str, model: str, alias: str) -> str:
    """Store the ONNX file at `path` as a model of the run, make it the newest version of `model`, move `alias` to it.

    The files of CARRIED go along as they are, the ONNX file itself too: MLflow writes its own copy anew, whose bytes nobody
    tested. The version carries the parity figures and the file's digest as tags. A file that the alias already names is not
    stored twice. Returns the version.
    """
    import mlflow
    import mlflow.onnx
    import onnx

    deploy = _read(Path(path).with_name("deploy.json"))
    tags = _tags(deploy, client.get_run(run_id).data.tags)
    current = version_at(client, model, alias)
    if current is not None and tags.get("digest") and current.tags.get("digest") == tags["digest"]:
        return str(current.version)

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    places = Path(path).parent, Path(path).parent.with_name("detector")
    extra = [str(place / name) for place in places for name in CARRIED if (place / name).exists()]
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


def versions_of(client: "MlflowClient", model: str, digest: str) -> "list[ModelVersion]":
    """The versions whose ONNX file has this digest, oldest first."""
    found = [one for one in client.search_model_versions(f"name='{model}'") if one.tags.get("digest") == digest]
    return sorted(found, key=lambda one: int(one.version))


def fetch(uri: str, model: str, version: str, folder: Path) -> Path:
    """The files that a version carries, in `folder`, whole or not at all; those of an earlier fetch are used again.

    UserError for a version that was registered without them.
    """
    import mlflow

    from pipeline.files import staged

    if folder.is_dir():
        return folder
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    with TemporaryDirectory() as place, redirect_stderr(io.StringIO()):
        mlflow.artifacts.download_artifacts(f"models:/{model}/{version}", dst_path=place)
        extra = Path(place) / "extra_files"
        if not (extra / "detector.onnx").exists():
            raise UserError(
                f"models:/{model}/{version} was registered by an earlier version, without the file that was tested\n"
                "  bring the commit in its tag git.commit back and export again, or move the alias to a newer version"
            )
        with staged(folder) as out:
            for file in extra.iterdir():
                shutil.copyfile(file, out / file.name)
    return folder


@dataclass(frozen=True, slots=True)
class Move:
    """One entry of the audit log: the alias moved."""

    time: str
    """UTC, ISO 8601."""
    action: str
    """`promote` or `rollback`."""
    version: str
    before: str | None
    """The version that the alias named until then."""
    who: str
    why: str


def move(client: "MlflowClient", model: str, alias: str, before: str | None, version: str, action: str, why: str) -> Move:
    """Let `alias` name `version` in the place of `before`, and keep who did that, when and why as a tag of the registered model.

    The tag is written first: killed in between, the alias still names the old version, and an entry that the alias does not
    follow is not counted by `previous`. So there is a champion at any moment. UserError when the alias no longer names `before`:
    what was decided about that version says nothing of another. MLflow cannot compare and set in one step, so two moves within
    the same moment can still cross.
    """
    current = version_at(client, model, alias)
    there = None if current is None else str(current.version)
    if there != before:
        raise UserError(
            f"models:/{model}@{alias} became version {there or 'none'} meanwhile, it was {before or 'none'}: nothing was moved\n"
            "  give the same command again: it looks at the one that is there now"
        )
    now = datetime.now(UTC)
    entry = Move(
        time=now.isoformat(timespec="seconds"),
        action=action,
        version=version,
        before=before,
        who=f"{_user()}@{platform.node()}",
        why=why[:_LONGEST_WHY],
    )
    client.set_registered_model_tag(model, f"{AUDIT}{now:%Y%m%dT%H%M%S%f}", json.dumps(asdict(entry), ensure_ascii=False))
    client.set_registered_model_alias(model, alias, version)
    return entry


def history(client: "MlflowClient", model: str) -> list[Move]:
    """The audit log, oldest first."""
    tags: dict[str, str] = client.get_registered_model(model).tags
    return [Move(**json.loads(tags[name])) for name in sorted(tags) if name.startswith(AUDIT)]


def previous(client: "MlflowClient", model: str, alias: str) -> str | None:
    """The version that was the champion before the present one was promoted; None without one."""
    current = version_at(client, model, alias)
    return None if current is None else before_it(history(client, model), str(current.version))


def before_it(moves: Sequence[Move], current: str) -> str | None:
    """The champion before `current` by the log: a promotion lays a version on top of the one before, a rollback takes it off.

    What the log says and the alias did not follow, and what moved the alias without the log, shows in the next entry's `before`.
    """
    stack: list[str] = []

    def settle(version: str | None) -> None:
        if version in stack:
            while stack[-1] != version:
                stack.pop()
        elif version is not None:
            stack.append(version)

    for one in moves:
        settle(one.before)
        if one.action == "promote":
            stack.append(one.version)
        else:
            settle(one.version)
    settle(current)
    return stack[-2] if len(stack) > 1 else None


def _user() -> str:
    """The user's name; a container may run under a number that has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


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


def version_at(client: "MlflowClient", model: str, alias: str) -> "ModelVersion | None":
    """The version that `alias` names; None when there is none yet. UserError when the registry does not answer: a champion that
    cannot be seen is not one that is missing."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model, alias)
    except MlflowException as error:
        if error.error_code in _UNKNOWN:
            return None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"models:/{model}@{alias}: the registry does not answer: {reason}") from error


def _read(path: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads(path.read_bytes()) if path.exists() else {}
    return values
