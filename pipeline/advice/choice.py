"""Which models may do: those of conf/model that find the wanted task, and a dataset that can teach it. No torch."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.advice.config import AdviseConfig
from pipeline.data.dataset import Dataset
from pipeline.data.needs import NEEDS, require_labels, require_proposals
from pipeline.detector.config import ModelConfig, takes_proposals
from pipeline.errors import DataError, UserError
from pipeline.tasks import TITLE, Task

TAUGHT = ("train", "val")
"""Splits that training needs labels of."""


def require_task(dataset: Dataset, task: Task, place: Path) -> None:
    """UserError naming the task, what the labels lack and what they hold, unless the dataset can teach the task."""
    try:
        for name in TAUGHT:
            require_labels(dataset, name, (task,), place)
    except DataError as error:
        lack, _, todo = str(error).partition("\n")
        held = ", ".join(f"{TITLE[other]} (advise.task={other})" for other in held_tasks(dataset, place))
        raise UserError(
            f"advise: the dataset cannot teach {TITLE[task]} (advise.task={task})\n  {lack}\n  it holds {held}"
            + (f"\n  {todo.strip()}" if todo else "")
        ) from error


def held_tasks(dataset: Dataset, place: Path) -> list[Task]:
    """The tasks that both splits can teach. Proposals are left out: any boxes teach them, and no class is found."""
    held: list[Task] = []
    for task in NEEDS:
        try:
            for name in TAUGHT:
                require_labels(dataset, name, (task,), place)
        except DataError:
            continue  # said by the caller: it is not among those held
        if task != "proposals":
            held.append(task)
    return held


def teachable(wanted: AdviseConfig, models: Mapping[str, ModelConfig], dataset: Dataset, place: Path) -> dict[str, ModelConfig]:
    """The candidates whose other tasks the dataset teaches too, and whose proposals it brings; best first.

    DataError says what is missing where no candidate is left, or where the user named the model.
    """
    found: dict[str, ModelConfig] = {}
    names = candidates(wanted, models)
    for name in names:
        try:
            for split in TAUGHT:
                require_labels(dataset, split, models[name].tasks, place)
                if takes_proposals(models[name]):
                    require_proposals(dataset, split, place)
        except DataError:
            if wanted.models or (name == names[-1] and not found):
                raise
            continue
        found[name] = models[name]
    return found


def candidates(wanted: AdviseConfig, models: Mapping[str, ModelConfig]) -> list[str]:
    """Names of the models that do the task, best first; the costliest is taken for the best where the user gave no order.

    UserError when a model that the user named is not there or does not find the task, or when none does.
    """
    if wanted.models:
        if unknown := [name for name in wanted.models if name not in models]:
            raise UserError(f"advise: conf/model has no {', '.join(unknown)}")
        if other := [name for name in wanted.models if wanted.task not in models[name].tasks]:
            found = "; ".join(f"{name} finds {', '.join(TITLE[task] for task in models[name].tasks)}" for name in other)
            raise UserError(f"advise: not a model for {TITLE[wanted.task]} (advise.task={wanted.task}): {found}")
        return list(wanted.models)
    # The last task is what a model is for. One that wants proposals with every picture is taken when it is named only.
    fit = [name for name, cfg in models.items() if cfg.tasks[-1] == wanted.task and not takes_proposals(cfg)]
    fit = [name for name in fit if not any(part in name for part in wanted.leave_out)]
    if not fit:
        raise UserError(f"advise: conf/model has no model that finds {TITLE[wanted.task]} (advise.task={wanted.task})")
    # A guess at what is better, to be measured: larger pictures, and two stages before one.
    return sorted(fit, key=lambda name: (-models[name].input.short_side, models[name].kind == "retinanet", name))
