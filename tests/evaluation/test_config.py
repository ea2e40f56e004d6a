"""Settings of evaluation: the shipped values check, wrong ones name field and rule."""

import pydantic
import pytest
import yaml

from pipeline.errors import ConfigError
from pipeline.evaluation.config import EvaluateConfig


def checked(root, **changes):
    values = yaml.safe_load((root / "conf/evaluate/default.yaml").read_text())
    return pydantic.TypeAdapter(EvaluateConfig).validate_python(values | changes)


def test_shipped_values_are_cocos(root):
    settings = checked(root)
    assert settings.engine == "hotcoco"
    assert settings.max_detections == 100
    assert settings.split == "val"


@pytest.mark.parametrize(("field", "value"), [("batch", 0), ("max_detections", 9), ("drawing_score", 1.5), ("sheet", -1)])
def test_a_broken_rule_names_the_field(root, field, value):
    with pytest.raises(ConfigError, match=f"evaluate.{field}={value}"):
        checked(root, **{field: value})


@pytest.mark.parametrize("changes", [{"engine": "own"}, {"batches": 3}, {"batch": "many"}])
def test_unknown_choices_keys_and_types_are_refused(root, changes):
    with pytest.raises(pydantic.ValidationError):
        checked(root, **changes)
