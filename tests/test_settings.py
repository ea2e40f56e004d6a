"""Settings: every mistake is one line that names the field and the choices; a stale snapshot is noticed."""

import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from pipeline import settings
from pipeline.errors import ConfigError, UserError
from pipeline.layout import Layout


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A folder with its own conf/ and a fresh snapshot."""
    shutil.copytree(root / "conf", tmp_path / "conf")
    settings.write_params([], tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("model=faster_rcn", ["model=faster_rcn is not known", "Did you mean faster_rcnn_", "retinanet_r50_fpn"]),
        ("train.stps=5", ["train.stps is not known", "Did you mean steps?", "validate_every"]),
        ("train.optimizer.momentum=1", ["train.optimizer.momentum is not known", "weight_decay"]),
        ("modle.kind=x", ["modle.kind is not known", "Did you mean model?"]),
        ("train.steps=abc", ["train.steps='abc'", "integer"]),
        ("train.batch=0", ["train.batch=0", "above 0"]),
        ("train.ema=1", ["train.ema=1", "below 1"]),
        ("train.precision=half", ["train.precision='half'", "bfloat16"]),
        ("compute.processes=0", ["compute.processes=0", "one per GPU"]),
        ("compute.nodes=2", ["compute.rendezvous", "host:port"]),
        ("compute.rendezvous=here", ["compute.rendezvous='here'", "host:port"]),
        ("train.optimizer.kind=adam", ["train.optimizer.kind='adam'", "sgd", "adamw"]),
        ("train.augment.scale=[2,1]", ["train.augment.scale=[2.0, 1.0]", "rising"]),
        ("compute.device=gpu", ["compute.device='gpu'", "'cpu' or 'cuda'"]),
        ("+train.new=1", ["train.new is not known", "log_every"]),
        ("train.steps", ["train.steps is not an override", "field=value"]),
        ("train.optimizer={kind: sgd, lr: 0.1}", ["train.optimizer.momentum is missing"]),
        ("model.roi.select.score=[1]", ["model.roi.select.score=[1]", "number"]),
        ("seed=null", ["seed='null'", "integer"]),
    ],
)
def test_a_wrong_override_is_one_line_with_field_and_choices(root: Path, override: str, says: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.load([override], root)
    message = str(caught.value)
    assert "\n" not in message and message.startswith("config: ")
    assert [word for word in says if word not in message] == []
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "group", ["dataset", "model", "validate", "train", "evaluate", "quantize", "export", "compute", "tracking", "storage"]
)
def test_every_choice_of_every_group_composes(root: Path, group: str) -> None:
    choices = sorted(path.stem for path in (root / "conf" / group).glob("*.yaml"))
    assert choices
    for choice in choices:
        needed = [f"dataset.source={root}"] if group == "dataset" and choice != "shapes" else []
        settings.load([f"{group}={choice}", *needed], root)


def test_choices_are_those_of_the_chosen_group(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.classes is not known\. Choices: annotations, archive"):
        settings.load(["dataset=coco", "dataset.source=x", "dataset.classes=[a]"], root)


def test_overrides_reach_the_typed_settings(root: Path) -> None:
    loaded = settings.load(["train.steps=7", "model=retinanet_lite0_fpn"], root)
    assert loaded.train.steps == 7 and loaded.model.kind == "retinanet"


def test_the_committed_snapshot_is_fresh(root: Path) -> None:
    settings.check_params(root)
    assert settings.snapshot_overrides(root) == []


def test_a_forgotten_snapshot_fails_with_the_command_that_mends_it(checkout: Path) -> None:
    settings.check_params(checkout)
    path = checkout / "conf/train/default.yaml"
    path.write_text(path.read_text().replace("steps: 120", "steps: 121"))
    with pytest.raises(UserError, match=r"train\.steps\n.*python -m pipeline config$"):
        settings.check_params(checkout)
    settings.write_params([], checkout)
    settings.check_params(checkout)


def test_a_snapshot_with_overrides_stays_fresh_until_conf_changes(checkout: Path) -> None:
    settings.write_params(["train.steps=9", "model.rpn.nms=0.6"], checkout)
    settings.check_params(checkout)
    assert settings.load(root=checkout).train.steps == 9
    path = checkout / "conf/train/default.yaml"
    path.write_text(path.read_text().replace("batch: 8", "batch: 4"))
    with pytest.raises(UserError, match=r"train\.batch\n.*config train\.steps=9 model\.rpn\.nms=0\.6"):
        settings.check_params(checkout)


def test_an_edited_snapshot_is_noticed(checkout: Path) -> None:
    path = checkout / "params.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 5"))
    with pytest.raises(UserError, match="seed"):
        settings.check_params(checkout)


def test_a_snapshot_that_dvc_composed_is_checked_for_its_values(checkout: Path) -> None:
    """`dvc exp run` and `dvc exp apply` write it without a note of the overrides; those are the user's choice all the same."""
    values = settings.compose(["train.steps=9"], checkout)
    (checkout / "params.yaml").write_text(yaml.safe_dump(values))
    settings.check_params(checkout)
    assert settings.load((), checkout).train.steps == 9
    values["train"]["steps"] = -1
    (checkout / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=r"train\.steps"):
        settings.check_params(checkout)


def test_an_equal_snapshot_is_not_rewritten(checkout: Path) -> None:
    before = (checkout / "params.yaml").stat().st_mtime_ns
    settings.write_params([], checkout)
    assert (checkout / "params.yaml").stat().st_mtime_ns == before


def test_a_wrong_setting_leaves_the_snapshot_alone(checkout: Path) -> None:
    before = (checkout / "params.yaml").read_bytes()
    with pytest.raises(ConfigError):
        settings.write_params(["train.steps=-1"], checkout)
    assert (checkout / "params.yaml").read_bytes() == before


def test_a_stage_gets_its_own_groups(root: Path) -> None:
    stage = settings.stage_config("train", settings.load(["train.steps=7"], root), Layout(root))
    assert {field.name for field in fields(stage)} == {"layout", *(key.split(".")[0] for key in stage.params())}
    assert stage.train.steps == 7


def test_a_stage_refuses_a_stale_snapshot(checkout: Path) -> None:
    path = checkout / "conf/train/default.yaml"
    path.write_text(path.read_text().replace("batch: 8", "batch: 4"))
    with pytest.raises(UserError, match=r"train\.batch\n.*python -m pipeline config"):
        settings.load(root=checkout)
    assert settings.load(["seed=1"], checkout).train.batch == 4


@pytest.mark.parametrize("path", ["/tmp/my data é", "/a,b/c", "/a=b", "/a (b)/c", "/a'b", "/a#b", "/a{b}", 'plain/a"b', "C\\d e"])
def test_any_path_can_be_given_as_it_is(root: Path, path: str) -> None:
    assert settings.compose(["dataset=voc", f"dataset.source={path}"], root)["dataset"]["source"] == path


def test_a_malformed_override_is_one_line(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"^config: train\.steps=\[1 cannot be read"):
        settings.load(["train.steps=[1"], root)


@pytest.mark.parametrize(
    ("source", "watched"),
    [
        ("/data/set", "/data/set"),
        ("file:///data/set", "/data/set"),
        ("s3://bucket/set", "source.json"),
        ("https://h/a.zip", "source.json"),
    ],
)
def test_what_dvc_watches_follows_from_the_source(root: Path, source: str, watched: str) -> None:
    assert settings.load(["dataset=yolo", f"dataset.source={source}"], root).dataset.watched == watched


def test_what_dvc_watches_is_not_to_be_set(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.watched='elsewhere' does not follow from dataset\.source"):
        settings.load(["dataset=yolo", "dataset.source=/data/set", "dataset.watched=elsewhere"], root)


def train_stage(root: Path, *overrides: str) -> settings.Stage:
    return settings.stage_config("train", settings.load(overrides, root), Layout(root))


def test_a_stage_comes_back_from_its_file_as_it_was(root: Path, tmp_path: Path) -> None:
    stage = train_stage(root, "train.steps=7", "model=retinanet_lite0_fpn")
    stage.write(tmp_path / "settings.json")
    assert type(stage).read(tmp_path / "settings.json") == stage


def test_unfinished_work_belongs_to_its_settings_and_inputs(root: Path, tmp_path: Path) -> None:
    labels = tmp_path / "dataset.json"
    labels.write_text("one")
    first = train_stage(root, "train.steps=7").digest([labels])
    assert train_stage(root, "train.steps=7", "compute.workers=5", "train.checkpoint_every=3").digest([labels]) == first
    changed = ("train.steps=8", "seed=1", "compute.threads=7", "compute.processes=3", "model.rpn.nms=0.6", "train.ema=0.9")
    digests = {first} | {train_stage(root, "train.steps=7", change).digest([labels]) for change in changed}
    labels.write_text("two")
    digests.add(train_stage(root, "train.steps=7").digest([labels]))
    assert len(digests) == len(changed) + 2
