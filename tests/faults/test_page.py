"""docs/faults.md is what the recorded outcomes give."""

from tests.faults.outcomes import NOTED, PAGE, page, read


def test_the_page_is_what_was_noted() -> None:
    assert PAGE.read_text() == page(read(NOTED))
