"""README: what it shows and points to is there."""

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "README.md").read_text()


def test_every_picture_and_link_exists(readme: str, root: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in target]
    assert len(targets) >= 3 and not [target for target in targets if not (root / target).is_file()]


def test_every_choice_and_setting_it_names_exists(readme: str, root: Path) -> None:
    """`model=x`, `dataset=x` ... name files of conf/, dotted keys its settings; one mistake is shown on purpose."""
    from pipeline import settings

    groups = {path.name for path in (root / "conf").iterdir() if path.is_dir()}
    named = re.findall(rf"\b({'|'.join(groups)})=([\w,]+)", readme)
    wrong = {
        f"{group}={name}"
        for group, names in named
        for name in names.split(",")
        if not (root / f"conf/{group}/{name}.yaml").exists()
    }
    assert wrong == {"model=faster_rcn", "model=mask_rcnn_r_50_fpn_3x"}, "the second is written by the line above it"
    values = settings.read_params(root)
    keys = set(re.findall(rf"\b((?:{'|'.join(groups)})(?:\.[a-z_0-9]+)+)\b", readme))
    unknown = [key for key in keys if not known(values, key.split("."))]
    assert not [key for key in unknown if key.rsplit(".", 1)[1] not in {"sha256", "json", "md", "yaml", "csv", "html"}], unknown


def known(values: object, parts: list[str]) -> bool:
    return not parts or (isinstance(values, dict) and parts[0] in values and known(values[parts[0]], parts[1:]))
