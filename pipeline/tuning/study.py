"""An Optuna study that several processes share and that outlives each of them.

A trial is claimed under a lock, so that exactly `sweep.trials` end. Its process is kept beside it (machine, id, start time): a
trial whose process is gone is told failed, is not counted, and its values are tried again.
"""

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from pipeline.errors import ConfigError, UserError
from pipeline.files import locked
from pipeline.tuning.config import Choice, Range, SweepConfig

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

LOST, REASON, WORKER, SETUP = "lost", "reason", "worker", "setup"
PATIENCE = 120.0
"""Seconds that a worker waits for its turn to claim a trial; a claim takes a moment."""

Report = Callable[[int, float], None]
"""Told the step and the validation AP; raises when the trial is to be pruned."""
Objective = Callable[[int, list[str], Report], float]
"""Number and overrides of a trial to its figure."""


def open_study(config: SweepConfig, root: Path, seed: int) -> "Study":
    """The study of that name, new or as it stands. UserError when its database cannot be opened."""
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    prefix, url = "sqlite:///", config.storage
    if url.startswith(prefix):
        file = root.absolute() / url.removeprefix(prefix)
        file.parent.mkdir(parents=True, exist_ok=True)
        url = f"{prefix}{file}"
    pruners: dict[str, Callable[[], optuna.pruners.BasePruner]] = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=config.startup),
        "hyperband": optuna.pruners.HyperbandPruner,
        "none": optuna.pruners.NopPruner,
    }
    try:
        storage = optuna.storages.RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 60}} if prefix in url else None)
        return optuna.create_study(
            storage=storage,
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
            pruner=pruners[config.pruner](),
            study_name=config.study,
            direction="maximize",
            load_if_exists=True,
        )
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"sweep.storage={config.storage}: cannot be opened: {reason}\n  is the database up?") from error


def require_same(study: "Study", config: SweepConfig, base: list[str], data: str) -> None:
    """ConfigError when the study was begun with another space, other settings or other `data` (its digest).

    Its trials could not be compared.
    """
    setup = json.dumps([{name: asdict(one) for name, one in config.space.items()}, config.metric, base, data], sort_keys=True)
    before = study.user_attrs.get(SETUP)
    if before is None:
        study.set_user_attr(SETUP, setup)
    elif before != setup:
        raise ConfigError(
            "sweep.study", config.study, "was begun with another space, other settings or other data; name a new one"
        )


def suggest(trial: "Trial", space: Mapping[str, Range | Choice]) -> list[str]:
    """The trial's values, as overrides."""
    return [f"{name}={_suggested(trial, name, parameter)}" for name, parameter in space.items()]


def overrides_of(values: Mapping[str, Any]) -> list[str]:
    """A finished trial's values, as the overrides that it ran with."""
    return [f"{name}={value}" for name, value in values.items()]


def claim(study: "Study", config: SweepConfig, lock: Path) -> "Trial | None":
    """The next trial for this process; None when enough have ended or are under way."""
    with locked(lock, f"{lock}: another worker holds it", PATIENCE):
        retry_lost(study)
        if counted(study) >= config.trials:
            return None
        trial = study.ask()
        trial.set_user_attr(WORKER, this_process())
        return trial


def counted(study: "Study") -> int:
    """Trials that ended or are under way, but for those whose worker was killed."""
    from optuna.trial import TrialState

    return sum(one.state != TrialState.WAITING and LOST not in one.user_attrs for one in study.get_trials(deepcopy=False))


def retry_lost(study: "Study") -> None:
    """Tell trials failed whose process on this machine is gone, and line their values up again. Call it under the lock."""
    from optuna.trial import Trial, TrialState

    for one in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if not alive(one.user_attrs.get(WORKER)):
            trial = Trial(study, one._trial_id)
            trial.set_user_attr(LOST, True)
            trial.set_user_attr(REASON, "its worker was killed; the same values are tried again")
            study.tell(one.number, state=TrialState.FAIL)
            study.enqueue_trial(one.params)


def work(study: "Study", config: SweepConfig, lock: Path, objective: Objective) -> None:
    """Try until enough trials have ended. A UserError or a crash of `objective` fails its trial, with the reason, and no more."""
    from optuna import TrialPruned
    from optuna.trial import TrialState

    while (trial := claim(study, config, lock)) is not None:

        def report(step: int, value: float, trial: "Trial" = trial) -> None:
            trial.report(value, step)
            if trial.should_prune():
                raise TrialPruned

        try:
            value = objective(trial.number, suggest(trial, config.space), report)
        except TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
        except Exception as error:
            trial.set_user_attr(REASON, str(error) or type(error).__name__)
            study.tell(trial, state=TrialState.FAIL)
        else:
            study.tell(trial, value)


def best(study: "Study") -> "FrozenTrial":
    """The best finished trial. UserError with the last reason when none finished."""
    from optuna.trial import TrialState

    if study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        return study.best_trial
    reasons = [one.user_attrs[REASON] for one in study.get_trials(deepcopy=False) if REASON in one.user_attrs]
    raise UserError(f"sweep: no trial finished; the last one said:\n{reasons[-1] if reasons else 'nothing'}")


def this_process() -> list[str]:
    """Machine, process and its start: an id alone is given again to others."""
    process = psutil.Process()
    return [socket.gethostname(), str(process.pid), str(process.create_time())]


def alive(worker: list[str] | None) -> bool:
    """Whether the process is there; one on another machine counts as there."""
    if worker is None:
        return False
    host, pid, began = worker
    if host != socket.gethostname():
        return True
    try:
        process = psutil.Process(int(pid))
        return bool(abs(process.create_time() - float(began)) < 1 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _suggested(trial: "Trial", name: str, parameter: Range | Choice) -> Any:
    if isinstance(parameter, Choice):
        return trial.suggest_categorical(name, parameter.choices)
    if parameter.kind == "int":
        return trial.suggest_int(name, int(parameter.low), int(parameter.high), log=parameter.log)
    return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log)
