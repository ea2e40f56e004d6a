"""What the advice is: rows with one reason each, and the overrides that they stand for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    what: str
    value: str
    reason: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Advice:
    """The table, and what must be said plainly."""

    lines: tuple[Line, ...]
    warnings: tuple[str, ...]
    recall: float
    """Share of truths that the proposed anchors reach at `recall_iou`; NaN for a model without upright anchors."""

    def overrides(self) -> tuple[str, ...]:
        """To copy behind a command."""
        return tuple(override for line in self.lines for override in line.overrides)


def bare(values: Sequence[Any]) -> str:
    """[[16.0],[32.0]] without blanks, as an override takes it."""
    return "[" + ",".join(bare(v) if isinstance(v, tuple | list) else f"{v:g}" for v in values) + "]"
