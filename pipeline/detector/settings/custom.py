"""Settings of a user's own parts: named by import path, allowed only from the user's own config. No torch."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, Literal

from pipeline.detector.settings.parts import InputConfig, require
from pipeline.schema import schema
from pipeline.tasks import Task


def _check(field: str, target: str) -> None:
    module, _, name = target.partition(":")
    parts = [*module.split("."), name]
    require(all(part.isidentifier() for part in parts), field, target, "must be package.module:Name")


@schema
class CustomBackboneConfig:
    """A user's backbone: `Name(stages, **options)` is a module with `channels`, giving one feature per stage, finest first."""

    kind: Literal["custom"]
    target: str
    """package.module:Name, importable where the command runs."""
    options: dict[str, Any]
    """Keyword arguments of the class."""
    norm: Literal["batch"]
    """Its norms are its own business."""
    weights: str | None
    """A file of its parameters by name, or null."""

    def __post_init__(self) -> None:
        _check("backbone.target", self.target)


@schema
class CustomHeadConfig:
    """A user's box head: `Name(channels, size, **options)` turns region features [M, channels, size, size] into [M, width]."""

    kind: Literal["custom"]
    target: str
    """package.module:Name, importable where the command runs. The class has an attribute `width`."""
    options: dict[str, Any]
    """Keyword arguments of the class."""

    def __post_init__(self) -> None:
        _check("roi.head.target", self.target)


@schema
class CustomBoxLossConfig:
    """A user's box loss: `Name(**options)` called with found and wanted boxes [M, 4] gives a loss [M]."""

    kind: Literal["custom"]
    target: str
    """package.module:Name, importable where the command runs."""
    options: dict[str, Any]
    """Keyword arguments of the class."""
    weight: float
    """Factor of this loss."""

    def __post_init__(self) -> None:
        _check("box_loss.target", self.target)


@schema
class CustomModelConfig:
    """A user's whole detector: `Name(pixels, classes, **options)` is a `pipeline.detector.detector.Detector`."""

    kind: Literal["custom"]
    target: str
    """package.module:Name, importable where the command runs."""
    options: dict[str, Any]
    """Keyword arguments of the class."""
    weights: str | None
    """A file of its parameters by name, or null."""
    input: InputConfig
    learns: tuple[Task, ...]
    """What it learns and finds."""

    def __post_init__(self) -> None:
        _check("target", self.target)

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the detector learns and finds."""
        return self.learns


def custom_targets(cfg: object) -> frozenset[str]:
    """The import paths that stand anywhere in the settings `cfg`."""
    return frozenset(_targets(cfg))


def _targets(cfg: object) -> Iterator[str]:
    if is_dataclass(cfg):
        if getattr(cfg, "kind", None) == "custom":
            yield str(getattr(cfg, "target"))  # noqa: B009  a field of every class of that kind
        for field in fields(cfg):
            yield from _targets(getattr(cfg, field.name))
    elif isinstance(cfg, tuple):
        for part in cfg:
            yield from _targets(part)
