"""`@schema`: the dataclasses that settings are checked against. No torch, no Hydra."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def schema(cls: type[T]) -> type[T]:
    """A frozen, slotted, keyword-only dataclass that pydantic validates with unknown keys forbidden.

    Fields have no defaults: values live in conf/ alone; the class says what each means, its unit and its limits.
    """
    cls.__pydantic_config__ = {"extra": "forbid"}  # type: ignore[attr-defined]
    return dataclass(kw_only=True, slots=True, frozen=True)(cls)
