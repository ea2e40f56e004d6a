"""docs/faults.md: what each fault did, from a run of the tests; no outcome is written by hand.

The tests of tests/faults add to work/faults.json; `python -m tests.faults.outcomes` takes that over into the page.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUN, KEPT, PAGE = ROOT / "work/faults.json", ROOT / "docs/faults.json", ROOT / "docs/faults.md"
COLUMNS = ("Fault", "The run", "Afterwards")
Outcomes = Mapping[str, Mapping[str, str]]


def record(fault: str, run: str, afterwards: str) -> None:
    """Keep what was seen, in work/faults.json."""
    known = json.loads(RUN.read_text()) if RUN.exists() else {}
    known[fault] = {"run": run, "afterwards": afterwards}
    RUN.parent.mkdir(exist_ok=True)
    RUN.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def page(outcomes: Outcomes) -> str:
    """The whole of docs/faults.md."""
    rows = [(fault, seen["run"], seen["afterwards"]) for fault, seen in sorted(outcomes.items())]
    lines = [COLUMNS, ["---"] * len(COLUMNS), *rows]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return (
        "# Faults and what they did\n\n"
        "Written by `python -m tests.faults.outcomes` from the last run of `pytest -m faults`: servers, workers, disks and\n"
        "clocks are disturbed in the middle of real work, and each cell says what was seen.\n\n" + table + "\n"
    )


def main() -> int:
    """Add the last run's outcomes to those kept, and write the page."""
    kept = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    kept |= json.loads(RUN.read_text()) if RUN.exists() else {}
    KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
