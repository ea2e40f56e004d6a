"""Settings of the label checks."""

from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from pipeline.errors import ConfigError
from pipeline.labels.checks import CHECKS
from pipeline.labels.config import ValidateConfig

SHIPPED = yaml.safe_load(Path("conf/validate/default.yaml").read_text())


def load(**changes: object) -> ValidateConfig:
    return TypeAdapter(ValidateConfig).validate_python(SHIPPED | changes)


def test_shipped_settings_give_every_code_a_severity_in_the_reports_order() -> None:
    assert list(load().severity) == list(CHECKS)


def test_every_check_explains_itself_in_one_line() -> None:
    for code, check in CHECKS.items():
        assert check.code == code
        assert 20 < len(check.explanation()) < 140, code


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"severity": SHIPPED["severity"] | {"box-zero-aera": "info"}}, "Did you mean box-zero-area"),
        ({"severity": {}}, "validate.severity.annotation-orphan is missing"),
        ({"gate": SHIPPED["gate"] | {"annotations": 10}}, "validate.gate.annotations=10.*is a share"),
        ({"limits": SHIPPED["limits"] | {"near_duplicate_iou": 0.2}}, "validate.limits.near_duplicate_iou=0.2"),
        ({"limits": SHIPPED["limits"] | {"outside_px": -1}}, "validate.limits.outside_px"),
        ({"limits": SHIPPED["limits"] | {"max_pixels": 10**12}}, "validate.limits.max_pixels"),
        ({"page": {"pictures": -1, "rows": 1}}, "validate.page.pictures"),
    ],
)
def test_wrong_values_name_the_field(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(**changes)


def test_unknown_fix_and_severity_are_refused() -> None:
    for changes in ({"fix": "some"}, {"severity": SHIPPED["severity"] | {"box-outside": "fatal"}}):
        with pytest.raises(ValidationError):
            load(**changes)
