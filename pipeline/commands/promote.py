"""python -m pipeline promote [overrides]: hold models/onnx against the champion; it takes its place when every rule holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pipeline import settings
from pipeline.errors import ConfigError, UserError
from pipeline.layout import Layout, home

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

    from pipeline.data.dataset import Dataset, Split
    from pipeline.evaluation.truth import Floats
    from pipeline.promotion.measured import Measured
    from pipeline.promotion.rules import Decision
    from pipeline.settings import Settings
    from pipeline.tasks import Task

LINE = "run the whole line first, with tracking on: python -m flows.line"


class Registered(NamedTuple):
    """A version of the registered model."""

    version: str
    tags: dict[str, str]


def run(arguments: Sequence[str]) -> None:
    """models/onnx, data/validated, the champion of the registry -> reports/retrain: decision.json, index.html; perhaps the alias.

    The last line says what was decided. UserError when models/onnx was never registered, or the champion cannot be had.
    """
    from mlflow.tracking import MlflowClient

    from pipeline import tracking

    chosen, layout = settings.load(arguments), Layout()
    if not chosen.tracking.enabled:
        raise ConfigError("tracking.enabled", False, "leaves no registry to promote in; use tracking=sqlite or tracking=server")
    uri = tracking.absolute_uri(chosen.tracking.uri, layout.root)
    client = MlflowClient(uri, uri)
    with tracking.stage_run("retrain", chosen, layout):
        told = decide(client, uri, chosen, layout)
    print(told)


def decide(client: "MlflowClient", uri: str, chosen: "Settings", layout: Layout) -> str:
    """Compare, write the report, and move the alias when every rule holds; what was decided, in a line."""
    from pipeline import registry
    from pipeline.files import staged, write_json
    from pipeline.promotion.page import decision_page

    model, alias = chosen.tracking.model, chosen.retrain.alias
    challenger, champion = found(client, chosen, layout)
    if champion is not None and champion.version == challenger.version:
        return f"models:/{model}@{alias} is this detector already (version {challenger.version}): there is nothing to compare"
    place = None
    if champion is not None:
        place = registry.fetch(uri, model, champion.version, champion_folder(layout, champion))
    measured, decision = compared(challenger, champion, place, chosen, layout)
    names = [one.name for one in measured]
    with staged(layout.reports("retrain")) as out:
        write_json(out / "decision.json", {"detectors": names, **decision.plain()})
        write_json(out / "metrics.json", figures(decision, measured))
        decision_page(decision, measured, chosen.retrain).write(out / "index.html")
    told = f"{names[0]} {'is the champion' if decision.promoted else 'is refused'}: {decision.reason}"
    if decision.promoted:
        before = None if champion is None else champion.version
        registry.move(client, model, alias, before, challenger.version, "promote", decision.rules[0].figure)
    client.set_model_version_tag(model, challenger.version, "decision", told[:5000])
    return told


def found(client: "MlflowClient", chosen: "Settings", layout: Layout) -> tuple[Registered, Registered | None]:
    """The version of models/onnx, and the champion. UserError where the first is none."""
    from pipeline import registry
    from pipeline.files import digest_file

    model, alias = chosen.tracking.model, chosen.retrain.alias
    file = layout.onnx / "detector.onnx"
    if not file.exists():
        raise UserError(f"{file}: no such file\n  {LINE}")
    own = registry.versions_of(client, model, digest_file(file))
    if not own:
        register(chosen, layout)
        own = registry.versions_of(client, model, digest_file(file))
    if not own:
        raise UserError(f"{file}: could not be registered as a version of models:/{model}; the lines above say why")
    current = registry.version_at(client, model, alias)
    champion = None if current is None else Registered(str(current.version), dict(current.tags))
    tags = {name: value for one in own for name, value in one.tags.items()}  # the same file may have been rolled back before
    return Registered(str(own[-1].version), tags), champion


def register(chosen: "Settings", layout: Layout) -> None:
    """Make models/onnx a version, by a run of its own: the line that made it was not tracked, or was killed before it could.

    The line itself would do nothing more: its stages are up to date. UserError when data/validated is not what it was trained on.
    """
    from pipeline import tracking
    from pipeline.data.dataset import written_digest
    from pipeline.files import read_json

    training = read_json(layout.detector / "training.json")
    if not isinstance(training, dict) or training.get("data") != written_digest(layout.validated):
        raise UserError(f"{layout.detector}: was not trained on what {layout.validated} holds\n  {LINE}")
    run = tracking.Recorder(chosen.tracking, layout.root)
    run.open(name="export")
    tracking.start_run(run, chosen, layout)
    tracking.record_stage(run, "export", layout)
    run.close()


def champion_folder(layout: Layout, champion: Registered) -> Path:
    """Where the files of a version are kept, for all runs of a checkout; another store has other files under the same number."""
    return Layout(home(layout.root)).work("champion", f"{champion.version}-{champion.tags.get('digest', '')[:12]}")


def compared(
    challenger: Registered, champion: Registered | None, place: Path | None, chosen: "Settings", layout: Layout
) -> tuple[list["Measured"], "Decision"]:
    """Both detectors on the same pictures, the challenger first, and what the rules say."""
    from pipeline.data.dataset import open_dataset
    from pipeline.files import read_json
    from pipeline.promotion.measured import measure_file, slices_of, task_of
    from pipeline.promotion.rules import Rule, decided, judge, judge_first
    from pipeline.promotion.unseen import unseen
    from pipeline.registry import ROLLED_BACK

    cfg, gate = chosen.retrain, chosen.export.gate
    dataset = open_dataset(layout.validated)
    trained = {f"challenger {challenger.version}": layout.detector}
    if champion is not None and place is not None:
        trained[f"champion {champion.version}"] = place
    left = unseen(dataset.split(chosen.evaluate.split), trained)
    split = left.split
    deploy = read_json(layout.onnx / "deploy.json")
    assert isinstance(deploy, dict)
    task, threads, batch = task_of(deploy), chosen.compute.threads_each(), chosen.export.batch
    new = measure_file(f"challenger {challenger.version}", layout.onnx, dataset, split, task, threads, batch)
    measured = [new]
    if champion is None or place is None:
        decision = judge_first(new, cfg, gate)
    else:
        old = measure_file(f"champion {champion.version}", place, dataset, split, task, threads, batch)
        measured.append(old)
        decision = judge(old, new, slices_of(split), areas(dataset, split, task), cfg, gate, chosen.seed)
    rules = [*decision.rules, left.rule(int(new.matches.truths_KI.sum()), cfg.least_truths)]
    if ROLLED_BACK in challenger.tags and not cfg.force:
        told = f"taken out of service: {challenger.tags[ROLLED_BACK]}"
        rules.append(Rule("rolled back", False, told, "retrain.force=true lets it in"))
    return measured, decided(rules, decision.difference, decision.classes, decision.slices)


def areas(dataset: "Dataset", split: "Split", task: "Task") -> "Floats":
    """Areas of the labels that count."""
    from pipeline.evaluation.truth import Truth

    truth = Truth.of(split, dataset.info.categories, (task,))
    return truth.area_A[~truth.crowd_A]


def figures(decision: "Decision", measured: Sequence["Measured"]) -> dict[str, float]:
    """For metrics.json and MLflow."""
    values = {"retrain/promoted": float(decision.promoted), "retrain/challenger_ap": measured[0].metrics.value}
    if decision.difference is not None:
        found = decision.difference
        values |= {"retrain/difference": found.value, "retrain/difference_low": found.low, "retrain/difference_high": found.high}
        values |= {"retrain/champion_ap": measured[1].metrics.value}
    return values
