"""Each rule of promotion: what breaks it, and its clean twin."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.deploy.config import Gate
from pipeline.evaluation.coco import measure
from pipeline.evaluation.comparison import Matches
from pipeline.evaluation.found import Predictions
from pipeline.evaluation.truth import Truth
from pipeline.promotion.config import RetrainConfig
from pipeline.promotion.markdown import decision_markdown
from pipeline.promotion.measured import Measured, Slice, renamed
from pipeline.promotion.page import decision_page
from pipeline.promotion.rules import Decision, judge, judge_first
from tests.evaluation.test_comparison import detector, scene

PICTURES = 90
GATE = Gate(fp32_ap=0.001, int8_ap=0.01)
SOUND = {"parity": {"torch": {"bbox/AP": 0.5}, "onnx": {"bbox/AP": 0.5}, "int8": {"bbox/AP": 0.495}}}


@pytest.fixture(scope="module")
def truth() -> Truth:
    return scene(5, pictures=PICTURES)


@pytest.fixture(scope="module")
def cfg(root) -> RetrainConfig:
    """As shipped, with fewer resamples."""
    return RetrainConfig(**yaml.safe_load((root / "conf/retrain/default.yaml").read_text()) | {"resamples": 200})


def measured(truth: Truth, found: Predictions, deploy: dict[str, Any] = SOUND, milliseconds: float = 10.0) -> Measured:
    return Measured("one", measure(truth, found, "hotcoco"), Matches.of(truth, found, "bbox"), milliseconds, deploy)


def decide(truth: Truth, champion: Predictions, challenger: Measured, cfg: RetrainConfig, slices=()) -> Decision:
    area_A = truth.area_A[~truth.crowd_A]
    return judge(measured(truth, champion), challenger, slices, area_A, cfg, GATE, seed=0)


def broken(decision: Decision) -> list[str]:
    assert decision.promoted == all(rule.holds for rule in decision.rules)
    return [rule.name for rule in decision.rules if not rule.holds]


def test_what_is_better_everywhere_is_promoted_and_what_is_equal_never(truth: Truth, cfg: RetrainConfig) -> None:
    worse, better = detector(truth, 0.4, 1), detector(truth, 0.85, 2)
    assert broken(decide(truth, worse, measured(truth, better), cfg)) == []
    assert broken(decide(truth, better, measured(truth, better), cfg)) == ["better"]
    assert {"better", "classes"} <= set(broken(decide(truth, better, measured(truth, worse), cfg)))


def test_the_margin_counts(truth: Truth, cfg: RetrainConfig) -> None:
    worse, better = detector(truth, 0.4, 1), measured(truth, detector(truth, 0.85, 2))
    low = decide(truth, worse, better, cfg).difference.low
    assert broken(decide(truth, worse, better, replace(cfg, margin=low - 0.001))) == []
    assert broken(decide(truth, worse, better, replace(cfg, margin=low + 0.001))) == ["better"]


def test_a_class_that_is_lost_is_refused_though_the_mean_is_better(truth: Truth, cfg: RetrainConfig) -> None:
    worse, better = detector(truth, 0.3, 1), detector(truth, 1.0, 2)
    lost = better.take(np.flatnonzero(better.category_ids_D != 2))
    decision = decide(truth, worse, measured(truth, lost), replace(cfg, slice_drop=1.0))
    assert decision.difference.low > 0 and broken(decision) == ["classes"]
    assert "b loses" in decision.reason
    few = replace(cfg, slice_drop=1.0, least_truths=10_000)  # too few labels to judge by
    assert broken(decide(truth, worse, measured(truth, lost), few)) == []


def test_a_class_that_the_data_no_longer_names_is_not_lost_in_silence(truth: Truth, cfg: RetrainConfig) -> None:
    worse = replace(measured(truth, detector(truth, 0.3, 1)), deploy=SOUND | {"classes": ["a", "b", "c", "gone"]})
    better = replace(measured(truth, detector(truth, 1.0, 2)), deploy=SOUND | {"classes": ["c", "b", "a", "new"]})
    area_A = truth.area_A[~truth.crowd_A]
    decision = judge(worse, better, [], area_A, cfg, GATE, seed=0)
    assert broken(decision) == ["known classes"] and "gone is gone" in decision.reason
    wanted = replace(cfg, class_drop=1.0)  # on purpose
    assert broken(judge(worse, better, [], area_A, wanted, GATE, seed=0)) == []


def test_a_slice_that_is_lost_is_refused_though_the_mean_is_better(truth: Truth, cfg: RetrainConfig) -> None:
    dark_I = np.arange(PICTURES) % 3 == 0
    slices = [Slice("dark pictures", dark_I), Slice("bright pictures", ~dark_I)]
    worse, better = detector(truth, 0.3, 1), detector(truth, 1.0, 2)
    blind = better.take(np.flatnonzero(~np.isin(better.image_ids_D, truth.image_ids_I[dark_I])))
    decision = decide(truth, worse, measured(truth, blind), replace(cfg, class_drop=1.0), slices)
    assert decision.difference.low > 0 and broken(decision) == ["slices"]
    assert "dark pictures loses" in decision.reason
    assert broken(decide(truth, worse, measured(truth, better), cfg, slices)) == []


def test_slices_and_classes_are_what_evaluating_them_alone_gives(truth: Truth, cfg: RetrainConfig) -> None:
    some_I = np.arange(PICTURES) < 20
    found = detector(truth, 0.7, 1)
    decision = decide(truth, found, measured(truth, found), cfg, [Slice("some", some_I)])
    ids = truth.image_ids_I[some_I]
    own = np.isin(truth.image_ids_A, ids)
    alone = replace(
        truth,
        image_ids_I=ids,
        **{name: getattr(truth, name)[own] for name in ("image_ids_A", "category_ids_A", "boxes_A4", "area_A", "crowd_A")},
    )
    expected = measure(alone, found.take(np.isin(found.image_ids_D, ids)), "pycocotools")
    (row,) = [row for row in decision.slices if row.name == "some"]
    assert row.champion == pytest.approx(expected.value, abs=1e-9)
    assert row.truths == int((own & ~truth.crowd_A).sum())


@pytest.mark.parametrize(
    "parity, wrong",
    [
        ({"onnx": {"bbox/AP": 0.49}}, ["onnx gate"]),
        ({"onnx": {"bbox/AP": 0.51}}, ["onnx gate"]),  # a file that differs is wrong, for better too
        ({"int8": {"bbox/AP": 0.48}}, ["int8 gate"]),
        ({"int8": {"bbox/AP": 0.52}}, []),
        ({"int8_exact": {"bbox/AP": 0.48}}, ["int8 gate"]),  # as hosts with exact products run it
        ({"int8_exact": {"bbox/AP": 0.5}, "int8": {"bbox/AP": 0.48}}, ["int8 gate"]),
        ({"int8_exact": {}}, ["int8 gate"]),
        ({"onnx": {}}, ["onnx gate"]),  # never measured
        ({"torch": {}}, ["onnx gate", "int8 gate"]),
    ],
)
def test_the_files_gates(truth: Truth, cfg: RetrainConfig, parity: dict[str, Any], wrong: list[str]) -> None:
    deploy = {"parity": SOUND["parity"] | parity}
    assert broken(judge_first(measured(truth, detector(truth, 0.8, 2), deploy), cfg, GATE)) == wrong


def test_floor_and_latency(truth: Truth, cfg: RetrainConfig) -> None:
    one = measured(truth, detector(truth, 0.8, 2), milliseconds=20.0)
    assert broken(judge_first(one, replace(cfg, floor=one.metrics.value, latency_ms=20.0), GATE)) == []
    assert broken(judge_first(one, replace(cfg, floor=one.metrics.value + 1e-6, latency_ms=19.9), GATE)) == ["floor", "latency"]


def test_classes_go_by_their_names(truth: Truth) -> None:
    """The champion knows the classes under other ids, one that is no more, and one less."""
    from pipeline.data.dataset import Category

    found = detector(truth, 0.8, 2)
    other = replace(found, category_ids_D=found.category_ids_D + 10)
    back = renamed(other, {11: "a", 12: "b", 13: "gone"}, [Category(1, "a"), Category(2, "b"), Category(3, "c")])
    assert sorted(back.category_ids_D.tolist()) == sorted(found.category_ids_D[found.category_ids_D != 3].tolist())


def test_page_and_markdown_show_every_rule(truth: Truth, cfg: RetrainConfig) -> None:
    champion, challenger = detector(truth, 0.8, 1), detector(truth, 0.4, 2)
    decision = decide(truth, champion, measured(truth, challenger), cfg)
    page = decision_page(decision, [measured(truth, challenger), measured(truth, champion)], cfg).html()
    text = decision_markdown({"detectors": ["challenger 2", "champion 1"], **decision.plain()})
    for rule in decision.rules:
        assert rule.figure in page and rule.limit in page
        assert rule.figure in text and rule.limit in text
    assert "Refused" in page and text.startswith("# Refused: challenger 2 against champion 1")
