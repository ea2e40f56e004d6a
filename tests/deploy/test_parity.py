"""The gate's rules, on made-up figures; tests/stages runs it on real files."""

from dataclasses import dataclass
from typing import ClassVar

import pytest

from pipeline.deploy.config import Gate
from pipeline.deploy.parity import Parity
from pipeline.errors import GateError
from pipeline.evaluation.metrics import Metrics, Table
from pipeline.tasks import Task

GATE = Gate(fp32_ap=0.001, int8_ap=0.02)


@dataclass
class Made(Metrics):
    """Made-up figures."""

    ap: float
    classes: dict[str, float]
    task: Task = "bbox"
    shown: ClassVar[tuple[str, ...]] = ("AP", "AP50", "AP75")

    @property
    def numbers(self) -> dict[str, float]:  # type: ignore[override]
        return {f"{self.task}/{name}": self.ap for name in ("AP", "AP50")}

    @property
    def per_class(self) -> dict[str, float]:
        return self.classes

    def tables(self) -> list[Table]:
        return []


def parity(torch: float, onnx: float, int8: float, task: Task = "bbox") -> Parity:
    classes = {"cat": torch, "dog": torch}
    worse = {"cat": int8, "dog": int8 - 0.1}
    return Parity({"torch": Made(torch, classes, task), "onnx": Made(onnx, classes, task), "int8": Made(int8, worse, task)})


def test_files_within_the_limits_pass() -> None:
    for passing in (parity(0.5, 0.5009, 0.481), parity(0.5, 0.4991, 0.6)):
        passing.require(GATE)
        assert passing.figures()["export/torch/AP"] == 0.5


@pytest.mark.parametrize("onnx", [0.4985, 0.5015])
def test_a_float_file_that_differs_either_way_is_refused(onnx: float) -> None:
    with pytest.raises(GateError, match=r"onnx file differs from torch by 0\.0015 AP; export\.gate\.fp32_ap allows 0\.001"):
        parity(0.5, onnx, 0.5).require(GATE)


def test_an_int8_file_that_loses_too_much_is_refused_and_the_worst_class_named() -> None:
    with pytest.raises(GateError, match=r"int8 file .*0\.0300 AP.*\n  class dog lost most: 0\.1300 AP\n.*float_layers"):
        parity(0.5, 0.5, 0.47).require(GATE)


def test_nan_does_not_pass() -> None:
    with pytest.raises(GateError):
        parity(0.5, 0.5, float("nan")).require(GATE)


def test_nothing_measured_is_not_proven() -> None:
    unmeasured = parity(-1.0, -1.0, -1.0)
    with pytest.raises(GateError, match="no label to measure on"):
        unmeasured.require(GATE)
    assert not any(value < 0 for value in unmeasured.figures().values())


def test_a_loss_on_hosts_with_exact_integers_counts_as_much() -> None:
    measured = parity(0.5, 0.5, 0.5)
    both = Parity({**measured.metrics, "int8_exact": Made(0.47, {"cat": 0.4, "dog": 0.5})})
    with pytest.raises(GateError, match=r"int8_exact file .*0\.0300 AP.*int8_ap"):
        both.require(GATE)
    assert both.figures()["export/int8_exact/AP_loss"] == pytest.approx(0.03)


def test_masks_are_held_to_the_same_limits_under_their_own_names() -> None:
    masks = parity(0.5, 0.5, 0.47, "segm")
    with pytest.raises(GateError, match=r"int8 file differs from torch by 0\.0300 AP of masks; export\.gate\.int8_ap"):
        masks.require(GATE)
    assert masks.figures()["export/int8/segm/AP_loss"] == pytest.approx(0.03)
    assert not masks.figures().keys() & parity(0.5, 0.5, 0.47).figures().keys()


def test_a_figure_of_zero_proves_nothing() -> None:
    """No file loses from 0: the stage says so."""
    assert parity(0.0, 0.0, 0.0).proves_nothing()
    assert not parity(0.001, 0.0, 0.0).proves_nothing()
