"""Public YAML configs: inheritance, defaults, text tuples, nothing executed; a zoo model with two overrides."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline import settings
from pipeline.commands import zoo
from pipeline.detector.pretrained.detectron2.translate import translate
from pipeline.detector.pretrained.detectron2.zoo import DEFAULTS, EXPRESSIONS, zoo_config, zoo_options
from pipeline.errors import ConfigError, DataError
from tests.detector.models import read_config

BASE_FPN = """
MODEL:
  META_ARCHITECTURE: "GeneralizedRCNN"
  BACKBONE:
    NAME: "build_resnet_fpn_backbone"
  RESNETS:
    OUT_FEATURES: ["res2", "res3", "res4", "res5"]
  FPN:
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
  ANCHOR_GENERATOR:
    SIZES: [[32], [64], [128], [256], [512]]
    ASPECT_RATIOS: [[0.5, 1.0, 2.0]]
  RPN:
    IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"]
    PRE_NMS_TOPK_TRAIN: 2000
    PRE_NMS_TOPK_TEST: 1000
    POST_NMS_TOPK_TRAIN: 1000
    POST_NMS_TOPK_TEST: 1000
  ROI_HEADS:
    NAME: "StandardROIHeads"
    IN_FEATURES: ["p2", "p3", "p4", "p5"]
  ROI_BOX_HEAD:
    NAME: "FastRCNNConvFCHead"
    NUM_FC: 2
    POOLER_RESOLUTION: 7
  ROI_MASK_HEAD:
    NAME: "MaskRCNNConvUpsampleHead"
    NUM_CONV: 4
    POOLER_RESOLUTION: 14
DATASETS:
  TRAIN: ("coco_2017_train",)
  TEST: ("coco_2017_val",)
SOLVER:
  IMS_PER_BATCH: 16
  STEPS: (60000, 80000)
INPUT:
  MIN_SIZE_TRAIN: (640, 672, 704, 736, 768, 800)
VERSION: 2
"""
MASK = """
_BASE_: "../Base-RCNN-FPN.yaml"
MODEL:
  WEIGHTS: "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
  MASK_ON: True
  PIXEL_STD: "(1.0, 1.0, 1.0)"
  RESNETS:
    DEPTH: 50
SOLVER:
  STEPS: (210000, 250000)
"""
RETINANET = """
MODEL:
  META_ARCHITECTURE: "RetinaNet"
  BACKBONE: {NAME: "build_retinanet_resnet_fpn_backbone"}
  RESNETS: {OUT_FEATURES: ["res3", "res4", "res5"]}
  ANCHOR_GENERATOR:
    SIZES: !!python/object/apply:eval ["[[x, x * 2**(1.0/3), x * 2**(2.0/3) ] for x in [32, 64, 128, 256, 512 ]]"]
  FPN: {IN_FEATURES: ["res3", "res4", "res5"]}
  RETINANET:
    IOU_THRESHOLDS: [0.4, 0.5]
    IOU_LABELS: [0, -1, 1]
    SMOOTH_L1_LOSS_BETA: 0.0
SOLVER: {BASE_LR: 0.01}
VERSION: 2
"""


DENSEPOSE = """
_BASE_: "Base-RCNN-FPN.yaml"
MODEL:
  DENSEPOSE_ON: True
  ROI_HEADS: {NAME: "DensePoseROIHeads", NUM_CLASSES: 1}
  ROI_BOX_HEAD: {POOLER_SAMPLING_RATIO: 2, POOLER_TYPE: "ROIAlign"}
  ROI_DENSEPOSE_HEAD: {NAME: "DensePoseV1ConvXHead", POOLER_TYPE: "ROIAlign", NUM_COARSE_SEGM_CHANNELS: 2}
"""
TENSORMASK = """
MODEL:
  META_ARCHITECTURE: "TensorMask"
  MASK_ON: True
  BACKBONE: {NAME: "build_retinanet_resnet_fpn_backbone"}
  RESNETS: {DEPTH: 50, OUT_FEATURES: ["res2", "res3", "res4", "res5"]}
  ANCHOR_GENERATOR:
    SIZES: [[44, 60], [88, 120], [176, 240], [352, 480], [704, 960], [1408, 1920]]
    ASPECT_RATIOS: [[1.0]]
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"], FUSE_TYPE: "avg"}
  TENSOR_MASK: {ALIGNED_ON: True, BIPYRAMID_ON: True}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "COCO").mkdir()
    (tmp_path / "Base-RCNN-FPN.yaml").write_text(BASE_FPN)
    (tmp_path / "COCO/mask_rcnn_R_50_FPN_3x.yaml").write_text(MASK)
    (tmp_path / "retinanet_R_50_FPN_1x.yaml").write_text(RETINANET)
    (tmp_path / "densepose_rcnn_R_50_FPN_s1x.yaml").write_text(DENSEPOSE)
    (tmp_path / "tensormask_R_50_FPN_6x.yaml").write_text(TENSORMASK)
    return tmp_path


def test_the_zoos_files_are_our_presets(folder: Path) -> None:
    assert zoo_config(folder / "COCO/mask_rcnn_R_50_FPN_3x.yaml") == read_config("mask_rcnn_r50_fpn")
    assert zoo_config(folder / "retinanet_R_50_FPN_1x.yaml") == read_config("retinanet_r50_fpn")
    assert zoo_config(folder / "Base-RCNN-FPN.yaml") == read_config("faster_rcnn_r50_fpn")


def test_the_files_of_projects_are_our_presets(folder: Path) -> None:
    """They leave most to the defaults of their projects."""
    assert zoo_config(folder / "densepose_rcnn_R_50_FPN_s1x.yaml") == read_config("densepose_rcnn_r50_fpn")
    assert zoo_config(folder / "tensormask_R_50_FPN_6x.yaml") == read_config("tensormask_r50_fpn")


def test_confidences_that_a_file_switches_on_are_learnt(folder: Path) -> None:
    path = folder / "wc1.yaml"
    text = "{ROI_DENSEPOSE_HEAD: {UV_CONFIDENCE: {ENABLED: True, TYPE: iid_iso}}}"
    path.write_text(f'_BASE_: "densepose_rcnn_R_50_FPN_s1x.yaml"\nMODEL: {text}\n')
    cfg = zoo_config(path)
    assert cfg.roi.densepose.uv_confidence.kind == "iid_iso"


def test_limits_of_proposals_are_the_models(folder: Path) -> None:
    path = folder / "own.yaml"
    limits = "DATASETS: {PRECOMPUTED_PROPOSAL_TOPK_TEST: 300}"
    path.write_text(f'_BASE_: "Base-RCNN-FPN.yaml"\nMODEL: {{PROPOSAL_GENERATOR: {{NAME: PrecomputedProposals}}}}\n{limits}\n')
    assert (zoo_config(path).proposals.train, zoo_config(path).proposals.test) == (2000, 300)
    path.write_text(f'_BASE_: "Base-RCNN-FPN.yaml"\n{limits}\n')
    assert zoo_config(path) == read_config("faster_rcnn_r50_fpn")


def test_a_config_written_out_whole_has_sections_of_others(folder: Path) -> None:
    path = folder / "config.yaml"
    others = "{RETINANET: {NUM_CONVS: 9}, SEM_SEG_HEAD: {NORM: GN}, TENSOR_MASK: {NUM_CONVS: 2}, PANOPTIC_FPN: {SPARKLE: 1}}"
    path.write_text(f'_BASE_: "Base-RCNN-FPN.yaml"\nMODEL: {others}\n')
    assert zoo_config(path) == read_config("faster_rcnn_r50_fpn")
    path.write_text('_BASE_: "retinanet_R_50_FPN_1x.yaml"\nMODEL: {RPN: {NMS_THRESH: 0.3}, ROI_HEADS: {NUM_CLASSES: 3}}\n')
    assert zoo_config(path) == read_config("retinanet_r50_fpn")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{RESNETS: {DEPTH: 18}}", r"RES2_OUT_CHANNELS=256"),
        ("{ROI_BOX_HEAD: {BBOX_REG_LOSS_TYPE: huber}}", r"MODEL\.ROI_BOX_HEAD\.BBOX_REG_LOSS_TYPE='huber'"),
        ("{META_ARCHITECTURE: RetinaNet, RETINANET: {NORM: naiveSyncBN}}", r"MODEL\.RETINANET\.NORM"),
    ],
)
def test_values_that_are_not_built_are_one_line(folder: Path, content: str, named: str) -> None:
    path = folder / "own.yaml"
    path.write_text(f'_BASE_: "Base-RCNN-FPN.yaml"\nMODEL: {content}\n')
    with pytest.raises(ConfigError, match=named):
        zoo_config(path)


def test_confidences_need_a_loss_that_knows_them(folder: Path) -> None:
    path = folder / "own.yaml"
    text = "{ROI_DENSEPOSE_HEAD: {UV_CONFIDENCE: {ENABLED: True}, LOSS_NAME: DensePoseChartLoss}}"
    path.write_text(f'_BASE_: "densepose_rcnn_R_50_FPN_s1x.yaml"\nMODEL: {text}\n')
    with pytest.raises(ConfigError, match=r"ROI_DENSEPOSE_HEAD\.LOSS_NAME"):
        zoo_config(path)


def test_flat_anchors_are_those_of_every_level(folder: Path) -> None:
    path = folder / "own.yaml"
    path.write_text('_BASE_: "Base-RCNN-FPN.yaml"\nMODEL: {ANCHOR_GENERATOR: {ASPECT_RATIOS: [0.5, 1.0]}}\n')
    assert zoo_config(path).anchors.ratios == ((0.5, 1.0),)


def test_the_known_expression_is_what_python_makes_of_it() -> None:
    for text, value in EXPRESSIONS.items():
        assert eval(text.replace("forxin", "for x in ")) == value


def test_the_defaults_are_those_that_the_reference_ran_with(shared: Path) -> None:
    """Options of the kit that its configs leave alone: one of our values that no manifest has would show."""
    kits = [json.loads(path.read_bytes()).get("config", {}) for path in sorted((shared / "parity").glob("*R50*.json"))]
    for name, value in _flat(yaml.safe_load(DEFAULTS.read_text())).items():
        seen = [kit[name] for kit in kits if name in kit]
        changed_by_yaml = (
            "FPN.",
            "RPN.",
            "ROI_HEADS.",
            "ROI_BOX_HEAD.",
            "ROI_MASK_HEAD.",
            "_FEATURES",
            "BACKBONE.NAME",
            "ANCHOR",
            "ROI_DENSEPOSE_HEAD.NAME",
            "ROI_DENSEPOSE_HEAD.POOLER_TYPE",
        )
        if seen and not any(part in name for part in changed_by_yaml) and "SMOOTH_L1_LOSS_BETA" not in name:
            assert value in seen, name


def _flat(values: dict[str, object], at: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{at}{key}.") if isinstance(value, dict) else {f"{at}{key}": value}
    return flat


def test_what_is_not_understood_stops_by_name(folder: Path) -> None:
    path = folder / "own.yaml"
    path.write_text('_BASE_: "Base-RCNN-FPN.yaml"\nMODEL: {RPN: {SPARKLE: 1}}\n')
    with pytest.raises(ConfigError, match=r"MODEL\.RPN\.SPARKLE is not known"):
        zoo_config(path)
    path.write_text('_BASE_: "Base-RCNN-FPN.yaml"\nMODEL: {RPN: {HEAD_NAME: Other}}\n')
    with pytest.raises(ConfigError, match=r"MODEL\.RPN\.HEAD_NAME='Other'"):
        zoo_config(path)


def test_without_defaults_an_absent_option_still_stops(folder: Path) -> None:
    with pytest.raises(ConfigError, match="is missing"):
        translate(zoo_options(folder / "Base-RCNN-FPN.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('MODEL: !!python/object/apply:os.system ["true"]', "cannot be read"),
        ("MODEL: !!python/object/apply:eval [\"__import__('os').system('true')\"]", "not evaluated"),
        ("MODEL: !!python/tuple [1, 2]", "cannot be read"),
        ('_BASE_: "own.yaml"', "leads back"),
        ('_BASE_: "https://example.org/base.yaml"', "not the path of a file"),
        ('_BASE_: "absent.yaml"', "no such file"),
        ("- 1", "holds no options"),
    ],
)
def test_nothing_is_executed_and_faults_are_named(folder: Path, content: str, message: str) -> None:
    path = folder / "own.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        zoo_config(path)


def test_a_zoo_model_with_two_overrides(
    folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command writes the file of conf/model; its name and the weights' are all that is said then."""
    shutil.copytree(root / "conf", folder / "conf")
    monkeypatch.chdir(folder)
    zoo.run(["COCO/mask_rcnn_R_50_FPN_3x.yaml"])
    assert "model=mask_rcnn_r_50_fpn_3x model.weights=" in capsys.readouterr().out
    chosen = settings.write_params(["model=mask_rcnn_r_50_fpn_3x", "model.weights=model_final.pkl"], folder)
    assert chosen.model.weights == "model_final.pkl" and chosen.model.kind == "faster_rcnn"
    assert settings.load((), folder).model == chosen.model, "params.yaml holds it"
    with pytest.raises(ConfigError, match="is taken by"):
        zoo.run(["COCO/mask_rcnn_R_50_FPN_3x.yaml"])
    with pytest.raises(ConfigError, match="takes the path"):
        zoo.run([])
