"""Retraining on half of the data, on all of it, and on corrupted labels: promoted, promoted by the rules, refused."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.layout import Layout
from tests.line.conftest import SETTINGS, Clone
from tests.stages.tiny import run_stages

pytestmark = [pytest.mark.line, pytest.mark.timeout(1200)]
CHOSEN = [*(word for word in SETTINGS if not word.startswith("dataset.")), "train.steps=240", "retrain.floor=0.05"]


def written(folder: Path, train: dict[str, Any], val: dict[str, Any]) -> Path:
    folder.mkdir()
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "val.json").write_text(json.dumps(val))
    return folder


def boxes_alone(content: dict[str, Any]) -> dict[str, Any]:
    """Labels without keypoints, whose number would give a changed class away to the label checks."""
    for one in (*content["categories"], *content["annotations"]):
        for name in ("keypoints", "num_keypoints", "skeleton"):
            one.pop(name, None)
    return content


@pytest.fixture(scope="module")
def versions(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A source of shapes, and its label files: with half of the training pictures, with all, and with classes drawn by lot."""
    folder = tmp_path_factory.mktemp("versions")
    run_stages(root, Layout(folder), ["ingest"], ("dataset.train=96", "dataset.val=48"))
    source = folder / "source"
    (source / "images").parent.mkdir()
    shutil.copytree(folder / "data/dataset/images", source / "images")
    train, val = (boxes_alone(json.loads((folder / f"data/dataset/{name}.json").read_bytes())) for name in ("train", "val"))
    kept = {image["id"] for image in train["images"][::2]}
    half = train | {
        "images": [image for image in train["images"] if image["id"] in kept],
        "annotations": [one for one in train["annotations"] if one["image_id"] in kept],
    }
    chance, ids = random.Random(0), [one["id"] for one in train["categories"]]
    spoilt = train | {"annotations": [one | {"category_id": chance.choice(ids)} for one in train["annotations"]]}
    labels = {"half": half, "all": train, "all_again": train, "spoilt": spoilt}
    return source, [written(folder / name, content, val) for name, content in labels.items()]


def test_the_rules_promote_what_is_better_and_refuse_what_is_not(
    versions: tuple[Path, list[Path]], clone: Callable[[str], Clone]
) -> None:
    source, folders = versions
    made = clone("retrained")
    words = [*CHOSEN, "dataset=coco", f"dataset.source={source}", "retrain.start=champion"]
    said = made.run("tests.line.retrain_thrice", str(source), *map(str, folders), *words, seconds=1100)
    states = json.loads(next(line for line in said.splitlines() if line.startswith('[{"type"')))
    assert [(state["type"], state["name"]) for state in states] == [
        ("COMPLETED", "Promoted"),
        ("COMPLETED", "Promoted"),
        ("COMPLETED", "NothingNew"),
        ("COMPLETED", "Refused"),
    ], said
    assert "floor" not in states[1]["message"] and "better" in states[3]["message"]
    pages = sorted(made.folder.glob("work/runs/*/reports/retrain/decision.json"), key=lambda path: path.stat().st_mtime)
    first, second, refused = (json.loads(page.read_bytes()) for page in pages)
    assert first["difference"] is None and second["difference"]["low"] > 0
    assert refused["difference"]["low"] < 0 and not refused["promoted"]

    assert "version           2" in made.run("pipeline", "champion")
    told = made.run("pipeline", "rollback", "why=a test")
    assert "is version 1 again, no longer 2" in told and "a test" in told
    assert made.run("pipeline", "rollback", ok=False).count("none was in service before it") == 1
