"""How many faults the label checks find: `python benchmarks/labels.py [seed=0] [only=CODE,CODE]`.

Plants every kind of fault in copies of real data (the pack's BCCD and COCO sets), at drawn places and strengths, runs all checks
with the shipped settings, and writes docs/label-checks-measured.md: of each check the faults planted and found, and its findings
on the same data as it came. With `only` it prints those lines and writes nothing.
"""

import platform
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.faults.measure import Recall, measure, run, shipped
from benchmarks.faults.registry import NOT_PLANTED, PLANTERS
from benchmarks.faults.sets import SETS, make
from pipeline.labels.checks import CHECKS
from pipeline.labels.columns import Finding

PAGE = ROOT / "docs/label-checks-measured.md"
POOR = 0.9
"""Recall below which a line is put in bold."""
REAL: dict[tuple[str, str], tuple[int, str]] = {}
"""By code and dataset: how many of the findings on the data as it came are right, looked at one by one, and what they are."""
INTRODUCTION = """Written by `python benchmarks/labels.py`.

Faults of every kind were planted in copies of real data, at places and strengths drawn at random from what a user would call
faulty, not from the checks' own limits; then all checks ran with the settings of conf/validate/default.yaml. *Recall* counts the
faults that their own check named, at the label or picture at fault (in bold below 90 %); *missed* says which ways of planting
escaped it, and how many of those another check named. *Alarms* are findings on the same data as it came: their number, and per
1,000 labels, or pictures, or, of faults of the dataset as a whole, just their number."""


def main() -> None:
    """Measure, print and write."""
    if wrong := [word for word in sys.argv[1:] if not word.startswith(("seed=", "only="))]:
        sys.exit(f"{wrong[0]} is not known\n\n{__doc__}")
    chosen = {"seed": "0", "only": ""} | dict(word.split("=", 1) for word in sys.argv[1:])
    codes = chosen["only"].split(",") if chosen["only"] else list(PLANTERS)
    checks, limits = shipped()
    with TemporaryDirectory() as folder:
        reals = {name: make(name, Path(folder) / name, limits.max_pixels) for name in SETS}
        counts: Counter[str] = Counter()
        known: dict[str, list[Finding]] = {}
        for name, real in reals.items():
            data = real.columns()
            counts += Counter(labels=len(data.ids_A), pictures=len(data.file_names))
            known[name] = run(checks, data)
        rows = []
        for code in sorted(codes, key=list(CHECKS).index):
            found = measure(PLANTERS[code], reals, known, checks, int(chosen["seed"]))
            alarms = [(name, finding) for name, findings in known.items() for finding in findings if finding.code == code]
            rows.append(line(code, found, alarms, counts))
            print(" | ".join(map(str, rows[-1])), flush=True)
    if not chosen["only"]:
        PAGE.write_text(page(rows, counts))


def line(code: str, found: Recall, alarms: list[tuple[str, Finding]], counts: Counter[str]) -> tuple[str, ...]:
    """One row of the table."""
    share = f"{found.share():.0%}"
    missed = found.missed()
    if found.elsewhere:
        missed.append(f"{found.elsewhere} of them named by another check")
    return (
        f"`{code}`",
        PLANTERS[code].what,
        ", ".join(PLANTERS[code].sets),
        str(found.planted.total()),
        str(found.found.total()),
        f"**{share}**" if found.share() < POOR else share,
        "; ".join(missed),
        quiet(code, alarms, counts),
    )


def quiet(code: str, alarms: list[tuple[str, Finding]], counts: Counter[str]) -> str:
    """The findings on the data as it came."""
    if not alarms:
        return "0"
    real = sum(REAL.get((code, name), (0, ""))[0] for name in SETS)
    _, first = alarms[0]
    per = "labels" if first.annotation is not None else "pictures" if first.image is not None else None
    said = f"{len(alarms)}" + (f", {real} of them real" if real else "")
    return said if per is None else f"{said}: {1000 * (len(alarms) - real) / counts[per]:.2f} per 1,000 {per}"


def page(rows: list[tuple[str, ...]], counts: Counter[str]) -> str:
    """docs/label-checks-measured.md."""
    head = ("Check", "Planted", "Data", "Faults", "Found", "Recall", "Missed", "Alarms on the data as it came")
    tools = [
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("numpy", "pillow", "numba", "pycocotools")),
    ]
    parts = [
        "# Label checks, measured",
        INTRODUCTION,
        table(head, rows),
        "## The data",
        "\n".join(f"- `{name}`: {what}" for name, what in SETS.items()),
        f"Together {counts['labels']} labels on {counts['pictures']} pictures. {', '.join(tools)}.",
    ]
    if REAL:
        parts += ["Findings on the data as it came that were looked at and are right:"]
        parts += ["\n".join(f"- `{code}` in {name}, {count}: {why}" for (code, name), (count, why) in REAL.items())]
    if NOT_PLANTED:
        parts += ["## Not planted", table(("Check", "Why"), list(NOT_PLANTED.items()))]
    return "\n\n".join(parts) + "\n"


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


if __name__ == "__main__":
    main()
