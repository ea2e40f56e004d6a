"""README: what it shows and points to is there."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.architectures import ARCHITECTURES, table, with_table


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text()


def test_every_picture_and_link_exists(readme: str, root: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in target]
    assert len(targets) >= 3 and not [target for target in targets if not (root / target).is_file()]


def test_every_choice_and_setting_it_names_exists(readme: str, root: Path) -> None:
    """`model=x`, `dataset=x` ... name files of conf/, dotted keys its settings; one mistake is shown on purpose."""
    from pipeline import settings
    from pipeline.events import CHANGED, DRIFTED

    groups = {path.name for path in (root / "conf").iterdir() if path.is_dir()}
    named = re.findall(rf"\b({'|'.join(groups)})=([\w,]+)", readme)
    wrong = {
        f"{group}={name}"
        for group, names in named
        for name in names.split(",")
        if not (root / f"conf/{group}/{name}.yaml").exists()
    }
    assert wrong == {"model=faster_rcn", "model=mask_rcnn_r_50_fpn_3x"}, "the second is written by the line above it"
    files = [{path.parent.name: yaml.safe_load(path.read_text())} for path in root.glob("conf/*/*.yaml")]
    choices = [settings.read_params(root), *files]
    keys = set(re.findall(rf"\b((?:{'|'.join(groups)})(?:\.[a-z_0-9]+)+)\b", readme)) - {CHANGED, DRIFTED}
    unknown = [key for key in keys if not any(known(values, key.split(".")) for values in choices)]
    assert not [key for key in unknown if key.rsplit(".", 1)[1] not in {"json", "md", "yaml", "csv", "html", "py"}], unknown


def known(values: object, parts: list[str]) -> bool:
    return not parts or (isinstance(values, dict) and parts[0] in values and known(values[parts[0]], parts[1:]))


def test_the_table_of_architectures_is_what_the_recorded_run_gave(readme: str, root: Path) -> None:
    assert readme == with_table(readme, json.loads((root / "docs/architectures.json").read_text()))
    rows = {one.full for one in ARCHITECTURES} | {one.tiny for one in ARCHITECTURES}
    assert rows <= {path.stem for path in (root / "conf/model").glob("*.yaml")}
    assert {path.stem for path in (root / "conf/model").glob("*_tiny.yaml")} <= rows, "an architecture is missing in the table"


def test_a_failed_and_a_missing_outcome_show() -> None:
    """The table cannot say yes of what did not pass."""
    kit = "tests/parity/test_architectures.py::test_features[rpn_R50_FPN]"
    line = "tests/line/test_architectures.py::test_the_line_runs[rpn_tiny]"
    first = table({kit: "passed", line: "failed"}).splitlines()[2]
    assert first.startswith("| RPN | `rpn_r50_fpn` | **no** | **no** | yes kit `rpn_R50_FPN` | **no** | not run |")


@pytest.mark.kernels
def test_the_table_of_operators_is_what_the_sources_say(readme: str) -> None:
    from tests import operators

    assert readme == operators.with_table(readme), "run python -m tests.operators"
