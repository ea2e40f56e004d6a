"""Progress for people: a bar on a terminal, a plain line now and then elsewhere."""

import sys
from types import TracebackType
from typing import Self


class Progress:
    """Shows steps of a known total with the latest figures; used as a context manager."""

    def __init__(self, what: str, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.what, self.total, self._terminal = what, total, sys.stdout.isatty()
        self._bar = Progress(
            TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[note]}")
        )
        self._task = self._bar.add_task(what, total=total, note="")

    def __enter__(self) -> Self:
        if self._terminal:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._terminal:
            self._bar.stop()

    def show(self, done: int, note: str) -> None:
        """`done` steps are behind; `note` is the line's text."""
        if self._terminal:
            self._bar.update(self._task, completed=done, note=note)
        else:
            print(f"{self.what} {done}/{self.total}  {note}", flush=True)
