"""Markdown that says what was meant: cells that cannot break a table, and a YAML header in the Hugging Face Hub's form."""

import re
from collections.abc import Iterable, Mapping, Sequence

Cell = str | int | float | None

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~$&])")


def text(value: object) -> str:
    """Any text as one line of Markdown that shows exactly it: names of classes and files come from outside."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(value).split()))


def cell(value: Cell) -> str:
    """A value in a table: fractions with four digits, None as a dash."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return str(value)
        case float():
            return f"{value:.4f}"
        case _:
            return text(value)


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table; numbers are set to the right when every value of their column is one."""
    kept = [list(row) for row in rows]
    numeric = [
        bool(kept) and all(row[at] is None or isinstance(row[at], int | float) for row in kept) for at in range(len(columns))
    ]
    lines = [
        _line(map(text, columns)),
        _line("---:" if right else "---" for right in numeric),
        *(_line(map(cell, row)) for row in kept),
    ]
    return "\n".join(lines)


def bullets(facts: Mapping[str, Cell]) -> str:
    """One line per fact."""
    return "\n".join(f"- **{text(name)}**: {cell(value)}" for name, value in facts.items())


def document(header: Mapping[str, object], *parts: str) -> str:
    """A page with `header` as its YAML front matter; empty parts are left out."""
    import yaml

    front = yaml.safe_dump(dict(header), sort_keys=False, allow_unicode=True, width=1000)
    return "\n\n".join([f"---\n{front}---", *filter(None, parts)]) + "\n"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
