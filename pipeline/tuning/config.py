"""Settings of the hyperparameter search. No Optuna."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field

from pipeline.errors import ConfigError, did_you_mean
from pipeline.schema import schema

SEARCHED = ("evaluate", "model", "train")
"""Groups that a trial may change: none of them makes data/validated anew."""


@schema
class Range:
    """Numbers from `low` to `high`, both included."""

    kind: Literal["float", "int"]
    low: float
    high: float
    log: bool
    """Whether the logarithm is what is drawn evenly: for learning rates."""


@schema
class Choice:
    """One of some values, written as in an override: lists and groups as text."""

    kind: Literal["choice"]
    choices: tuple[bool | int | float | str, ...]


Parameter = Annotated[Range | Choice, Field(discriminator="kind")]


@schema
class SweepConfig:
    """What `python -m flows.sweep` searches, where it keeps the study, and how much it tries."""

    study: str
    """Name of the study, and of its folder in work/sweep; a study that exists goes on."""
    storage: str
    """Database of the study: sqlite:///FILE (relative to the checkout) or postgresql://...; its password is PGPASSWORD's."""
    trials: int
    """Trials that end: finished, pruned or failed. Those of a killed worker are tried again and not counted."""
    workers: int
    """Processes that try at the same time."""
    pruner: Literal["median", "hyperband", "none"]
    """When a training is stopped early, by its AP at every train.validate_every steps, compared with that of other trials."""
    startup: int
    """Trials that the median pruner lets finish first."""
    metric: str
    """Figure of reports/evaluate/metrics.json to be made large."""
    space: dict[str, Parameter]
    """Overrides by name, and the values that each may take."""

    def __post_init__(self) -> None:
        if not self.study or not all(letter.isalnum() or letter in "-_." for letter in self.study) or self.study[0] == ".":
            raise ConfigError("sweep.study", self.study, "must be letters, digits, -, _ and dots: it names a folder too")
        if not self.storage.startswith(("sqlite:///", "postgresql")):
            raise ConfigError("sweep.storage", self.storage, "must be sqlite:///FILE or postgresql://...")
        if urlsplit(self.storage).password:
            raise ConfigError("sweep.storage", None, "has a password in it, and settings are kept in files; use PGPASSWORD")
        for name, least in (("trials", 1), ("workers", 1), ("startup", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"sweep.{name}", getattr(self, name), f"must be at least {least}")
        if not self.space:
            raise ConfigError("sweep.space", None, "names no parameter; conf/sweep/default.yaml has examples")
        for name, parameter in self.space.items():
            _check(f"sweep.space.{name}", name, parameter)


def _check(field: str, name: str, parameter: Range | Choice) -> None:
    group = name.partition(".")[0]
    if group not in SEARCHED:
        raise ConfigError(field, None, f"is nothing that a trial may change. {did_you_mean(group, SEARCHED)}")
    if isinstance(parameter, Choice):
        if not parameter.choices or len(set(map(str, parameter.choices))) < len(parameter.choices):
            raise ConfigError(f"{field}.choices", list(parameter.choices), "must be different values, at least one")
        return
    if not parameter.low <= parameter.high:
        raise ConfigError(f"{field}.low", parameter.low, f"must not be above high={parameter.high:g}")
    if parameter.log and parameter.low <= 0:
        raise ConfigError(f"{field}.low", parameter.low, "must be above 0 where log is true")
    if parameter.kind == "int" and (parameter.low % 1 or parameter.high % 1):
        raise ConfigError(field, [parameter.low, parameter.high], "must be whole numbers where kind is int")
