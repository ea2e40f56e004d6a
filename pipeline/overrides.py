"""Hydra's overrides as words: made fit for its grammar, put on top of each other, multiplied out. Knows no settings."""

import re
from collections.abc import Sequence
from itertools import product


def quoted(override: str) -> str:
    """`override` with a path for its value made a quoted text: Hydra's grammar has other uses for commas, = or é."""
    key, separator, value = override.partition("=")
    if key != "dataset.source" or not separator or value[:1] in ('"', "'"):
        return override
    return f"{key}={as_text(value)}"


def as_text(value: str) -> str:
    """`value` in Hydra's quotes: any path is a value then."""
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", value)  # in Hydra's quotes backslashes count only before a quote
    closed = re.sub(r"(\\+)$", r"\1\1", escaped)
    return f"'{closed}'"


def merged(own: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """`overrides` after those of `own` that they leave standing: a later word replaces one of the same key or below it."""
    new = {_key(word) for word in overrides}
    return [word for word in own if not any(_key(word) == key or _key(word).startswith(f"{key}.") for key in new)] + [*overrides]


def combinations(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the values that `overrides` list: a=1,2 b=range(0,3) are six. HydraException for a malformed one."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_overrides([quoted(override) for override in overrides])
    choices = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()] if one.is_sweep_override() else [given]
        for one, given in zip(parsed, overrides, strict=True)
    ]
    return [list(words) for words in product(*choices)]


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0]
