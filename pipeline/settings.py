"""Settings: composed by Hydra from conf/, checked onto typed classes, and kept as one snapshot in params.yaml.

conf/ is the only place that people edit. params.yaml is what it composed to, so that DVC sees a changed setting as a changed
parameter; its first line holds the overrides it was made with, which is how `check_params` can tell a stale snapshot.
"""

import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Self

from pipeline.advice.config import AdviseConfig
from pipeline.data.config import DatasetConfig, watched_by_dvc
from pipeline.deploy.config import ExportConfig, QuantizeConfig
from pipeline.detector.config import ModelConfig
from pipeline.detector.settings.custom import custom_targets
from pipeline.errors import ConfigError, UserError, did_you_mean
from pipeline.evaluation.config import EvaluateConfig
from pipeline.field_errors import field_error
from pipeline.files import digest_bytes, digest_file, read_json, write_atomically, write_json
from pipeline.labels.config import SuspectsConfig, ValidateConfig
from pipeline.layout import Layout
from pipeline.monitor.config import MonitorConfig
from pipeline.overrides import combinations, merged, quoted
from pipeline.promotion.config import RetrainConfig
from pipeline.provenance import flat
from pipeline.schema import schema
from pipeline.services import ServicesConfig
from pipeline.storage.config import StorageConfig
from pipeline.tracking import TrackingConfig
from pipeline.training.config import ComputeConfig, TrainConfig
from pipeline.tuning.config import SweepConfig

PARAMS = Path("params.yaml")
CONF = Path("conf")
HEADER = "# Written, never edited, by: python -m pipeline config"


@schema
class Settings:
    """Everything that can be set, one field per group of conf/."""

    seed: int
    """Seed of every random choice: splits, initial weights, sampling, augmentation."""
    dataset: DatasetConfig
    model: ModelConfig
    validate: ValidateConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    quantize: QuantizeConfig
    export: ExportConfig
    compute: ComputeConfig
    tracking: TrackingConfig
    storage: StorageConfig
    advise: AdviseConfig
    suspects: SuspectsConfig
    retrain: RetrainConfig
    monitor: MonitorConfig
    services: ServicesConfig
    sweep: SweepConfig

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ConfigError("seed", self.seed, "must be 0 or more")

    @property
    def trusted(self) -> tuple[str, ...]:
        """Import paths of the user's own code: those that `model` names."""
        return tuple(sorted(custom_targets(self.model)))


USED = "used"
"""Metadata of a stage's field: the settings of the group that change its results."""
INFERENCE = ("device", "threads")
MEASURING = ("engine", "split", "max_detections", "keypoint_sigma", "drawing_score")
VALIDATING = ("keypoint_sigma",)
RESIZING = ("input.short_side", "input.long_side")
DISTRIBUTED = (*INFERENCE, "processes", "nodes")
TRAINING = tuple(field.name for field in fields(TrainConfig) if field.name != "checkpoint_every")
CODE = Path(__file__).absolute().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a stage is given: the groups it names as fields, and where its files are."""

    layout: Layout

    @classmethod
    def params(cls) -> tuple[str, ...]:
        """The keys of params.yaml that this stage's results depend on; dvc.yaml lists the same.

        A group is one key, unless some of its settings never change a result: then each of the others is one.
        """
        keys: list[str] = []
        for group in fields(cls):
            used = group.metadata.get(USED)
            keys += [group.name] if used is None else [f"{group.name}.{name}" for name in used]
        keys.remove("layout")
        return tuple(keys)

    @property
    def one_machine(self) -> bool:
        """Whether no other machine has a share in the stage: several may differ in cores, and yet do one work."""
        return True

    def digest(self, inputs: Sequence[Path]) -> str:
        """Of everything that the stage's results depend on: settings, the files `inputs`, code, torch's version.

        Unfinished work lies under this name, so that a changed setting, label or line of code never goes on with it.
        """
        from importlib.metadata import version

        import orjson

        values = flat(asdict(self))
        used = {name: value for name, value in values.items() if any(f"{name}.".startswith(f"{key}.") for key in self.params())}
        cores = len(os.sched_getaffinity(0)) if self.one_machine else 0  # what compute.threads=0 stands for
        parts = [orjson.dumps(used, option=orjson.OPT_SORT_KEYS).decode(), version("torch"), str(cores)]
        code = [path for room in ("pipeline", "ops_cuda") for path in sorted((CODE / room).rglob("*.py"))]
        parts += [digest_file(path) for path in (*inputs, *code)]
        return digest_bytes("\n".join(parts).encode())

    def write(self, path: Path) -> None:
        """Keep this object as JSON, for the stage's own processes."""
        write_json(path, asdict(self) | {"layout": {"root": str(self.layout.root)}})

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` kept."""
        from pydantic import TypeAdapter

        return TypeAdapter(cls).validate_python(read_json(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestStage(Stage):
    """Settings of ingest."""

    dataset: DatasetConfig
    storage: StorageConfig = field(metadata={USED: ("endpoint", "profile", "region")})
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidateStage(Stage):
    """Settings of validate."""

    validate: ValidateConfig
    model: ModelConfig = field(metadata={USED: RESIZING})


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStage(Stage):
    """Settings of train."""

    model: ModelConfig
    train: TrainConfig = field(metadata={USED: TRAINING})
    evaluate: EvaluateConfig = field(metadata={USED: VALIDATING})
    compute: ComputeConfig = field(metadata={USED: DISTRIBUTED})
    seed: int

    @property
    def one_machine(self) -> bool:
        """Whether no other machine trains with this one."""
        return self.compute.nodes == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateStage(Stage):
    """Settings of evaluate."""

    evaluate: EvaluateConfig
    compute: ComputeConfig = field(metadata={USED: INFERENCE})
    trusted: tuple[str, ...] = field(metadata={USED: ()})


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeStage(Stage):
    """Settings of quantize."""

    quantize: QuantizeConfig
    evaluate: EvaluateConfig = field(metadata={USED: VALIDATING})
    compute: ComputeConfig = field(metadata={USED: INFERENCE})
    seed: int
    trusted: tuple[str, ...] = field(metadata={USED: ()})


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportStage(Stage):
    """Settings of export."""

    export: ExportConfig
    evaluate: EvaluateConfig = field(metadata={USED: MEASURING})
    compute: ComputeConfig = field(metadata={USED: INFERENCE})
    trusted: tuple[str, ...] = field(metadata={USED: ()})


STAGES: dict[str, type[Stage]] = {
    "ingest": IngestStage,
    "validate": ValidateStage,
    "train": TrainStage,
    "evaluate": EvaluateStage,
    "quantize": QuantizeStage,
    "export": ExportStage,
}


def groups(stage: str) -> tuple[str, ...]:
    """The fields of Settings that `stage` is given."""
    return tuple(field.name for field in fields(STAGES[stage]) if field.name != "layout")


def stage_config(stage: str, settings: Settings, layout: Layout) -> Stage:
    """The config object of `stage`, cut out of the whole settings."""
    return STAGES[stage](layout=layout, **{name: getattr(settings, name) for name in groups(stage)})


def load(overrides: Sequence[str] = (), root: Path = Path(".")) -> Settings:
    """The checked settings: of params.yaml without overrides, else freshly composed from conf/ with them on top of params.yaml's.

    UserError when params.yaml is to be used and is stale.
    """
    if overrides:
        return check(compose(on_top(overrides, root), root))
    check_params(root)
    return check(read_params(root))


def on_top(overrides: Sequence[str], root: Path = Path(".")) -> list[str]:
    """`overrides` on top of those that params.yaml was written with: the checkout's own data and model stay chosen."""
    return merged((snapshot_overrides(root) or []) if (root / PARAMS).exists() else [], overrides)


def compose(overrides: Sequence[str], root: Path = Path(".")) -> dict[str, Any]:
    """What conf/config.yaml and `overrides` compose to, as plain containers. ConfigError for a wrong override, in one line."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import ConfigCompositionException, HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with initialize_config_dir(str((root / CONF).absolute()), version_base=None):
            composed = hydra_compose("config", overrides=[quoted(override) for override in overrides])
        plain = OmegaConf.to_container(composed, resolve=True)
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        raise _override_error(error, overrides, root) from error
    values: dict[str, Any] = dict(plain)  # type: ignore[arg-type]
    dataset = values.get("dataset")
    if isinstance(dataset, dict) and isinstance(dataset.get("source"), str) and dataset.get("watched") == dataset["source"]:
        dataset["watched"] = watched_by_dvc(dataset["source"])  # a decision that Hydra's interpolation cannot make
    return values


def sweep(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of the values that `overrides` list. ConfigError for a malformed one."""
    from hydra.errors import HydraException

    try:
        return combinations(overrides)
    except HydraException as error:
        raise _override_error(error, overrides, Path(".")) from error


def check(values: object) -> Settings:
    """`values` as typed settings. ConfigError names the first wrong field, the rule and the choices."""
    from pydantic import ValidationError

    try:
        settings: Settings = _adapter().validate_python(values)
        return settings
    except ValidationError as error:
        raise field_error(error, Settings) from error


def read_params(root: Path = Path(".")) -> dict[str, Any]:
    """The snapshot as plain containers."""
    import yaml

    path = root / PARAMS
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file\n  write it by: python -m pipeline config") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {error}\n  write it anew by: python -m pipeline config") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no settings\n  write it anew by: python -m pipeline config")
    return values


def write_params(overrides: Sequence[str] = (), root: Path = Path(".")) -> Settings:
    """Compose conf/ with `overrides` and write the snapshot, when it checks. Untouched when it already says the same."""
    import yaml

    values = compose(overrides, root)
    settings = check(values)
    if not (root / PARAMS).exists() or read_params(root) != values or snapshot_overrides(root) != list(overrides):
        header = f"{HEADER} {shlex.join(overrides)}".rstrip()
        body = yaml.safe_dump(values, sort_keys=False, width=120)
        write_atomically(root / PARAMS, f"{header}\n{body}".encode())
    return settings


def snapshot_overrides(root: Path = Path(".")) -> list[str] | None:
    """The overrides that params.yaml was written with; None when something else wrote it (`dvc exp run` does)."""
    first = (root / PARAMS).read_text().split("\n", 1)[0]
    return shlex.split(first.removeprefix(HEADER)) if first.startswith(HEADER) else None


def check_params(root: Path = Path(".")) -> None:
    """UserError when params.yaml is not what conf/ composes to today, with the command that mends it.

    `dvc exp run` and `dvc exp apply` leave a params.yaml that DVC composed itself, without a note of the overrides: then only its
    values are checked.
    """
    values = read_params(root)
    overrides = snapshot_overrides(root)
    if overrides is None:
        check(values)
        return
    expected = compose(overrides, root)
    check(expected)
    if values == expected:
        return
    changed = ", ".join(sorted(_differences(values, expected))[:5])
    command = shlex.join(["python", "-m", "pipeline", "config", *overrides])
    raise UserError(f"{root / PARAMS}: not what conf/ composes to; differs in {changed}\n  bring it up to date by: {command}")


def _differences(left: object, right: object, at: str = "") -> list[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        keys = left.keys() | right.keys()
        found = [_differences(left.get(k), right.get(k), f"{at}.{k}" if at else str(k)) for k in keys]
        return [name for names in found for name in names]
    return [] if left == right else [at]


@cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Settings)


def _override_error(error: Exception, overrides: Sequence[str], root: Path) -> ConfigError:
    """Hydra's complaint in one line that names the field and lists the choices."""
    from hydra.errors import OverrideParseException

    if isinstance(error, OverrideParseException) and "=" in error.override:
        return ConfigError(error.override, None, "cannot be read; put a value with special characters in quotes: field='...'")
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if "=" in override and len(sweep([override])) > 1:
            rule = "lists several values: python -m flows.line --multirun runs them all; one value with a comma goes in quotes"
            return ConfigError(override, None, rule)
        folder = root / CONF / key
        if folder.is_dir():
            choices = sorted(path.stem for path in folder.glob("*.yaml"))
            if value not in choices:
                return ConfigError(f"{key}={value}", None, f"is not known. {did_you_mean(value, choices)}")
        elif "=" not in override:
            return ConfigError(override, None, "is not an override; write field=value, such as train.steps=500")
        elif unknown := _unknown_key(key, overrides, root):
            owner, part, choices = unknown
            where = f" (in {owner})" if owner else ""
            return ConfigError(key, None, f"is not known. {did_you_mean(part, choices)}{where}")
    reason = str(error.__cause__ or error).strip().splitlines()[0]
    return ConfigError(" ".join(overrides) or "conf/", None, f"cannot be composed: {reason}")


def _unknown_key(key: str, overrides: Sequence[str], root: Path) -> tuple[str, str, list[str]] | None:
    """The deepest known owner of a dotted `key` that leads nowhere in conf/, the part it does not know, and those it does."""
    groups = [override for override in overrides if (root / CONF / override.partition("=")[0]).is_dir()]
    values: Any = compose(groups, root)
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(values, dict) or part not in values:
            return ".".join(parts[:depth]), part, sorted(map(str, values)) if isinstance(values, dict) else []
        values = values[part]
    return None
