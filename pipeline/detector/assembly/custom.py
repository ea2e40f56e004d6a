"""A user's own class by its import path. What may be imported is decided where settings come from: `weights.load_detector`."""

import importlib
from collections.abc import Mapping
from typing import Any

from pipeline.errors import ConfigError


def build_custom(field: str, target: str, options: Mapping[str, Any], *arguments: Any) -> Any:
    """`target(*arguments, **options)`. ConfigError naming `model.<field>` when it cannot be imported or refuses its options."""
    place, (module, _, name) = f"model.{field}".rstrip("."), target.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        rule = f"cannot be imported: {error}. Is its folder on PYTHONPATH?"
        raise ConfigError(f"{place}.target", target, rule) from error
    try:
        return made(*arguments, **options)
    except TypeError as error:
        raise ConfigError(f"{place}.options", dict(options), f"do not fit {target}: {error}") from error


def require_has(field: str, target: str, made: object, attribute: str, rule: str) -> None:
    """ConfigError unless what the user's class made has the attribute."""
    if not hasattr(made, attribute):
        raise ConfigError(f"model.{field}.target", target, f"has no {attribute}: {rule}")
