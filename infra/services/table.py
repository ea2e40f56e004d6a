"""The table of `python -m infra.local status`."""

from infra.services.service import is_well
from infra.services.state import Entry, State

COLUMNS = ("service", "state", "pid", "restarts", "address", "log")


def table(state: State) -> tuple[str, bool]:
    """One line per service, and whether all are up."""
    conditions = {entry.name: condition(entry) for entry in state.services.values()}
    rows = [COLUMNS, *(row(entry, conditions[entry.name]) for entry in state.services.values())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip() for cells in rows]
    return "\n".join(lines), all(one == "up" for one in conditions.values())


def condition(entry: Entry) -> str:
    """up, down (nothing runs) or unwell (it runs and does not answer as it should)."""
    if entry.process is None or not entry.process.lives():
        return "down"
    return "up" if is_well(entry.health) else "unwell"


def row(entry: Entry, state: str) -> tuple[str, ...]:
    """The cells of one service."""
    pid = str(entry.process.pid) if entry.process is not None else "-"
    return entry.name, state, pid, str(entry.restarts), entry.address or "-", entry.log
