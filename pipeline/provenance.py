"""Where a result comes from: commit, data and settings, as flat text for MLflow's tags and parameters."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

from pipeline.layout import Layout


def flat(values: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings as dotted names: {"train": {"batch": 8}} gives {"train.batch": 8}. Lists stay whole."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def git_tags(root: Path) -> dict[str, str]:
    """The commit and whether tracked files differ from it; empty outside a repository with a commit."""
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changed = _git(root, "--no-optional-locks", "status", "--porcelain", "--untracked-files=no")
    return {"git.commit": commit, "git.dirty": "true" if changed else "false"}


def input_tags(stage: str, root: Path) -> dict[str, str]:
    """DVC's digest of each result of an earlier stage that `stage` reads, by dvc.yaml and dvc.lock; empty without them."""
    import yaml

    try:
        stages = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]
        lock = yaml.safe_load((root / "dvc.lock").read_text())["stages"]
    except FileNotFoundError:
        return {}
    made = {out["path"]: out["md5"] for entry in lock.values() for out in entry.get("outs", ()) if "md5" in out}
    return {f"dvc.{path}": made[path] for path in stages.get(stage, {}).get("deps", ()) if path in made}


def dataset_tags(layout: Layout) -> dict[str, str]:
    """Content digests of the ingested and of the validated dataset, as far as they exist."""
    tags = {}
    for name, folder in (("dataset", layout.dataset), ("validated", layout.validated)):
        try:
            tags[f"{name}.digest"] = str(json.loads((folder / "dataset.json").read_bytes())["digest"])
        except (FileNotFoundError, KeyError, json.JSONDecodeError):
            continue  # not made yet, or another stage's fault to report
    return tags


def _git(root: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
