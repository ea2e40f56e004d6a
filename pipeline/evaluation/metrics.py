"""What every measurement gives, whatever it measured: figures by name, the deciding one per class, and tables for the report."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.tasks import FIGURE, Task


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a report."""

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float | None]]
    note: str = ""


class Metrics(ABC):
    """Figures of one task on one split; all in 0..1, -1 stands for undefined: nothing to measure."""

    task: Task
    numbers: Mapping[str, float]
    """By full name, such as bbox/AP; the deciding one is <task>/<FIGURE[task]>."""
    shown: ClassVar[tuple[str, ...]]
    """The figures worth a tile on a report, the deciding one first, without the task."""

    @property
    @abstractmethod
    def per_class(self) -> dict[str, float]:
        """The deciding figure by class name, of the classes that have truth."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """The tables of the report."""

    @property
    def value(self) -> float:
        """The deciding figure."""
        return self.numbers[f"{self.task}/{FIGURE[self.task]}"]

    def figure(self, name: str) -> float | None:
        """A figure by its name without the task; None where it is undefined."""
        return defined(self.numbers[f"{self.task}/{name}"])

    def flat(self) -> dict[str, float]:
        """For metrics.json: the figures and <task>/<deciding figure>/<class>; undefined values are left out."""
        known = {name: value for name, value in self.numbers.items() if value >= 0}
        return known | {f"{self.task}/{FIGURE[self.task]}/{name}": value for name, value in self.per_class.items()}


def defined(value: float) -> float | None:
    """None for -1, which means that there is nothing to measure."""
    return value if value >= 0 else None
