"""Errors meant for the user: what is wrong, where, and what to do next. `python -m pipeline` prints them without a traceback."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """A mistake or a fault the user can act on. The message is complete: cause, place and next step."""

    exit_code = 1


class ConfigError(UserError):
    """A setting that cannot be right: unknown key, wrong type, unknown choice, broken rule."""

    exit_code = 2

    def __init__(self, field: str, value: object, rule: str) -> None:
        super().__init__(f"config: {field}={value!r} {rule}" if value is not None else f"config: {field} {rule}")


class DataError(UserError):
    """A picture, label file or folder that cannot be used; `place` names the file and the position in it."""

    def __init__(self, place: object, wrong: str, todo: str = "") -> None:
        super().__init__(f"{place}: {wrong}" + (f"\n  {todo}" if todo else ""))


class GateError(UserError):
    """A measured figure missed its limit; what was there before is left as it was."""


class DiskFullError(UserError):
    """A write found no room; what was there before is left as it was."""

    def __init__(self, error: OSError) -> None:
        where = f"{error.filename}: " if error.filename else ""
        super().__init__(
            f"{where}no space left on the device; nothing was left half-written\n"
            "  free some space, then give the same command again: it goes on from what was finished"
        )


def for_user(error: Exception) -> UserError | None:
    """What to tell the user of `error`; None for a fault of the program, which must show where it is."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(error)
    return error if isinstance(error, UserError) else None


def did_you_mean(wrong: str, choices: Iterable[str]) -> str:
    """`Did you mean x? Choices: ...` for an unknown name; without a guess when nothing is close."""
    choices = sorted(choices)
    close = get_close_matches(wrong, choices, n=1)
    return (f"Did you mean {close[0]}? " if close else "") + f"Choices: {', '.join(choices)}"
