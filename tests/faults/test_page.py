"""docs/faults.md is what the recorded outcomes give, and no fault that the tests plant is missing."""

import json
import re
from pathlib import Path

from tests.faults.outcomes import KEPT, PAGE, page


def test_the_page_is_what_was_recorded() -> None:
    assert PAGE.read_text() == page(json.loads(KEPT.read_text()))


def test_every_planted_fault_has_a_row() -> None:
    texts = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    planted = {name for text in texts for name in re.findall(r'^    record\(\s*"(.+?)",', text, re.M)}
    assert len(planted) >= 6 and planted <= json.loads(KEPT.read_text()).keys()


def test_an_outcome_shows() -> None:
    assert "| It rains | wet | dry again |" in page({"It rains": {"run": "wet", "afterwards": "dry again"}})
