"""python -m pipeline advise [overrides]: what to train on data/validated, with one reason per line and the overrides to copy."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline import settings
from pipeline.errors import ConfigError
from pipeline.layout import Layout

if TYPE_CHECKING:
    from pipeline.advice.proposal import Measure
    from pipeline.advice.table import Advice
    from pipeline.data.dataset import Dataset
    from pipeline.detector.config import ModelConfig
    from pipeline.settings import Settings


def run(arguments: Sequence[str]) -> None:
    """Read the validated dataset, time the models that may do, and print the table. `advise.*` overrides say what is wanted.

    UserError when the dataset cannot teach the wanted task, or no model of conf/model does it within the budget.
    """
    from pipeline.advice.choice import require_task, teachable
    from pipeline.advice.proposal import advise
    from pipeline.advice.statistics import statistics_of
    from pipeline.data.dataset import open_dataset

    chosen, layout = settings.load(arguments), Layout()
    wanted, dataset = chosen.advise, open_dataset(layout.validated)
    require_task(dataset, wanted.task, layout.validated)
    known = teachable(wanted, models(layout.root / "conf/model"), dataset, layout.validated)
    stats = statistics_of(dataset, wanted.task, layout.validated)
    print(written(advise(stats, wanted, known, measuring(dataset, chosen, stats.most_objects))))


def measuring(dataset: "Dataset", chosen: "Settings", most_objects: int) -> "Measure":
    """Times a model on the dataset's own pictures, on the device of `compute`, and says that it does."""
    from pipeline.advice.measure import Classes, Measured, measure
    from pipeline.advice.pictures import TimedPictures
    from pipeline.evaluation.truth import found_categories

    pictures = TimedPictures.of(dataset, chosen.advise.task)

    def timed(cfg: "ModelConfig", height: int, width: int, batch: int) -> Measured:
        print(f"timing a step of {cfg.kind}: batch {batch} of {height} x {width} px ...", flush=True)
        found = found_categories(dataset.info.categories, cfg.tasks)
        classes = Classes(len(found), len(dataset.info.semantic), most_objects)
        return measure(cfg, classes, *pictures.batch(cfg, height, width, batch), chosen.compute.device, chosen.compute.threads)

    return timed


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
    command = shlex.join(advice.overrides())
    return "\n".join([*rows, "", *plain, *([""] if plain else []), f"python -m pipeline config {command}"])
