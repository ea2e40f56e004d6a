"""docs/faults.md, from what the tests of faults saw.

`pytest -m faults --faults docs/faults.json` adds what each test that passed has noted; `python -m tests.faults.outcomes` writes
the page. A row is never written by hand.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTED, PAGE = ROOT / "docs/faults.json", ROOT / "docs/faults.md"
INTRODUCTION = """# What happens when something fails

Written by `python -m tests.faults.outcomes` from what the tests marked `faults` saw: each plants the fault named here, looks at
what the run says of it, and starts the run again. Nothing was left half-written in any of them.

| Fault | The run | Started again |
| --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A row of the table."""

    fault: str
    run: str
    """How the run that met the fault ended."""
    again: str
    """How the next one did."""


class Noted:
    """What the tests of one session noted, by test."""

    def __init__(self) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self.passed: set[str] = set()

    def merged(self, known: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
        """`known` with the notes of the tests that passed in place of theirs; sorted."""
        new = {test: asdict(outcome) for test, outcome in self.outcomes.items() if test in self.passed}
        return dict(sorted({**known, **new}.items()))


def page(noted: Mapping[str, Mapping[str, str]]) -> str:
    """The page as it should be."""
    rows = sorted((Outcome(**one) for one in noted.values()), key=lambda one: one.fault)
    return INTRODUCTION + "".join(f"| {one.fault} | {one.run} | {one.again} |\n" for one in rows)


def read(file: Path) -> dict[str, Mapping[str, str]]:
    """What was noted in `file`; nothing where there is none."""
    noted: dict[str, Mapping[str, str]] = json.loads(file.read_text()) if file.exists() else {}
    return noted


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(read(NOTED)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
