"""The dataset card of data with planted faults."""

from pathlib import Path

import pytest
import yaml

from pipeline.labels.card import dataset_card
from pipeline.labels.validation import validate
from tests.labels.planted import Planted, settings


@pytest.fixture
def card(tmp_path: Path) -> str:
    """Of two splits with a box without area and one drawn twice."""
    planted = Planted(tmp_path)
    planted.box("train", "a.png", (10, 50, 10, 70), 3)
    planted.box("train", "b.png", (50, 20, 90, 70), 7)
    planted.box("val", "c.png", (0, 0, 100, 2.5), 7)
    return dataset_card(validate(planted.dataset(), settings(fix="safe", gate=1.0)), "0123abcd")


def test_counts_are_those_after_the_checks(card: str) -> None:
    assert "| train | 2 | 4 |" in card and "| val | 1 | 3 |" in card
    assert "| cat | 2 | 1 |" in card and "| dog | 2 | 2 |" in card


def test_sizes_are_cocos_and_the_shortest_side_is_found(card: str) -> None:
    assert "| train | 2 | 2 | 0 | 30.0000 |" in card  # 30 x 30 below 32², 40 x 50 above
    assert "| val | 2 | 1 | 0 | 2.5000 |" in card


def test_faults_found_and_mended_are_listed_by_code(card: str) -> None:
    assert "| box-zero-area | error | 1 | 1 |" in card and "| box-near-duplicate | error | 1 | 1 |" in card
    assert "box-not-finite" in card.split("Checked without a finding: ")[1]


def test_what_nobody_stated_is_said_to_be_so(card: str) -> None:
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["license"] == "unknown" and "license_name" not in header and header["size_categories"] == ["n<1K"]
    assert "not stated" in card and "0123abcd" in card
