"""What a planter is, and the list that each kind of fault is entered in."""

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.faults.draft import Draft, Place

Plant = Callable[[Draft], list[Place]]


class Planter(NamedTuple):
    """One kind of fault, as somebody who makes datasets would describe it."""

    code: str
    """The check that should find it."""
    what: str
    """What is planted, with the range of its strength."""
    sets: tuple[str, ...]
    """Real datasets that it is planted in."""
    rounds: int
    """Drafts that are spoiled of each."""
    plant: Plant


PLANTERS: dict[str, Planter] = {}
"""By code."""


def planter(code: str, on: str, what: str, rounds: int = 2) -> Callable[[Plant], Plant]:
    """Enter a function as the planter of `code`; `on` names its datasets, with blanks between."""

    def enter(plant: Plant) -> Plant:
        assert code not in PLANTERS, f"{code} has a planter already"
        PLANTERS[code] = Planter(code, what, tuple(on.split()), rounds, plant)
        return plant

    return enter
