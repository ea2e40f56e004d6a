"""docs/label-checks.md says what the code does."""

from pathlib import Path

from pipeline.labels.check import Fix
from pipeline.labels.checks import CHECKS
from pipeline.labels.suspects import Kind
from tests.label_checks import ELSEWHERE, FAMILIES, page


def test_the_page_is_fresh(root: Path) -> None:
    written = (root / "docs/label-checks.md").read_text()
    assert written == page(), "write it anew: python -m tests.label_checks"


def test_it_lists_every_check_and_every_fix() -> None:
    text = page()
    modules = {module for family in FAMILIES.values() for module in family}
    assert {check.__module__.rpartition(".")[2] for check in CHECKS.values()} == modules
    listed = text.partition("## Who else")[0]
    assert [code for code in CHECKS if listed.count(f"| `{code}` |") != 1] == []
    assert set(ELSEWHERE) - set(CHECKS) == set(Kind)
    assert all(str(fix) in text for fix in Fix)
