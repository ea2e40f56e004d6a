"""python -m pipeline advise [overrides]: what to train on data/validated, with one reason per line and the overrides to copy."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import settings
from pipeline.errors import ConfigError
from pipeline.layout import Layout

if TYPE_CHECKING:
    from pipeline.advice.proposal import Advice
    from pipeline.detector.config import ModelConfig


def run(arguments: Sequence[str]) -> None:
    """Read the validated dataset, time the models that may do, and print the table. `advise.*` overrides say what is wanted."""
    from functools import partial

    from pipeline.advice.measure import Measured, measure
    from pipeline.advice.proposal import advise
    from pipeline.advice.statistics import statistics_of
    from pipeline.data.dataset import open_dataset

    chosen, layout = settings.load(arguments), Layout()
    stats = statistics_of(open_dataset(layout.validated), layout.validated, chosen.advise.task)
    timed = partial(measure, device=chosen.compute.device, threads=chosen.compute.threads)

    def said(cfg: "ModelConfig", height: int, width: int, batch: int) -> Measured:
        print(f"timing a step of {cfg.kind}: batch {batch} of {height} x {width} px ...", flush=True)
        return timed(cfg, stats.classes, stats.semantic_classes, height, width, batch)

    print(written(advise(stats, chosen.advise, models(layout.root / "conf/model"), said)))


def models(folder: Path) -> "dict[str, ModelConfig]":
    """The files of conf/model by name, checked. ConfigError names a file that is wrong."""
    import yaml
    from pydantic import TypeAdapter, ValidationError

    from pipeline.detector.config import ModelConfig

    found: dict[str, ModelConfig] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            found[path.stem] = TypeAdapter[ModelConfig](ModelConfig).validate_python(yaml.safe_load(path.read_text()))
        except ValidationError as error:
            raise ConfigError(str(path), None, f"is wrong: {error.errors()[0]['msg']}") from error
    return found


def written(advice: "Advice") -> str:
    """The table as lines of text, the warnings, and the overrides in one command."""
    wide = [max(len(getattr(line, name)) for line in advice.lines) for name in ("what", "value")]
    rows = [f"{line.what:<{wide[0]}}  {line.value:<{wide[1]}}  {line.reason}" for line in advice.lines]
    plain = [f"note: {warning}" for warning in advice.warnings]
    command = " ".join(f"'{o}'" if "[" in o else o for o in advice.overrides())
    return "\n".join([*rows, "", *plain, *([""] if plain else []), f"python -m pipeline config {command}"])
