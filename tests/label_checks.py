"""docs/label-checks.md, from the checks and conf/validate/: `python -m tests.label_checks` writes it."""

import ast
import sys
from itertools import pairwise
from pathlib import Path

import yaml

from pipeline.labels.check import Fix
from pipeline.labels.checks import CHECKS
from pipeline.labels.limits import Limits

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/label-checks.md"
INTRODUCTION = """# Label checks

Written by `python -m tests.label_checks`.

`python -m pipeline validate` runs these over `data/dataset`. A severity is changed by `validate.severity.CODE=WORD`: error,
warning, info or ignore. `validate.fix=safe` mends errors and whatever loses no label (in bold), `validate.fix=all` all that has
a fix, `none` only reports. Every change is a line of `reports/validate/audit.json`, with the old and the new value.
How many planted faults each of them finds in real data: [label-checks-measured.md](label-checks-measured.md).
After training, `python -m pipeline suspects` compares the labels with the detector: `suspect-overlooked`, `suspect-location` and
`suspect-class` in `reports/suspects`.
"""
FIXES = "## Fixes\n"
LIMITS = """## Limits

Set by `validate.limits.NAME=VALUE`.
"""

FAMILIES = {
    "Structure": ("structure",),
    "Boxes": ("boxes", "duplicates"),
    "Masks": ("masks", "panoptic"),
    "Keypoints": ("keypoints",),
    "Pictures": ("images", "appearance", "near_pictures"),
    "Distribution": ("distribution",),
}


ELSEWHERE_INTRODUCTION = """## Who else looks for it

By the public documentation of the tools, read in November 2026: Datumaro's `validate` (its validators for detection and
segmentation), panlabel's `validate`, CleanVision's issue types, FiftyOne Brain (exact and near duplicates, leaky splits,
mistakenness), cleanlab's object-detection module. An empty cell means that its documentation does not name it; a tool's own view
of the same fault may be narrower or wider than ours. Checks that none of them documents have no row.
"""
TOOLS = ("Datumaro", "panlabel", "CleanVision", "FiftyOne Brain", "cleanlab")
D, P, C, F, L = TOOLS
ELSEWHERE = {
    "category-unknown": (D, P),
    "class-unused": (D,),
    "annotation-id-repeated": (P,),
    "image-id-repeated": (P,),
    "box-not-finite": (D,),
    "box-zero-area": (D, P),
    "box-outside": (P,),
    "box-partly-outside": (P,),
    "box-extreme-aspect": (D, P),
    "box-unlike-class": (D,),
    "box-near-duplicate-other-class": (L,),
    "image-in-two-splits": (F,),
    "image-repeated": (C, F),
    "mask-empty": (D,),
    "image-near-leaked": (F,),
    "image-near-repeated": (C, F),
    "image-size-unknown": (P,),
    "image-unlabelled": (D, P),
    "image-empty": (D, P),
    "image-grey": (C,),
    "image-near-empty": (C,),
    "image-blurred": (C,),
    "image-overexposed": (C,),
    "image-underexposed": (C,),
    "image-small": (C,),
    "class-imbalance": (D,),
    "class-rare": (D,),
    "suspect-overlooked": (F, L),
    "suspect-location": (F, L),
    "suspect-class": (F, L),
}
"""Code -> tools that document a check of the same fault."""


def page() -> str:
    """The whole page."""
    shipped = yaml.safe_load((ROOT / "conf/validate/default.yaml").read_text())
    parts = [INTRODUCTION]
    for title, modules in FAMILIES.items():
        checks = [check for check in CHECKS.values() if check.__module__.rpartition(".")[2] in modules]
        rows = [(f"`{c.code}`", shipped["severity"][c.code], c.explanation(), _fix(c.fix)) for c in checks]
        parts += [f"## {title}\n", table(("Code", "Severity", "What", "Fix"), rows) + "\n"]
    known = attribute_docs(ROOT / "pipeline/labels/check.py", "Fix")
    parts += [FIXES, table(("Fix", "What it does"), [(_fix(fix), known[fix.name]) for fix in Fix]) + "\n"]
    known = attribute_docs(ROOT / "pipeline/labels/limits.py", "Limits")
    rows = [(f"`{name}`", f"{shipped['limits'][name]}", known[name]) for name in Limits.__dataclass_fields__]
    parts += [LIMITS, table(("Limit", "Shipped", "Meaning"), rows) + "\n"]
    shared = [(f"`{code}`", *("yes" if tool in tools else "" for tool in TOOLS)) for code, tools in ELSEWHERE.items()]
    return "\n".join([*parts, ELSEWHERE_INTRODUCTION, table(("Code", *TOOLS), shared) + "\n"])


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def attribute_docs(path: Path, name: str) -> dict[str, str]:
    """The text below each attribute of a class, on one line."""
    body = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef) and node.name == name).body
    found = {}
    for node, after in pairwise(body):
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[target.id] = " ".join(str(after.value.value).split())
    return found


def _fix(fix: Fix | None) -> str:
    return "" if fix is None else f"**{fix}**" if fix.harmless else str(fix)


def main() -> int:
    """Write the page."""
    PAGE.write_text(page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
