"""What pydantic says about a wrong field of the settings, in the words that a user can act on."""

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pipeline.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from pydantic import ValidationError


def field_error(error: "ValidationError", owner: type) -> ConfigError:
    """The first of pydantic's errors about an `owner` in this project's words."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    kind, context = first["type"], first.get("ctx", {})
    known, names = _named_fields(place, owner)
    field = ".".join(names)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return ConfigError(field, None, f"is not known. {did_you_mean(names[-1], known)}")
    if kind in ("missing", "missing_argument"):
        return ConfigError(field, None, "is missing: give it a value in conf/")
    if kind == "literal_error":
        return ConfigError(field, first["input"], f"is not one of the choices: {context['expected']}")
    if kind.startswith("union_tag"):
        return ConfigError(f"{field}.kind", context.get("tag"), f"is not known. Choices: {context.get('expected_tags', '')}")
    return ConfigError(field, "null" if first["input"] is None else first["input"], f"is wrong: {first['msg']}")


def _named_fields(place: list[str], owner: type) -> tuple[list[str], list[str]]:
    """The fields that the owner of `place` knows, and `place` without pydantic's union tags."""
    kind: Any = owner
    names: list[str] = []
    known: list[str] = []
    for part in place:
        options = [
            option
            for option in (kind, *get_args(kind), *(b for a in get_args(kind) for b in get_args(a)))
            if is_dataclass(option)
        ]
        tagged = [option for option in options if part in get_args(get_type_hints(option).get("kind", int))]
        if tagged and not any(part in get_type_hints(option) for option in options):
            kind = tagged[0]
            continue
        known = [field.name for option in options for field in fields(option)]
        names.append(part)
        hints = [get_type_hints(option)[part] for option in options if part in get_type_hints(option)]
        kind = hints[0] if hints else object
    return known, names
